//! Films and result objects: what QIDO-RS and WADO-RS ask for (PS3.18 10.6, 10.4).

use super::Store;
use super::sql::{Row, Session, StoreError, Value};
use crate::config::ResultKind;
use crate::error::ServeError;
use serde::Serialize;
use spinexr_dicom::Instance;

/// What an instance is to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceKind {
    /// Received.
    Film,
    /// Made here.
    #[serde(untagged)]
    Result(ResultKind),
}

impl InstanceKind {
    /// `film`, `sr`, `gsps`, `sc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Result(kind) => kind.name(),
        }
    }

    fn from_name(name: &str) -> Self {
        ResultKind::from_name(name).map_or(Self::Film, Self::Result)
    }
}

/// An instance in the spool.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRow {
    /// SHA-256 of transfer syntax and data set, hexadecimal.
    pub id: String,
    /// What it is.
    pub kind: InstanceKind,
    /// The job that made it; none for a film.
    pub job: Option<String>,
    /// File in the spool.
    pub path: String,
    /// Length of the file.
    pub bytes: u64,
    /// When it came or was made, ms since 1970.
    pub received_ms: i64,
    /// Who it is, and its attributes.
    pub instance: Instance,
}

pub(super) const COLUMNS: &str = "id, kind, job, path, bytes, received_ms, data_set_start, transfer_syntax, sop_class_uid, \
                       sop_instance_uid, series_uid, study_uid, attributes";

/// What a query gives one answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A study.
    Study,
    /// A series.
    Series,
    /// An instance.
    Instance,
}

/// A search. Empty fields match everything; `*` and `?` are wildcards in a patient's name and id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// Study Instance UID.
    pub study_uid: Option<String>,
    /// Series Instance UID.
    pub series_uid: Option<String>,
    /// SOP Instance UID.
    pub sop_instance_uid: Option<String>,
    /// SOP Class UID.
    pub sop_class_uid: Option<String>,
    /// Modality; at study level, one that the study has.
    pub modality: Option<String>,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name.
    pub patient_name: Option<String>,
    /// Accession Number.
    pub accession: Option<String>,
    /// First study date, `YYYYMMDD`.
    pub study_date_from: Option<String>,
    /// Last study date.
    pub study_date_to: Option<String>,
    /// Most answers.
    pub limit: u32,
    /// Answers to leave out first.
    pub offset: u32,
}

impl Store {
    /// One instance for every study, series or instance that matches, the newest first. Of several contents under one SOP
    /// Instance UID the last one received counts.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn find_instances(&self, level: Level, query: &Query) -> Result<Vec<InstanceRow>, ServeError> {
        let group = match level {
            Level::Study => "study_uid",
            Level::Series => "series_uid",
            Level::Instance => "sop_instance_uid",
        };
        self.database.read(|sql| {
            let (conditions, values) = conditions(sql, query);
            let statement = format!(
                "SELECT {COLUMNS} FROM (SELECT {COLUMNS}, row_number() OVER (PARTITION BY {group} \
                 ORDER BY received_ms DESC, id) AS place FROM instances WHERE {conditions}) AS newest \
                 WHERE place = 1 ORDER BY received_ms DESC, id LIMIT {} OFFSET {}",
                query.limit, query.offset,
            );
            sql.rows(&statement, &values)?.iter().map(read).collect()
        })
    }

    /// How many series and instances a study, or a series of it, has, and its modalities.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn counts(
        &self,
        study_uid: &str,
        series_uid: Option<&str>,
    ) -> Result<(u64, u64, Vec<String>), ServeError> {
        let of = "FROM instances WHERE study_uid = ?1 AND (series_uid = ?2 OR ?2 IS NULL)";
        let counts = format!("SELECT count(DISTINCT series_uid), count(DISTINCT sop_instance_uid) {of}");
        let modalities = format!("SELECT DISTINCT modality {of} AND modality <> '' ORDER BY modality");
        let values = [study_uid.into(), series_uid.into()];
        self.database.read(|sql| {
            let modalities = sql.rows(&modalities, &values)?;
            let modalities = modalities.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
            let counts = sql.row(&counts, &values)?;
            let count = |column| counts.as_ref().map_or(Ok(0), |row| row.get(column));
            Ok((count(0)?, count(1)?, modalities))
        })
    }

    /// The instance of that content.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn instance(&self, id: &str) -> Result<Option<InstanceRow>, ServeError> {
        let statement = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
        self.database.read(|sql| sql.row(&statement, &[id.into()])?.as_ref().map(read).transpose())
    }

    /// The objects that a job made.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn results_of(&self, job: &str) -> Result<Vec<InstanceRow>, ServeError> {
        let statement = format!("SELECT {COLUMNS} FROM instances WHERE job = ?1 ORDER BY kind");
        self.database.read(|sql| sql.rows(&statement, &[job.into()])?.iter().map(read).collect())
    }

    /// Bytes of all files, for back-pressure.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn spool_bytes(&self) -> Result<u64, ServeError> {
        self.database.read(spool_bytes)
    }
}

/// Sum of all files.
pub(super) fn spool_bytes(sql: &mut Session<'_>) -> Result<u64, StoreError> {
    sql.value("SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM instances", &[])
}

/// What a query asks for, as a condition and its parameters.
fn conditions(sql: &Session<'_>, query: &Query) -> (String, Vec<Value>) {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut values: Vec<Value> = vec![];
    let equal = [
        ("study_uid = ", &query.study_uid),
        ("series_uid = ", &query.series_uid),
        ("sop_instance_uid = ", &query.sop_instance_uid),
        ("sop_class_uid = ", &query.sop_class_uid),
        ("modality = ", &query.modality),
        ("accession = ", &query.accession),
        ("study_date >= ", &query.study_date_from),
        ("study_date <> '' AND study_date <= ", &query.study_date_to),
    ];
    for (condition, value) in equal {
        if let Some(value) = value {
            values.push(value.into());
            conditions.push(format!("{condition}?{}", values.len()));
        }
    }
    if let Some(id) = &query.patient_id {
        let (is_like, pattern) = sql.wildcards(id);
        values.push(pattern.into());
        conditions.push(format!("patient_id {is_like} ?{}", values.len()));
    }
    if let Some(name) = &query.patient_name {
        let (is_like, pattern) = sql.wildcards(name);
        values.push(pattern.into());
        conditions.push(format!("lower(patient_name) {is_like} lower(?{})", values.len()));
    }
    (conditions.join(" AND "), values)
}

/// Adds an instance; one of that content stays as it is.
pub(super) fn insert(sql: &mut Session<'_>, row: &InstanceRow) -> Result<(), StoreError> {
    // PostgreSQL's text cannot hold NUL, which has no business in a header either.
    let text = |tag: &str| Value::from(row.instance.text(tag).unwrap_or_default().replace('\0', ""));
    let attributes = serde_json::to_string(&row.instance.attributes).expect("attributes are plain data");
    sql.execute(
        "INSERT INTO instances (id, kind, job, path, bytes, received_ms, data_set_start, transfer_syntax, \
         sop_class_uid, sop_instance_uid, series_uid, study_uid, attributes, modality, patient_id, patient_name, \
         study_date, accession) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
         ON CONFLICT DO NOTHING",
        &[
            (&row.id).into(),
            row.kind.name().into(),
            row.job.as_ref().into(),
            (&row.path).into(),
            (row.bytes as i64).into(),
            row.received_ms.into(),
            (row.instance.data_set_start as i64).into(),
            (&row.instance.transfer_syntax).into(),
            (&row.instance.sop_class_uid).into(),
            (&row.instance.sop_instance_uid).into(),
            (&row.instance.series_uid).into(),
            (&row.instance.study_uid).into(),
            attributes.into(),
            text("00080060"),
            text("00100020"),
            text("00100010"),
            text("00080020"),
            text("00080050"),
        ],
    )?;
    Ok(())
}

/// A row of [`COLUMNS`].
pub(super) fn read(row: &Row) -> Result<InstanceRow, StoreError> {
    let kind: String = row.get(1)?;
    let attributes: String = row.get(12)?;
    let attributes = serde_json::from_str(&attributes).map_err(|error| StoreError::Column {
        column: 12,
        expected: "attributes as JSON",
        got: error.to_string(),
    })?;
    Ok(InstanceRow {
        id: row.get(0)?,
        kind: InstanceKind::from_name(&kind),
        job: row.get(2)?,
        path: row.get(3)?,
        bytes: row.get(4)?,
        received_ms: row.get(5)?,
        instance: Instance {
            data_set_start: row.get(6)?,
            transfer_syntax: row.get(7)?,
            sop_class_uid: row.get(8)?,
            sop_instance_uid: row.get(9)?,
            series_uid: row.get(10)?,
            study_uid: row.get(11)?,
            has_pixels: kind == "film" || kind == "sc",
            attributes,
        },
    })
}

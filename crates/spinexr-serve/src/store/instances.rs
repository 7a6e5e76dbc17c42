//! Films and result objects: what QIDO-RS and WADO-RS ask for (PS3.18 10.6, 10.4).

use super::Store;
use crate::config::ResultKind;
use crate::error::ServeError;
use rusqlite::{OptionalExtension, Row, Transaction, params_from_iter};
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

const COLUMNS: &str = "id, kind, job, path, bytes, received_ms, data_set_start, transfer_syntax, sop_class_uid, \
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
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values: Vec<String> = vec![];
        let mut add = |condition: &str, value: &Option<String>| {
            if let Some(value) = value {
                values.push(value.clone());
                conditions.push(condition.replace('?', &format!("?{}", values.len())));
            }
        };
        add("study_uid = ?", &query.study_uid);
        add("series_uid = ?", &query.series_uid);
        add("sop_instance_uid = ?", &query.sop_instance_uid);
        add("sop_class_uid = ?", &query.sop_class_uid);
        add("modality = ?", &query.modality);
        // GLOB has the wildcards of PS3.4 C.2.2.2.4; its brackets have none there.
        let glob = |text: &Option<String>| text.as_ref().map(|t| t.replace('[', "[[]"));
        add("patient_id GLOB ?", &glob(&query.patient_id));
        add("lower(patient_name) GLOB lower(?)", &glob(&query.patient_name));
        add("accession = ?", &query.accession);
        add("study_date >= ?", &query.study_date_from);
        add("study_date <> '' AND study_date <= ?", &query.study_date_to);
        let group = match level {
            Level::Study => "study_uid",
            Level::Series => "series_uid",
            Level::Instance => "sop_instance_uid",
        };
        // SQLite takes the other columns from the row that has the greatest `max`.
        let statement = format!(
            "SELECT {COLUMNS}, max(received_ms) FROM instances WHERE {} GROUP BY {group} \
             ORDER BY received_ms DESC, id LIMIT {} OFFSET {}",
            conditions.join(" AND "),
            query.limit,
            query.offset,
        );
        let connection = self.connection();
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_map(params_from_iter(values), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
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
        let statement = "SELECT count(DISTINCT series_uid), count(DISTINCT sop_instance_uid), \
                         coalesce(group_concat(DISTINCT modality), '') FROM instances \
                         WHERE study_uid = ?1 AND (?2 IS NULL OR series_uid = ?2)";
        let connection = self.connection();
        let read = |row: &Row<'_>| {
            let modalities: String = row.get(2)?;
            let list = modalities.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64, list))
        };
        Ok(connection.query_row(statement, (study_uid, series_uid), read)?)
    }

    /// The instance of that content.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn instance(&self, id: &str) -> Result<Option<InstanceRow>, ServeError> {
        let statement = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
        Ok(self.connection().query_row(&statement, [id], read).optional()?)
    }

    /// The objects that a job made.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn results_of(&self, job: &str) -> Result<Vec<InstanceRow>, ServeError> {
        let statement = format!("SELECT {COLUMNS} FROM instances WHERE job = ?1 ORDER BY kind");
        let connection = self.connection();
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_map([job], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bytes of all files, for back-pressure.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn spool_bytes(&self) -> Result<u64, ServeError> {
        let sum = "SELECT coalesce(sum(bytes), 0) FROM instances";
        Ok(self.connection().query_row(sum, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Every file of the spool that a row names.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn paths(&self) -> Result<Vec<String>, ServeError> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT path FROM instances")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Adds an instance; one of that content stays as it is.
pub(super) fn insert(transaction: &Transaction<'_>, row: &InstanceRow) -> rusqlite::Result<()> {
    let text = |tag: &str| row.instance.text(tag).unwrap_or_default();
    let attributes = serde_json::to_string(&row.instance.attributes).expect("attributes are plain data");
    transaction.execute(
        "INSERT OR IGNORE INTO instances (id, kind, job, path, bytes, received_ms, data_set_start, transfer_syntax, \
         sop_class_uid, sop_instance_uid, series_uid, study_uid, attributes, modality, patient_id, patient_name, \
         study_date, accession) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        rusqlite::params![
            row.id,
            row.kind.name(),
            row.job,
            row.path,
            row.bytes as i64,
            row.received_ms,
            row.instance.data_set_start as i64,
            row.instance.transfer_syntax,
            row.instance.sop_class_uid,
            row.instance.sop_instance_uid,
            row.instance.series_uid,
            row.instance.study_uid,
            attributes,
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
fn read(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    let kind: String = row.get(1)?;
    let attributes: String = row.get(12)?;
    let attributes = serde_json::from_str(&attributes).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(12, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(InstanceRow {
        id: row.get(0)?,
        kind: InstanceKind::from_name(&kind),
        job: row.get(2)?,
        path: row.get(3)?,
        bytes: row.get::<_, i64>(4)? as u64,
        received_ms: row.get(5)?,
        instance: Instance {
            data_set_start: row.get::<_, i64>(6)? as u64,
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

//! How the store speaks to its database: SQLite, one file of one process, or PostgreSQL, which several nodes share.
//!
//! The tables hold whole numbers and text, and the statements are written once, in what both databases understand, with
//! parameters `?1`, `?2` …; a parameter has its type from its first use, so `column = ?1 OR ?1 IS NULL`, not the other way
//! round. Where the two differ, [`Session::wildcards`] and [`Session::now_ms`] say how.

use crate::clock::now_ms;
use postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::error::Error;

/// What the database refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite did.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL did, or it cannot be reached.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] postgres::Error),
    /// A column holds something else than this program writes.
    #[error("column {column}: expected {expected}, got {got}")]
    Column {
        /// Its place in the answer, from 0.
        column: usize,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        got: String,
    },
}

/// A value of a column or parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
        }))
    }
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(value) => value.to_sql_checked(ty, out),
            Self::Text(value) => value.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // What a value fits is asked of the value itself, above.
        true
    }

    to_sql_checked!();
}

/// What a column can be read as.
pub(super) trait FromValue: Sized {
    const EXPECTED: &'static str;
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(value) => Some(*value),
            Value::Null | Value::Text(_) => None,
        }
    }
}

impl FromValue for u64 {
    const EXPECTED: &'static str = "a whole number from 0";
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for u32 {
    const EXPECTED: &'static str = "a whole number of 32 bits from 0";
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "text";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(value) => Some(value.clone()),
            Value::Null | Value::Integer(_) => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(super) struct Row(Vec<Value>);

impl Row {
    /// The columns before that place, and the others.
    pub(super) fn split(mut self, column: usize) -> (Self, Self) {
        let others = self.0.split_off(column);
        (self, Self(others))
    }

    /// The column at that place, from 0.
    pub(super) fn get<T: FromValue>(&self, column: usize) -> Result<T, StoreError> {
        let value = self.0.get(column).unwrap_or(&Value::Null);
        T::from_value(value).ok_or_else(|| StoreError::Column {
            column,
            expected: T::EXPECTED,
            // Text may be a patient's.
            got: match value {
                Value::Null => "nothing".into(),
                Value::Integer(value) => value.to_string(),
                Value::Text(text) => format!("text of {} bytes", text.len()),
            },
        })
    }
}

/// An open connection, in or outside of a transaction.
pub(super) enum Session<'a> {
    Sqlite(&'a rusqlite::Connection),
    Postgres(&'a mut postgres::Client),
    Transaction(postgres::Transaction<'a>),
}

impl Session<'_> {
    /// Runs a statement; says how many rows it changed.
    pub(super) fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(sql) => sql.execute(statement, rusqlite::params_from_iter(values))? as u64,
            Self::Postgres(sql) => sql.execute(&numbered(statement), &parameters(values))?,
            Self::Transaction(sql) => sql.execute(&numbered(statement), &parameters(values))?,
        })
    }

    /// Runs several statements without parameters.
    pub(super) fn execute_all(&mut self, statements: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sql) => sql.execute_batch(statements)?,
            Self::Postgres(sql) => sql.batch_execute(statements)?,
            Self::Transaction(sql) => sql.batch_execute(statements)?,
        }
        Ok(())
    }

    /// The rows that a statement gives.
    pub(super) fn rows(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = match self {
            Self::Sqlite(sql) => return sqlite_rows(sql, statement, values),
            Self::Postgres(sql) => sql.query(&numbered(statement), &parameters(values))?,
            Self::Transaction(sql) => sql.query(&numbered(statement), &parameters(values))?,
        };
        rows.iter().map(postgres_row).collect()
    }

    /// The first row, if there is one.
    pub(super) fn row(&mut self, statement: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(statement, values)?.into_iter().next())
    }

    /// The first column of the first row, for statements that always give one.
    pub(super) fn value<T: FromValue>(&mut self, statement: &str, values: &[Value]) -> Result<T, StoreError> {
        self.row(statement, values)?.unwrap_or(Row(vec![])).get(0)
    }

    /// The operator that compares text with a pattern of PS3.4 C.2.2.2.4 (`*` any characters, `?` one), and the pattern as it
    /// wants it.
    pub(super) fn wildcards(&self, pattern: &str) -> (&'static str, String) {
        match self {
            // GLOB has these wildcards, and brackets, which have no meaning there.
            Self::Sqlite(_) => ("GLOB", pattern.replace('[', "[[]")),
            Self::Postgres(_) | Self::Transaction(_) => {
                let escaped = pattern.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                ("LIKE", escaped.replace('*', "%").replace('?', "_"))
            }
        }
    }

    /// Now, ms since 1970, by the one clock that all nodes of this store share.
    pub(super) fn now_ms(&mut self) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(now_ms()),
            Self::Postgres(_) | Self::Transaction(_) => {
                self.value("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)", &[])
            }
        }
    }
}

/// `$1` for `?1`.
fn numbered(statement: &str) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut characters = statement.chars().peekable();
    while let Some(character) = characters.next() {
        let is_parameter = character == '?' && characters.peek().is_some_and(char::is_ascii_digit);
        out.push(if is_parameter { '$' } else { character });
    }
    out
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn sqlite_rows(
    sql: &rusqlite::Connection,
    statement: &str,
    values: &[Value],
) -> Result<Vec<Row>, StoreError> {
    let mut statement = sql.prepare(statement)?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut out = vec![];
    while let Some(row) = rows.next()? {
        let value = |column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Integer(value) => Value::Integer(value),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                // No table has these.
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
            })
        };
        out.push(Row((0..columns).map(value).collect::<Result<_, StoreError>>()?));
    }
    Ok(out)
}

fn postgres_row(row: &postgres::Row) -> Result<Row, StoreError> {
    let value = |column: usize| {
        let is_number = *row.columns()[column].type_() == Type::INT8;
        Ok(match is_number {
            true => row.try_get::<_, Option<i64>>(column)?.into(),
            false => row.try_get::<_, Option<String>>(column)?.into(),
        })
    };
    Ok(Row((0..row.len()).map(value).collect::<Result<_, StoreError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_for_both() {
        assert_eq!(numbered("a = ?1 AND b LIKE 'x?' OR c = ?12"), "a = $1 AND b LIKE 'x?' OR c = $12");
    }

    #[test]
    fn a_column_of_another_type_is_an_error_without_its_text() {
        let row = Row(vec![Value::Null, Value::Integer(-1), "Doe^Jane".into()]);
        assert_eq!(row.get::<Option<String>>(0).unwrap(), None);
        assert!(row.get::<String>(0).is_err() && row.get::<u32>(1).is_err() && row.get::<String>(3).is_err());
        let error = row.get::<i64>(2).unwrap_err().to_string();
        assert_eq!(error, "column 2: expected a whole number, got text of 8 bytes");
    }
}

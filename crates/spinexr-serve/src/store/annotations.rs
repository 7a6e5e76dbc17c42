//! Readings: one of each reader for each film, with a version that grows with every change.

use super::Store;
use super::sql::{Row, StoreError};
use crate::annotation::{Annotation, AnnotationState};
use crate::clock::now_ms;
use crate::error::ServeError;
use std::collections::HashMap;

/// A reading as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedAnnotation {
    /// The film's content hash.
    pub film: String,
    /// Who read it.
    pub reader: String,
    /// 1 for the first that was saved.
    pub version: u64,
    /// When the first was saved, ms since 1970.
    pub begun_ms: i64,
    /// When this was saved, ms since 1970.
    pub saved_ms: i64,
    /// The reading.
    pub annotation: Annotation,
}

const COLUMNS: &str = "film, reader, version, begun_ms, saved_ms, document";

impl Store {
    /// Saves a reading over version `over` (0 for none), and gives its version; `None` when another one is there.
    ///
    /// # Errors
    /// [`ServeError::Store`], also for a film that is not there.
    pub fn save_annotation(
        &self,
        film: &str,
        reader: &str,
        over: u64,
        annotation: &Annotation,
    ) -> Result<Option<u64>, ServeError> {
        let document = serde_json::to_string(annotation).expect("a reading is plain data");
        self.database.write(|sql| {
            let query = "SELECT version FROM annotations WHERE film = ?1 AND reader = ?2";
            let found = sql.row(query, &[film.into(), reader.into()])?;
            let found: u64 = found.map_or(Ok(0), |row| row.get(0))?;
            if found != over {
                return Ok(None);
            }
            sql.execute(
                "INSERT INTO annotations (film, reader, version, state, begun_ms, saved_ms, document) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT (film, reader) \
                 DO UPDATE SET version = ?3, state = ?4, saved_ms = ?5, document = ?6",
                &[
                    film.into(),
                    reader.into(),
                    (over as i64 + 1).into(),
                    annotation.state.name().into(),
                    now_ms().into(),
                    document.into(),
                ],
            )?;
            Ok(Some(over + 1))
        })
    }

    /// A reader's reading of a film.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn annotation(&self, film: &str, reader: &str) -> Result<Option<SavedAnnotation>, ServeError> {
        let query = format!("SELECT {COLUMNS} FROM annotations WHERE film = ?1 AND reader = ?2");
        let values = [film.into(), reader.into()];
        self.database.read(|sql| sql.row(&query, &values)?.as_ref().map(read).transpose())
    }

    /// All readings of a film, or of all films, by film and reader.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn annotations(&self, film: Option<&str>) -> Result<Vec<SavedAnnotation>, ServeError> {
        let query =
            format!("SELECT {COLUMNS} FROM annotations WHERE film = ?1 OR ?1 IS NULL ORDER BY film, reader");
        self.database.read(|sql| sql.rows(&query, &[film.into()])?.iter().map(read).collect())
    }

    /// State of a reader's readings, by film.
    ///
    /// # Errors
    /// [`ServeError::Store`].
    pub fn annotation_states(&self, reader: &str) -> Result<HashMap<String, AnnotationState>, ServeError> {
        let query = "SELECT film, state FROM annotations WHERE reader = ?1";
        let read = |row: &Row| {
            let state: String = row.get(1)?;
            Ok((row.get(0)?, AnnotationState::from_name(&state).unwrap_or(AnnotationState::Draft)))
        };
        self.database.read(|sql| sql.rows(query, &[reader.into()])?.iter().map(read).collect())
    }
}

/// A row of [`COLUMNS`].
fn read(row: &Row) -> Result<SavedAnnotation, StoreError> {
    let document: String = row.get(5)?;
    let annotation = serde_json::from_str(&document).map_err(|error| StoreError::Column {
        column: 5,
        expected: "a reading as JSON",
        got: error.to_string(),
    })?;
    Ok(SavedAnnotation {
        film: row.get(0)?,
        reader: row.get(1)?,
        version: row.get(2)?,
        begun_ms: row.get(3)?,
        saved_ms: row.get(4)?,
        annotation,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_each;
    use super::*;
    use crate::annotation::tests::annotation;

    fn add_film(store: &Store) {
        store.run(
            "INSERT INTO instances VALUES ('f', 'film', NULL, 'films/f', 1, 0, 'x', 'c', '1.2', '1.3', '1.4', 'DX', \
             'P', 'N', '', '', '{}', 0); \
             INSERT INTO jobs (id, film, model, state, due_ms, received_ms, finished_ms) \
             VALUES ('j', 'f', 'm', 'done', 0, 0, 1);",
        );
    }

    #[test]
    fn a_reading_is_saved_over_the_version_it_was_made_from() {
        on_each(|store| {
            add_film(store);
            let first = annotation();
            assert_eq!(store.annotation("f", "a").unwrap(), None);
            assert_eq!(store.save_annotation("f", "a", 1, &first).unwrap(), None);
            assert_eq!(store.save_annotation("f", "a", 0, &first).unwrap(), Some(1));
            let second = Annotation { state: AnnotationState::Draft, ..first.clone() };
            assert_eq!(store.save_annotation("f", "a", 1, &second).unwrap(), Some(2));
            assert_eq!(
                store.save_annotation("f", "a", 1, &first).unwrap(),
                None,
                "another window was faster"
            );
            assert_eq!(store.save_annotation("f", "b", 0, &first).unwrap(), Some(1));
            let saved = store.annotation("f", "a").unwrap().unwrap();
            assert_eq!((saved.version, &saved.annotation), (2, &second));
            let all = store.annotations(Some("f")).unwrap();
            assert_eq!(all.iter().map(|s| s.reader.as_str()).collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(store.annotations(None).unwrap(), all);
            assert_eq!(store.annotation_states("a").unwrap()["f"].name(), "draft");
            assert!(store.save_annotation("unknown", "a", 0, &first).is_err());
        });
    }

    #[test]
    fn a_film_that_was_read_is_kept() {
        on_each(|store| {
            add_film(store);
            store.save_annotation("f", "a", 0, &annotation()).unwrap();
            assert_eq!(store.remove_oldest(Some(i64::MAX), 1, |_| Ok(())).unwrap(), None);
            store.run("DELETE FROM annotations");
            assert!(store.remove_oldest(Some(i64::MAX), 1, |_| Ok(())).unwrap().is_some());
        });
    }

    #[test]
    fn films_come_with_the_job_that_read_them_last() {
        on_each(|store| {
            add_film(store);
            let add = "INSERT INTO jobs (id, film, model, state, due_ms, received_ms) VALUES ('k', 'f', 'n', 'waiting', 0, 5)";
            store.run(add);
            let films = store.films(10).unwrap();
            assert_eq!(films.len(), 1);
            assert_eq!((films[0].0.id.as_str(), films[0].1.id.as_str()), ("f", "k"));
            assert_eq!(store.film("f").unwrap().unwrap(), films[0]);
            assert_eq!(store.film("g").unwrap(), None);
        });
    }
}

//! The headers of all films of a data set.

use crate::Dataset;
use crate::cache::FilmFailure;
use crate::parallel::in_parallel;
use spinexr_core::progress::{OnProgress, Progress};
use spinexr_dicom::{Examined, Limits, examine_header};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;

/// Reads the header of every film, by its path, and lists those that cannot be read, in the data set's order.
/// `threads` at least one; `on_progress` is called on the calling thread.
pub fn read_all(
    dataset: &Dataset,
    limits: &Limits,
    threads: usize,
    on_progress: OnProgress<'_>,
) -> (BTreeMap<PathBuf, Examined>, Vec<FilmFailure>) {
    let films = &dataset.films;
    let mut headers = BTreeMap::new();
    let mut failures: BTreeMap<usize, FilmFailure> = BTreeMap::new();
    let (mut done, total) = (0, films.len());
    on_progress(Progress { done, total });
    let Ok(()) = in_parallel(
        total,
        threads,
        |i| examine_header(&films[i].path, limits).map_err(|error| error.to_string()),
        |i, examined| {
            let path = films[i].path.clone();
            match examined {
                Ok(examined) => {
                    headers.insert(path, examined);
                }
                Err(error) => {
                    let image_id = films[i].annotation.image_id.clone();
                    failures.insert(i, FilmFailure { image_id, path, error });
                }
            }
            done += 1;
            on_progress(Progress { done, total });
            Ok::<(), Infallible>(())
        },
    );
    (headers, failures.into_values().collect())
}

/// Patient ids that name no patient: one that more than half of the studies share (`ANONYMOUS`). Of two or three
/// studies, a patient may well have most. `films` are study and patient, one a film.
pub(crate) fn placeholder_patients<'a>(
    films: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> BTreeSet<String> {
    const FEWEST_STUDIES: usize = 4;
    let mut studies_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut studies: BTreeSet<&str> = BTreeSet::new();
    for (study, patient) in films {
        studies.insert(study);
        if let Some(patient) = patient {
            studies_of.entry(patient).or_default().insert(study);
        }
    }
    let is_placeholder = |of: &BTreeSet<&str>| of.len() >= FEWEST_STUDIES && 2 * of.len() > studies.len();
    studies_of.into_iter().filter(|(_, of)| is_placeholder(of)).map(|(id, _)| id.to_owned()).collect()
}

//! Splits by study: a validation part held out of the release's training part, and the check that no study
//! is on two sides.

use crate::{DataError, Dataset, Film};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spinexr_core::{Split, hex};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// Which studies were held out of training for validation, and how they were drawn.
///
/// A model carries the one it was trained with: films of other validation studies are films it may have been
/// trained on, so that nothing may be chosen on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    /// Share of the training studies.
    pub validation_fraction: f64,
    /// Seed of the draw.
    pub split_seed: u64,
    /// SHA-256 over the ids of the studies, sorted, a line each: what fraction and seed give hangs on the
    /// annotations too.
    pub studies_sha256: String,
}

impl HoldOut {
    /// Of the validation studies that `dataset` has now.
    pub fn of(dataset: &Dataset, validation_fraction: f64, split_seed: u64) -> Self {
        let studies: BTreeSet<&str> =
            dataset.of(Split::Validation).map(|f| f.annotation.study_id.as_str()).collect();
        let mut hash = Sha256::new();
        studies.iter().for_each(|study| hash.update(format!("{study}\n")));
        Self { validation_fraction, split_seed, studies_sha256: hex(&hash.finalize()) }
    }

    /// Of a data set with a validation part of its own: its share is what it is, and no seed drew it.
    pub fn of_own_part(dataset: &Dataset) -> Self {
        let studies = |split| {
            let ids = dataset.of(split).map(|f| f.annotation.study_id.as_str());
            ids.collect::<BTreeSet<_>>().len()
        };
        let (train, validation) = (studies(Split::Train), studies(Split::Validation));
        Self::of(dataset, validation as f64 / (train + validation).max(1) as f64, 0)
    }

    /// The same studies, however they were drawn.
    pub fn same_studies(&self, other: &Self) -> bool {
        self.studies_sha256 == other.studies_sha256
    }
}

impl fmt::Display for HoldOut {
    /// `0.1 of the studies, split seed 0 (studies 3f2a9c01)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.studies_sha256.get(..8).unwrap_or(&self.studies_sha256);
        let Self { validation_fraction, split_seed, .. } = self;
        write!(f, "{validation_fraction} of the studies, split seed {split_seed} (studies {short})")
    }
}

/// Moves about `fraction` of the training studies to `Split::Validation`.
///
/// Studies are taken stratum by stratum (a study's stratum is its rarest class, or "abnormal without a
/// box", or "normal"), so that rare findings are on both sides wherever there are two studies of them.
/// Which studies are taken hangs on the seed and the study ids alone, not on the order of films. Studies
/// that are in validation already go back first: the same seed gives the same split again. Gives what was
/// held out.
///
/// # Errors
/// [`DataError::Setting`] for a fraction outside `(0, 1)`, [`DataError::TooFewStudies`] when a side would be
/// empty, [`DataError::UnknownLabel`] for a box of a class that the data set does not list.
pub fn hold_out_validation(dataset: &mut Dataset, fraction: f64, seed: u64) -> Result<HoldOut, DataError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DataError::Setting {
            name: "validation fraction",
            expected: "a number inside 0 to 1",
            found: fraction.to_string(),
        });
    }
    for film in &mut dataset.films {
        if film.split == Split::Validation {
            film.split = Split::Train;
        }
    }
    let held = choose_studies(dataset, fraction, seed)?;
    for film in &mut dataset.films {
        if film.split == Split::Train && held.contains(film.annotation.study_id.as_str()) {
            film.split = Split::Validation;
        }
    }
    dataset.films.sort_by(|a, b| (a.split, &a.annotation.image_id).cmp(&(b.split, &b.annotation.image_id)));
    Ok(HoldOut::of(dataset, fraction, seed))
}

/// The studies to hold out.
fn choose_studies(dataset: &Dataset, fraction: f64, seed: u64) -> Result<HashSet<String>, DataError> {
    let classes = dataset.classes.len();
    // study -> (has an abnormal film, its classes)
    let mut studies: BTreeMap<&str, (bool, BTreeSet<usize>)> = BTreeMap::new();
    for film in dataset.of(Split::Train) {
        let entry = studies.entry(&film.annotation.study_id).or_default();
        entry.0 |= film.annotation.abnormal;
        for marked in &film.annotation.boxes {
            let class = dataset.classes.index(&marked.label).map_err(|source| DataError::UnknownLabel {
                image_id: film.annotation.image_id.clone(),
                source,
            })?;
            entry.1.insert(class);
        }
    }
    let mut with_class = vec![0usize; classes];
    for class in studies.values().flat_map(|(_, found)| found) {
        with_class[*class] += 1;
    }
    // Strata ordered from rare to common: 0.. classes, then abnormal without a box, then normal.
    let mut by_rarity: Vec<usize> = (0..classes).collect();
    by_rarity.sort_by_key(|&class| (with_class[class], class));
    let mut rank = vec![0; classes];
    by_rarity.iter().enumerate().for_each(|(place, &class)| rank[class] = place);
    let mut strata: Vec<Vec<&str>> = vec![Vec::new(); classes + 2];
    for (study, (abnormal, found)) in &studies {
        let fallback = classes + usize::from(!abnormal);
        strata[found.iter().map(|&class| rank[class]).min().unwrap_or(fallback)].push(study);
    }

    let mut held = HashSet::new();
    let mut owed = 0.0; // what rounding kept back in earlier strata
    for stratum in &mut strata {
        stratum.sort_by_cached_key(|study| (study_key(seed, study), *study));
        let wanted = stratum.len() as f64 * fraction + owed;
        let mut take = (wanted.round().max(0.0) as usize).min(stratum.len());
        if stratum.len() >= 2 {
            take = take.clamp(1, stratum.len() - 1);
        }
        owed = wanted - take as f64;
        held.extend(stratum[..take].iter().map(|s| (*s).to_owned()));
    }
    if held.is_empty() || held.len() == studies.len() {
        return Err(DataError::TooFewStudies { fraction, studies: studies.len() });
    }
    Ok(held)
}

fn study_key(seed: u64, study_id: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(study_id).finalize().into()
}

/// No study is in two splits and no image id is used twice.
///
/// # Errors
/// [`DataError::StudyInTwoSplits`] or [`DataError::ImageTwice`], naming study and films.
pub fn check_leakage(dataset: &Dataset) -> Result<(), DataError> {
    let mut first_of_image: HashMap<&str, &Film> = HashMap::new();
    let mut first_of_study: HashMap<&str, &Film> = HashMap::new();
    for film in &dataset.films {
        if let Some(first) = first_of_image.insert(&film.annotation.image_id, film) {
            return Err(DataError::ImageTwice {
                image_id: film.annotation.image_id.clone(),
                first: first.path.clone(),
                second: film.path.clone(),
            });
        }
        let first = first_of_study.entry(&film.annotation.study_id).or_insert(film);
        if first.split != film.split {
            return Err(DataError::StudyInTwoSplits {
                study_id: film.annotation.study_id.clone(),
                first: first.split,
                first_image: first.annotation.image_id.clone(),
                second: film.split,
                second_image: film.annotation.image_id.clone(),
            });
        }
    }
    Ok(())
}

/// No patient is in two splits; `patient_of` gives a film's patient, `None` where not known.
///
/// # Errors
/// [`DataError::PatientInTwoSplits`], naming the studies but not the patient.
pub fn check_patient_leakage(
    dataset: &Dataset,
    mut patient_of: impl FnMut(&Film) -> Option<String>,
) -> Result<(), DataError> {
    let mut first_of_patient: HashMap<String, &Film> = HashMap::new();
    for film in &dataset.films {
        let Some(patient) = patient_of(film).filter(|p| !p.trim().is_empty()) else { continue };
        let first = first_of_patient.entry(patient).or_insert(film);
        if first.split != film.split {
            return Err(DataError::PatientInTwoSplits {
                first_study: first.annotation.study_id.clone(),
                first: first.split,
                second_study: film.annotation.study_id.clone(),
                second: film.split,
            });
        }
    }
    Ok(())
}

/// Something that ought to be in one split and is in several, with a film of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak<'a> {
    /// What they share: a study, a patient, their pixels.
    pub key: String,
    /// The first film of every split that has one, in the order of splits; two or more.
    pub films: Vec<&'a Film>,
}

/// All that is in several splits; `key_of` gives what a film must share with its own split only, `None` where not
/// known. In the order of keys.
pub fn leaks<'a>(dataset: &'a Dataset, mut key_of: impl FnMut(&Film) -> Option<String>) -> Vec<Leak<'a>> {
    let mut by_key: BTreeMap<String, BTreeMap<Split, &Film>> = BTreeMap::new();
    for film in &dataset.films {
        if let Some(key) = key_of(film) {
            by_key.entry(key).or_default().entry(film.split).or_insert(film);
        }
    }
    let several = by_key.into_iter().filter(|(_, films)| films.len() > 1);
    several.map(|(key, films)| Leak { key, films: films.into_values().collect() }).collect()
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;

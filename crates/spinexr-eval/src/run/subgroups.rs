//! The figures once more for films of each sex, age band, view …, from the coded facts that travel with the records.

use super::{FEW_BOXES, RunOptions};
use crate::LabelledScores;
use crate::binary::Confusion;
use crate::box_bootstrap::{RankedBoxes, resampled_ap};
use crate::coco::{self, BoxSet, Protocol};
use crate::error::EvalError;
use crate::intervals::{self, Interval, Unit};
use crate::roc;
use crate::threshold::{Predictions, Scorer, Test, Truth};
use serde::{Deserialize, Serialize};
use spinexr_core::FilmPrediction;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Subgroups with fewer abnormal or fewer normal films than this get a warning.
pub const FEW_FILMS: usize = 20;
/// Groups shown of one fact; the smallest of more are put together.
const MOST_GROUPS: usize = 12;
/// Name of the films whose header does not say.
pub const NOT_KNOWN: &str = "not known";
const REST: &str = "others";

/// Films by one fact of their header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subgroups {
    /// The fact, such as `sex`.
    pub fact: String,
    /// Its groups by name, those that are not known last. Every test film is in one.
    pub groups: Vec<Subgroup>,
}

/// Figures of the films of one group: the ensemble's, and those of the last row of the box-level table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subgroup {
    /// Value of the fact.
    pub name: String,
    /// Films.
    pub films: usize,
    /// Studies.
    pub studies: usize,
    /// Abnormal films.
    pub abnormal: usize,
    /// Marked boxes.
    pub boxes: usize,
    /// Area under the ROC curve of the ensemble.
    pub auroc: Option<f64>,
    /// Its 95 % interval, bootstrap of studies.
    pub auroc_ci: Option<Interval>,
    /// Sensitivity at c*, with its Wilson interval.
    pub sensitivity: Option<f64>,
    /// Wilson interval.
    pub sensitivity_ci: Option<Interval>,
    /// Specificity at c*.
    pub specificity: Option<f64>,
    /// Wilson interval.
    pub specificity_ci: Option<Interval>,
    /// Mean AP at IoU 0.5 over the classes that the group has.
    pub map50: Option<f64>,
    /// Its 95 % interval, bootstrap of studies.
    pub map50_ci: Option<Interval>,
    /// Why the figures say little; empty where there are films and boxes enough.
    pub warning: String,
}

/// What the groups are made of, in the order of image ids.
pub(super) struct Films<'a> {
    pub test: &'a Predictions<Test>,
    pub truth: &'a Truth<'a>,
    /// The lowest logit that is called abnormal.
    pub cut: Option<f64>,
    /// Boxes of all films, and the study of each film.
    pub boxes: Option<&'a BoxSet>,
    pub study_of_image: &'a [u32],
}

/// One entry a fact that at least one header carries.
pub(super) fn evaluate(films: &Films<'_>, options: &RunOptions) -> Result<Vec<Subgroups>, EvalError> {
    let facts: Vec<Vec<(&'static str, Option<String>)>> = films.test.films().map(facts).collect();
    let names: Vec<&'static str> = facts.first().into_iter().flatten().map(|fact| fact.0).collect();
    let mut all = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        if facts.iter().all(|film| film[i].1.is_none()) {
            continue;
        }
        let values: Vec<&str> = facts.iter().map(|film| film[i].1.as_deref().unwrap_or(NOT_KNOWN)).collect();
        let groups = grouped(&values)
            .into_iter()
            .map(|(group, members)| subgroup(group, &members, films, options))
            .collect::<Result<_, _>>()?;
        all.push(Subgroups { fact: name.to_owned(), groups });
    }
    Ok(all)
}

/// The coded facts of a film's header, and one that the record itself tells.
pub(crate) fn facts(film: &FilmPrediction) -> Vec<(&'static str, Option<String>)> {
    let longer_px = film.height_px.max(film.width_px);
    let size = match longer_px {
        0 => None,
        1..1000 => Some("under 1000 px"),
        1000..2000 => Some("1000-1999 px"),
        2000..3000 => Some("2000-2999 px"),
        _ => Some("3000 px and over"),
    };
    let named = film.facts.named().into_iter().map(|(name, value)| (name, value.map(str::to_owned)));
    named.chain([("longer side", size.map(str::to_owned))]).collect()
}

/// Membership of every film by group: the largest groups by name, then the rest, then those not known.
fn grouped(values: &[&str]) -> Vec<(String, Vec<bool>)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let mut by_size: Vec<(&str, usize)> = counts.into_iter().filter(|(name, _)| *name != NOT_KNOWN).collect();
    by_size.sort_by_key(|&(name, count)| (Reverse(count), name));
    let kept: BTreeSet<&str> = match by_size.len() > MOST_GROUPS {
        true => by_size[..MOST_GROUPS - 1].iter().map(|group| group.0).collect(),
        false => by_size.iter().map(|group| group.0).collect(),
    };
    let group_of = |value: &str| match value {
        NOT_KNOWN => NOT_KNOWN.to_owned(),
        value if kept.contains(value) => value.to_owned(),
        _ => REST.to_owned(),
    };
    let mut names: Vec<String> = kept.iter().map(|&name| name.to_owned()).collect();
    names.extend([REST.to_owned(), NOT_KNOWN.to_owned()]);
    let groups = names.into_iter().map(|name| {
        let members: Vec<bool> = values.iter().map(|value| group_of(value) == name).collect();
        (name, members)
    });
    groups.filter(|(_, members)| members.contains(&true)).collect()
}

fn subgroup(
    name: String,
    members: &[bool],
    all: &Films<'_>,
    options: &RunOptions,
) -> Result<Subgroup, EvalError> {
    let of_group = || all.test.films().zip(members).filter(|(_, member)| **member).map(|(film, _)| film);
    let annotations: Vec<_> = of_group().filter_map(|film| all.truth.get(&film.image)).collect();
    let rows = of_group().zip(&annotations).filter_map(|(film, annotation)| {
        Some((annotation.abnormal, Scorer::Ensemble.logit(film)?, annotation.study_id.as_str()))
    });
    let logits = LabelledScores::with_studies(rows)?;
    let confusion = all.cut.filter(|_| !logits.is_empty()).map(|cut| Confusion::at(&logits, cut));
    let auroc = roc::auroc(&logits);
    let bootstrap = auroc
        .map(|_| intervals::bootstrap(&logits, None, Unit::Study, &options.bootstrap))
        .and_then(|b| b.auroc);

    let abnormal = annotations.iter().filter(|a| a.abnormal).count();
    let boxes = annotations.iter().map(|a| a.boxes.len()).sum();
    let (map50, map50_ci) = match all.boxes.filter(|_| boxes > 0) {
        Some(set) => mean_ap(&set.of_images(members), members, all.study_of_image, options),
        None => (None, None),
    };
    let warning =
        warning(annotations.len() - abnormal, abnormal, boxes, !logits.is_empty(), all.boxes.is_some());
    Ok(Subgroup {
        name,
        films: annotations.len(),
        studies: annotations.iter().map(|a| a.study_id.as_str()).collect::<BTreeSet<_>>().len(),
        abnormal,
        boxes,
        auroc,
        auroc_ci: bootstrap.map(|b| b.interval),
        sensitivity: confusion.and_then(|c| c.sensitivity()),
        sensitivity_ci: confusion.and_then(|c| intervals::wilson(c.true_positives, logits.positives())),
        specificity: confusion.and_then(|c| c.specificity()),
        specificity_ci: confusion.and_then(|c| intervals::wilson(c.true_negatives, logits.negatives())),
        map50,
        map50_ci,
        warning,
    })
}

fn mean_ap(
    boxes: &BoxSet,
    members: &[bool],
    study_of_image: &[u32],
    options: &RunOptions,
) -> (Option<f64>, Option<Interval>) {
    let map50 = coco::mean_ap(&coco::evaluate(boxes, &Protocol::all_areas(vec![super::FOUND_IOU])));
    // Studies of the group alone are drawn.
    let mut studies: Vec<u32> =
        study_of_image.iter().zip(members).filter(|(_, member)| **member).map(|(study, _)| *study).collect();
    let mut names = studies.clone();
    names.sort_unstable();
    names.dedup();
    for study in &mut studies {
        *study = names.binary_search(study).expect("every study is among the names") as u32;
    }
    let ranked = RankedBoxes::new(boxes, &studies, names.len(), super::FOUND_IOU);
    let mean = resampled_ap(&ranked, &options.bootstrap).summary().mean;
    (map50, mean.map(|b| b.interval))
}

fn warning(normal: usize, abnormal: usize, boxes: usize, classified: bool, detected: bool) -> String {
    let mut reasons = Vec::new();
    let mut few = |count: usize, enough: usize, what: &str| {
        if count < enough {
            reasons.push(format!("{count} {what}"));
        }
    };
    if classified {
        few(abnormal, FEW_FILMS, "abnormal films");
        few(normal, FEW_FILMS, "normal films");
    }
    if detected {
        few(boxes, FEW_BOXES, "marked boxes");
    }
    match reasons.is_empty() {
        true => String::new(),
        false => format!("only {}", reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_film_is_in_one_group_and_the_unknown_come_last() {
        let makers: Vec<String> = (0..20).map(|i| format!("MAKER {i:02}")).collect();
        let mut values: Vec<&str> = makers.iter().map(String::as_str).collect();
        values.extend(["MAKER 03", NOT_KNOWN, "MAKER 17"]);
        let groups = grouped(&values);
        assert_eq!(groups.len(), MOST_GROUPS + 1);
        for film in 0..values.len() {
            assert_eq!(groups.iter().filter(|(_, members)| members[film]).count(), 1);
        }
        let names: Vec<&str> = groups.iter().map(|g| g.0.as_str()).collect();
        assert!(names.contains(&"MAKER 03") && names.contains(&"MAKER 17"));
        assert_eq!(names[names.len() - 2..], [REST, NOT_KNOWN]);
        assert_eq!(grouped(&["F", "M"]).len(), 2);
    }

    #[test]
    fn small_numbers_are_said() {
        assert_eq!(warning(FEW_FILMS, FEW_FILMS, FEW_BOXES, true, true), "");
        assert_eq!(warning(3, 30, 2, true, true), "only 3 normal films, 2 marked boxes");
        assert_eq!(warning(3, 30, 2, false, false), "");
    }
}

//! How several bundles and models speak with one voice: their boxes, thresholds, hash and provenance.

use crate::InferError;
use crate::bundle::Bundle;
use crate::manifest::{Decision, ModelSpec};
use sha2::{Digest, Sha256};
use spinexr_core::nms::class_wise_nms;
use spinexr_core::{BoxFusion, BoxXyxy, ClassList, Detection, Label, hex};
use spinexr_dicom::Policy;
use spinexr_models::{DetectConfig, Task};
use std::collections::{BTreeMap, BTreeSet};

/// The boxes of one detector and view as they are; of several, put together by `fusion`.
pub(crate) fn join_boxes(
    mut lists: Vec<Vec<Detection>>,
    fusion: &BoxFusion,
    settings: &DetectConfig,
) -> Vec<Detection> {
    if lists.len() <= 1 {
        return lists.pop().unwrap_or_default();
    }
    if let BoxFusion::Wbf(fusion) = fusion {
        let mut fused = fusion.fuse(&lists, &vec![1.0; lists.len()]);
        fused.truncate(settings.max_detections);
        return fused;
    }
    let all: Vec<Detection> = lists.concat();
    let boxes: Vec<BoxXyxy> = all.iter().map(|d| d.xyxy).collect();
    let scores: Vec<f32> = all.iter().map(|d| d.score).collect();
    let labels: BTreeSet<&Label> = all.iter().map(|d| &d.label).collect();
    let number: BTreeMap<&Label, usize> = labels.into_iter().zip(0..).collect();
    let classes: Vec<usize> = all.iter().map(|d| number[&d.label]).collect();
    let kept = class_wise_nms(&boxes, &scores, &classes, settings.nms_iou);
    kept.into_iter().take(settings.max_detections).map(|i| all[i].clone()).collect()
}

/// The classes of all detectors' boxes: the list of VinDr-SpineXR where each class is of it, so that its numbers in
/// results files stay whatever a detector knows; else in the order in which they come.
pub(crate) fn joint_classes<'m>(
    models: impl IntoIterator<Item = &'m ModelSpec>,
) -> Result<ClassList, InferError> {
    let mut labels: Vec<Label> = vec![];
    let mut seen: BTreeSet<Label> = BTreeSet::new();
    for model in models.into_iter().filter(|model| model.task == Task::Detection) {
        let own = model.class_list()?;
        labels.extend(own.labels().iter().filter(|label| seen.insert((*label).clone())).cloned());
    }
    let vindr = ClassList::vindr();
    if labels.iter().all(|label| vindr.index(label).is_ok()) {
        return Ok(vindr);
    }
    ClassList::new(labels).map_err(|e| InferError::ManifestValue {
        place: "the detectors together".to_owned(),
        key: "classes".to_owned(),
        expected: format!("at most {} classes", ClassList::MAX_CLASSES),
        got: e.to_string(),
    })
}

/// The thresholds of a set of bundles: those given, else those of the one bundle that holds every
/// classifier, since c* belongs to the ensemble it was chosen for.
pub(crate) fn decision_of(
    bundles: &[Bundle],
    given: Option<Decision>,
) -> Result<Option<Decision>, InferError> {
    if given.is_some() {
        return Ok(given);
    }
    let Some(holder) = bundles.iter().find(|b| b.manifest().decision.is_some()) else { return Ok(None) };
    let classifies = |b: &Bundle| b.manifest().models.iter().any(ModelSpec::is_of_ensemble);
    let others = bundles.iter().filter(|b| !std::ptr::eq(*b, holder));
    if others.clone().any(|b| b.manifest().decision.is_some() || classifies(b)) {
        return Err(InferError::AmbiguousDecision {
            bundles: bundles.len(),
            holder: holder.manifest().name.clone(),
        });
    }
    Ok(holder.manifest().decision.clone())
}

/// What names the models of these bundles in records: the bundle's hash; of several, SHA-256 over their hashes in order.
pub fn joint_hash(bundles: &[Bundle]) -> String {
    if let [only] = bundles {
        return only.hash().to_owned();
    }
    let mut hash = Sha256::new();
    bundles.iter().for_each(|b| hash.update(b.hash().as_bytes()));
    hex(&hash.finalize())
}

/// The provenance; of several policies, an object with one a policy.
pub(crate) fn joint_pixels(mut provenances: Vec<(Policy, serde_json::Value)>) -> serde_json::Value {
    if provenances.len() == 1 {
        return provenances.swap_remove(0).1;
    }
    let named = provenances.into_iter().map(|(policy, provenance)| (policy.name().to_owned(), provenance));
    serde_json::Value::Object(named.collect())
}

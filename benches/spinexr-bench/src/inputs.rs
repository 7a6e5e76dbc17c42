//! What both sides read, made once from fixed seeds.
//!
//! ```text
//! DIR/sizes.json                   how large everything is
//! DIR/densenet121.safetensors      weights by torchvision's names; densenet121.spinexr is the same as a bundle
//! DIR/retinanet_r50.safetensors    weights by torchvision's names
//! DIR/sparse_rcnn_r50.safetensors  weights by this program's names
//! DIR/images.safetensors           classifier [N, 3, H, W], labels [N, 1], detector [1, 1, H, W] in 0..1
//! DIR/targets.json                 true boxes of the detector's image
//! DIR/synth/, films.json           synthetic films; those to prepare, relative to DIR
//! DIR/film.dicom                   the film of a cold start
//! DIR/truth.json, detections.json  a test set in COCO's form
//! DIR/scores.json                  labels and scores of the same test set
//! ```

use crate::made_up;
use crate::sizes::Sizes;
use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use spinexr_core::progress::silent;
use spinexr_core::{ClassList, Finding, Label};
use spinexr_data::{Fit, InputSize};
use spinexr_dicom::{Policy, ReadOptions, find_films, read_film};
use spinexr_eval::LabelledScores;
use spinexr_eval::coco::BoxSet;
use spinexr_eval::coco_json;
use spinexr_infer::manifest::ABNORMAL;
use spinexr_infer::{Bundle, BundleInfo, ModelSpec, Storage, card};
use spinexr_models::resnet::{NormMode, ResNetConfig};
use spinexr_models::retinanet::RetinaNetConfig;
use spinexr_models::weights::{Entry, StateDict, from_safetensors, state_dict, to_safetensors};
use spinexr_models::{Architecture, DenseNetConfig, SparseRcnnConfig, Target, Task};
use spinexr_synth::SynthConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Weights of DenseNet-121.
pub const DENSENET: &str = "densenet121.safetensors";
/// Weights of RetinaNet.
pub const RETINANET: &str = "retinanet_r50.safetensors";
/// Weights of Sparse R-CNN.
pub const SPARSE_RCNN: &str = "sparse_rcnn_r50.safetensors";
const BUNDLE: &str = "densenet121.spinexr";
const IMAGES: &str = "images.safetensors";
const TARGETS: &str = "targets.json";
const SYNTH: &str = "synth";
const FILMS: &str = "films.json";
const COLD_START_FILM: &str = "film.dicom";
const TRUTH: &str = "truth.json";
const DETECTIONS: &str = "detections.json";
const SCORES: &str = "scores.json";

/// Factor on the drawn weights that give the class logits.
const CLASS_LOGIT_SPREAD: f32 = 256.0;

/// Transfer syntaxes of the films that are prepared: native in both encodings, RLE, JPEG lossless. The synthetic
/// deflated films are left out, since the comparison is of pixel codecs.
const SYNTAXES: [&str; 4] =
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"];

/// torchvision's `retinanet_resnet50_fpn(weights=None, weights_backbone=None)`, whose norms are live because
/// nothing is pretrained, for our seven classes.
pub fn retinanet_config() -> RetinaNetConfig {
    let published = RetinaNetConfig::resnet50();
    RetinaNetConfig { backbone: ResNetConfig::resnet50().with_norm(NormMode::Live), ..published }
}

/// The published Sparse R-CNN with live norms, as [`retinanet_config`] has them.
pub fn sparse_rcnn_config(sizes: &Sizes) -> SparseRcnnConfig {
    SparseRcnnConfig {
        backbone: ResNetConfig::resnet50().with_norm(NormMode::Live),
        stages: sizes.sparse_rcnn_stages,
        ..SparseRcnnConfig::resnet50()
    }
}

/// Images and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// `[N, 3, H, W]`, normalised.
    pub classifier: Entry,
    /// `[N, 1]`, 0 or 1.
    pub labels: Entry,
    /// `[1, 1, H, W]`, 0 to 1.
    pub detector: Entry,
}

/// A true box, as `targets.json` has it.
#[derive(Serialize, Deserialize)]
struct Box {
    class: usize,
    xyxy: [f32; 4],
}

#[derive(Serialize, Deserialize)]
struct Scores {
    labels: Vec<bool>,
    scores: Vec<f64>,
}

/// Fills `dir`, which must be new or empty.
pub fn make(dir: &Path, sizes: &Sizes) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let occupied = dir.read_dir().with_context(|| format!("reading {}", dir.display()))?.next().is_some();
    ensure!(!occupied, "{}: the folder is not empty; expected a new or an empty folder", dir.display());
    sizes.write(dir)?;
    make_weights(dir, sizes)?;
    make_images(dir, sizes)?;
    make_films(dir, sizes)?;
    make_test_set(dir, sizes)
}

fn make_weights(dir: &Path, sizes: &Sizes) -> Result<()> {
    let device = Device::flex();
    let densenet = state_dict(&DenseNetConfig::densenet121().init_seeded(1, &device));
    write_tensors(dir, DENSENET, &densenet)?;
    write_bundle(dir, densenet, sizes)?;
    let mut retinanet = state_dict(&retinanet_config().init_seeded(2, &device));
    for (name, entry) in &mut retinanet {
        // As drawn, the maps grow with every residual unit, and all class logits are within a hundredth of their
        // prior, so that no box passes the threshold. Damped units and spread logits leave suppression a thousand
        // candidates or so, as a trained network does.
        let factor = if name.ends_with("bn3.weight") {
            0.2
        } else if name.ends_with("cls_logits.weight") {
            CLASS_LOGIT_SPREAD
        } else {
            continue;
        };
        entry.values.iter_mut().for_each(|v| *v *= factor);
    }
    write_tensors(dir, RETINANET, &retinanet)?;
    let mut sparse_rcnn = state_dict(&sparse_rcnn_config(sizes).init_seeded(3, &device));
    for (name, entry) in &mut sparse_rcnn {
        let factor = match name {
            name if name.ends_with("bn3.weight") => 0.2,
            // Drawn steps throw boxes out of the image, ten times farther a stage, and rounding errors with them: by the
            // sixth stage the loss in f32 is 0.3 % off that in f64. Trained stages move boxes a little.
            name if name.contains("bboxes_delta") => 0.02,
            _ => continue,
        };
        entry.values.iter_mut().for_each(|v| *v *= factor);
    }
    write_tensors(dir, SPARSE_RCNN, &sparse_rcnn)
}

fn write_bundle(dir: &Path, weights: StateDict, sizes: &Sizes) -> Result<()> {
    let side_px = u32::try_from(sizes.classifier_px).context("the classifier's input")?;
    let architecture = Architecture::Densenet121;
    let spec = ModelSpec {
        name: architecture.name().to_owned(),
        architecture,
        task: Task::Classification,
        classes: vec![ABNORMAL.to_owned()],
        in_channels: architecture.in_channels(),
        final_relu: None,
        training_manifest_sha256: None,
        policy: Policy::Vindr,
        hold_out: None,
        input: InputSize { height_px: side_px, width_px: side_px, fit: Fit::Stretch },
        normalisation: architecture.default_normalisation(),
        detect: None,
    };
    let info = BundleInfo {
        name: "benchmark".to_owned(),
        licence: "Apache-2.0".to_owned(),
        intended_use: "Timing. The weights are drawn, not trained.".to_owned(),
        demonstration: true,
    };
    let text = |manifest: &_| card(manifest, &Default::default());
    Ok(Bundle::new(info, vec![(spec, weights)], None, Storage::F32, text)?.save(&dir.join(BUNDLE))?)
}

fn make_images(dir: &Path, sizes: &Sizes) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (side, n) = (sizes.classifier_px, sizes.batch);
    let (height, width) = (sizes.detector_height_px, sizes.detector_width_px);
    let mut drawn = |shape: [usize; 4], low: f32, high: f32| Entry {
        values: (0..shape.iter().product()).map(|_| rng.random_range(low..high)).collect(),
        shape: shape.to_vec(),
    };
    let tensors = StateDict::from([
        ("classifier".to_owned(), drawn([n, 3, side, side], -2.0, 2.0)),
        ("detector".to_owned(), drawn([1, 1, height, width], 0.0, 1.0)),
        ("labels".to_owned(), Entry { shape: vec![n, 1], values: (0..n).map(|i| (i % 2) as f32).collect() }),
    ]);
    write_tensors(dir, IMAGES, &tensors)?;
    let boxes: Vec<Box> = (0..sizes.boxes)
        .map(|i| {
            let (h, w) = (height as f32, width as f32);
            let (x1, y1) = (w * rng.random_range(0.05..0.6f32), h * rng.random_range(0.05..0.6f32));
            let (x2, y2) = (x1 + w * rng.random_range(0.1..0.3f32), y1 + h * rng.random_range(0.1..0.3f32));
            Box { class: i % Finding::COUNT, xyxy: [x1, y1, x2, y2] }
        })
        .collect();
    write_json(dir, TARGETS, &boxes)
}

fn make_films(dir: &Path, sizes: &Sizes) -> Result<()> {
    // A study has two films or so; a fifth of the films have another syntax or a header that the recipe fails on.
    let studies = 2 + sizes.films * 3 / 4;
    let config =
        SynthConfig { studies, test_studies: 0, seed: 5, height_px: sizes.film_height_px, balanced: false };
    let synth = dir.join(SYNTH);
    spinexr_synth::generate(&synth, &config, &silent)?;
    let options = ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() };
    let (mut films, mut met) = (vec![], BTreeMap::<&str, Vec<PathBuf>>::new());
    for path in find_films(&synth.join("train_images"))? {
        let provenance = read_film(&path, &options)?.provenance;
        let syntax = SYNTAXES.into_iter().find(|s| provenance.transfer_syntax.as_deref() == Some(*s));
        if let (Some(syntax), None) = (syntax, &provenance.fallback)
            && films.len() < sizes.films
        {
            met.entry(syntax).or_default().push(path.clone());
            films.push(path);
        }
    }
    for (syntax, films) in &met {
        eprintln!("{syntax}: {} films", films.len());
    }
    if films.len() < sizes.films {
        bail!("{} of {studies} synthetic studies' films are of use, expected {}", films.len(), sizes.films);
    }
    let cold_start = dir.join(COLD_START_FILM);
    std::fs::copy(&films[0], &cold_start).with_context(|| format!("writing {}", cold_start.display()))?;
    let relative: BTreeSet<&Path> = films.iter().filter_map(|path| path.strip_prefix(dir).ok()).collect();
    write_json(dir, FILMS, &relative)
}

/// The records of spinexr-eval's own benchmark, in the form that pycocotools reads.
fn make_test_set(dir: &Path, sizes: &Sizes) -> Result<()> {
    let data = made_up::make(0, sizes.evaluated_films, sizes.detections_per_film, 1);
    // Ids count from 1: pycocotools takes an annotation with id 0 for "not matched".
    let classes = ClassList::vindr();
    let category = |label: &Label| classes.index(label).map_or(0, |index| index + 1);
    let xywh = |b: &spinexr_core::BoxXyxy| [b.x1, b.y1, b.width(), b.height()].map(f64::from);
    let (mut images, mut annotations, mut detections) = (vec![], vec![], vec![]);
    let mut scores = Scores { labels: vec![], scores: vec![] };
    for (id, (film, truth)) in (1..).zip(data.test.iter().zip(&data.test_truth)) {
        images.push(json!({"id": id, "height": film.height_px, "width": film.width_px}));
        for b in &truth.boxes {
            let bbox = xywh(&b.xyxy);
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": id, "category_id": category(&b.label),
                "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0,
            }));
        }
        detections.extend(film.boxes_before_gate.iter().map(|b| {
            json!({"image_id": id, "category_id": category(&b.label), "bbox": xywh(&b.xyxy), "score": b.score})
        }));
        scores.labels.push(truth.abnormal);
        scores.scores.push(film.ensemble_logit().context("a made-up record has logits")?);
    }
    let categories: Vec<_> =
        Finding::ALL.iter().map(|f| json!({"id": f.index() + 1, "name": f.name()})).collect();
    let truth = json!({"info": {}, "images": images, "annotations": annotations, "categories": categories});
    write_json(dir, TRUTH, &truth)?;
    write_json(dir, DETECTIONS, &detections)?;
    write_json(dir, SCORES, &scores)
}

impl Images {
    /// Reads `images.safetensors`.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut tensors = read_tensors(dir, IMAGES)?;
        let mut take = |name: &str| tensors.remove(name).with_context(|| format!("{IMAGES} has no {name:?}"));
        Ok(Self { classifier: take("classifier")?, labels: take("labels")?, detector: take("detector")? })
    }
}

/// Tensors by name.
pub fn read_tensors(dir: &Path, name: &str) -> Result<StateDict> {
    let path = dir.join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    from_safetensors(&bytes).with_context(|| path.display().to_string())
}

/// True boxes of the detector's image.
pub fn read_targets(dir: &Path) -> Result<Vec<Target>> {
    let boxes: Vec<Box> = read_json(dir, TARGETS)?;
    Ok(boxes.into_iter().map(|b| Target { class: b.class, xyxy: b.xyxy }).collect())
}

/// Films to prepare.
pub fn read_films(dir: &Path) -> Result<Vec<PathBuf>> {
    let relative: Vec<PathBuf> = read_json(dir, FILMS)?;
    Ok(relative.into_iter().map(|path| dir.join(path)).collect())
}

/// True and proposed boxes of the test set.
pub fn read_boxes(dir: &Path) -> Result<BoxSet> {
    let truth = coco_json::read_truth(&dir.join(TRUTH))?;
    Ok(coco_json::read_detections(&dir.join(DETECTIONS), &truth)?)
}

/// Labels and scores of the test set.
pub fn read_scores(dir: &Path) -> Result<LabelledScores> {
    let Scores { labels, scores } = read_json(dir, SCORES)?;
    Ok(LabelledScores::new(&labels, &scores)?)
}

fn write_tensors(dir: &Path, name: &str, tensors: &StateDict) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, to_safetensors(tensors, BTreeMap::new()))
        .with_context(|| format!("writing {}", path.display()))
}

fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = dir.join(name);
    let text = serde_json::to_vec(value).with_context(|| path.display().to_string())?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<T> {
    let path = dir.join(name);
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

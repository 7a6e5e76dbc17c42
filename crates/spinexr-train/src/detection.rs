//! Boxes of findings: focal and box losses, mAP@0.5 in film pixels on the validation films.

use crate::config::ModelConfig;
use crate::engine::{Task, images};
use crate::error::TrainError;
use burn::tensor::{Device, Tensor};
use spinexr_core::{BoxXyxy, FilmAnnotation, Finding};
use spinexr_data::{Batch, FixedBatches};
use spinexr_eval::coco::{self, BoxSet, DetectedBox, Protocol, TruthBox};
use spinexr_models::{DetectConfig, Normalisation, RetinaNet, Target};
use std::collections::BTreeMap;

/// Training a detector.
pub(crate) struct Detection;

impl Task for Detection {
    type Model = RetinaNet;

    const METRIC: &'static str = "map50";

    fn init(config: &ModelConfig, seed: u64, device: &Device) -> Option<RetinaNet> {
        Some(config.retinanet()?.init_seeded(seed, device))
    }

    fn loss(
        model: &RetinaNet,
        _config: &ModelConfig,
        images: Tensor<4>,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let output = model.forward(images);
        let targets: Vec<Vec<Target>> = batch
            .boxes
            .iter()
            .map(|boxes| boxes.iter().map(|b| Target { class: b.class, xyxy: b.xyxy.into() }).collect())
            .collect();
        let loss = model.loss(&output, &targets);
        vec![("classification", loss.classification), ("regression", loss.regression)]
    }

    fn evaluate(
        model: &RetinaNet,
        normalisation: &Normalisation,
        batches: FixedBatches,
        films: &[FilmAnnotation],
        device: &Device,
    ) -> Result<BTreeMap<String, Option<f64>>, TrainError> {
        let mut boxes = BoxSet { images: films.len(), classes: Finding::COUNT, ..BoxSet::default() };
        for (image, film) in films.iter().enumerate() {
            boxes.truth.extend(film.boxes.iter().map(|b| {
                let xywh = xywh(&b.xyxy);
                TruthBox { image, class: b.label.index(), xywh, area: xywh[2] * xywh[3], crowd: false }
            }));
        }
        let mut image = 0;
        for batch in batches {
            let batch = batch?;
            let output = model.forward(normalisation.apply(images(&batch, device)));
            let sizes: Vec<(f32, f32)> =
                batch.content_px.iter().map(|&(h, w)| (h as f32, w as f32)).collect();
            for (i, detections) in
                model.detect(&output, &sizes, &DetectConfig::RETINANET).into_iter().enumerate()
            {
                boxes.detections.extend(detections.iter().filter(|d| d.score.is_finite()).map(|d| {
                    DetectedBox {
                        image,
                        class: d.class,
                        xywh: xywh(&batch.maps[i].to_film(&d.xyxy)),
                        score: f64::from(d.score),
                    }
                }));
                image += 1;
            }
        }
        let classes = coco::evaluate(&boxes, &Protocol::all_areas(vec![0.5]));
        let mut metrics = BTreeMap::from([(Self::METRIC.to_owned(), coco::mean_ap(&classes))]);
        for (finding, class) in Finding::ALL.into_iter().zip(&classes) {
            metrics.insert(format!("ap50/{}", finding.code()), class.ap());
        }
        Ok(metrics)
    }
}

fn xywh(b: &BoxXyxy) -> [f64; 4] {
    [b.x1.into(), b.y1.into(), b.width().into(), b.height().into()]
}

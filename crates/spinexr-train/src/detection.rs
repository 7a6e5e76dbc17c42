//! Boxes of findings: a detector's own losses, mAP@0.5 in film pixels on the validation films.

use crate::config::ModelConfig;
use crate::engine::{Task, images};
use crate::error::TrainError;
use burn::tensor::{Device, Tensor};
use spinexr_core::{BoxXyxy, ClassList, FilmAnnotation};
use spinexr_data::{Batch, FixedBatches};
use spinexr_eval::coco::{self, BoxSet, DetectedBox, Protocol, TruthBox};
use spinexr_models::{Detector, Target};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// Training a detector of one family.
pub(crate) struct Detection<D>(PhantomData<D>);

impl<D: Detector> Task for Detection<D> {
    type Model = D;

    const METRIC: &'static str = "map50";

    fn init(config: &ModelConfig, classes: usize, seed: u64, device: &Device) -> Option<D> {
        Some(D::init_seeded(D::config_of(&config.detector(classes)?)?, seed, device))
    }

    fn loss(
        model: &D,
        _config: &ModelConfig,
        images: Tensor<4>,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let targets: Vec<Vec<Target>> = batch
            .boxes
            .iter()
            .map(|boxes| boxes.iter().map(|b| Target { class: b.class, xyxy: b.xyxy.into() }).collect())
            .collect();
        model.losses(images, &content_px(batch), &targets, batch.draw)
    }

    fn evaluate(
        model: &D,
        config: &ModelConfig,
        batches: FixedBatches,
        films: &[FilmAnnotation],
        classes: &ClassList,
        device: &Device,
    ) -> Result<BTreeMap<String, Option<f64>>, TrainError> {
        let mut boxes = BoxSet { images: films.len(), classes: classes.len(), ..BoxSet::default() };
        for (image, film) in films.iter().enumerate() {
            for b in &film.boxes {
                let class = classes.index(&b.label).expect("checked with the films");
                let xywh = xywh(&b.xyxy);
                boxes.truth.push(TruthBox { image, class, xywh, area: xywh[2] * xywh[3], crowd: false });
            }
        }
        let detect = config.detector(classes.len()).expect("a detector is trained").detect_config();
        let mut image = 0;
        for batch in batches {
            let batch = batch?;
            let input = config.normalisation.apply(images(&batch, device));
            for (i, detections) in model.detect(input, &content_px(&batch), &detect).into_iter().enumerate() {
                // Weights that give no numbers find nothing.
                let detections = detections.unwrap_or_default();
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
        let results = coco::evaluate(&boxes, &Protocol::all_areas(vec![0.5]));
        let mut metrics = BTreeMap::from([(Self::METRIC.to_owned(), coco::mean_ap(&results))]);
        for (label, result) in classes.labels().iter().zip(&results) {
            metrics.insert(format!("ap50/{}", classes.heading(label)), result.ap());
        }
        Ok(metrics)
    }
}

/// Height and width of each image without padding, input px.
fn content_px(batch: &Batch) -> Vec<(f32, f32)> {
    batch.content_px.iter().map(|&(height, width)| (height as f32, width as f32)).collect()
}

fn xywh(b: &BoxXyxy) -> [f64; 4] {
    [b.x1.into(), b.y1.into(), b.width().into(), b.height().into()]
}

//! What the cases of torchvision's detectors share: images, true boxes, detections.

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::anchors::Anchors;
use spinexr_models::{NotFinite, RawDetection, Target};

use crate::case::Case;

/// The two images with ImageNet's mean and deviation, `[2, 3, 128, 160]`.
pub fn images(case: &Case, device: &Device) -> Tensor<4> {
    let a: Tensor<3> = case.input("input_9", device);
    let b: Tensor<3> = case.input("input_23", device);
    let row = |name: &str| {
        let values: Vec<f32> = case.manifest["config"][name]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        Tensor::<4>::from_data(TensorData::new(values, [1, 3, 1, 1]), device)
    };
    (Tensor::stack::<4>(vec![a, b], 0) - row("image_mean")) / row("image_std")
}

/// The true boxes of both; a label `first_class` is class 0.
pub fn targets(case: &Case, first_class: usize) -> Vec<Vec<Target>> {
    let number = |v: &serde_json::Value| v.as_f64().unwrap() as f32;
    case.manifest["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            let (boxes, labels) = (image["boxes"].as_array().unwrap(), image["labels"].as_array().unwrap());
            boxes
                .iter()
                .zip(labels)
                .map(|(b, label)| Target {
                    class: label.as_u64().unwrap() as usize - first_class,
                    xyxy: std::array::from_fn(|i| number(&b[i])),
                })
                .collect()
        })
        .collect()
}

pub fn check_anchors(case: &Case, anchors: &Anchors) {
    let found: Vec<f32> = anchors.boxes.iter().flat_map(|b| <[f32; 4]>::from(*b)).collect();
    let wanted = case.stored_f32("eval/anchors");
    assert_eq!(found.len(), wanted.len());
    let worst = found.iter().zip(&wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    case.report("eval/anchors", worst, 1e-4);
}

/// Number, order and classes equal; a label `first_class` is class 0.
pub fn check_detections(case: &Case, found: Vec<Result<Vec<RawDetection>, NotFinite>>, first_class: usize) {
    for (tag, found) in ["a", "b"].iter().zip(found) {
        let found = found.expect("finite outputs");
        let stored = |part: &str| case.stored_f32(&format!("detections_{tag}/{part}"));
        let (boxes, scores, labels) = (stored("boxes"), stored("scores"), stored("labels"));
        assert_eq!(found.len(), scores.len(), "detections of image {tag}");
        let (mut box_error, mut score_error) = (0.0f64, 0.0f64);
        for (i, detection) in found.iter().enumerate() {
            assert_eq!(
                (detection.class + first_class) as f32,
                labels[i],
                "class of detection {i} of image {tag}"
            );
            score_error = score_error.max(f64::from((detection.score - scores[i]).abs()));
            for (a, b) in <[f32; 4]>::from(detection.xyxy).iter().zip(&boxes[i * 4..]) {
                box_error = box_error.max(f64::from((a - b).abs()));
            }
        }
        case.report(&format!("detections_{tag}/boxes, px"), box_error, 1e-2);
        case.report(&format!("detections_{tag}/scores"), score_error, 1e-5);
    }
}

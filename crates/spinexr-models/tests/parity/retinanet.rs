//! RetinaNet with ResNet-50 and frozen norms: pyramid, anchors, outputs, detections, losses, gradients.

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::BoxXyxy;
use spinexr_models::RetinaNetInference;
use spinexr_models::{DetectConfig, RetinaNetConfig, RetinaNetOutput, Target};

use crate::case::Case;
use crate::case::Gradient;

fn config() -> RetinaNetConfig {
    RetinaNetConfig::resnet50().with_num_classes(8)
}

/// The two images with ImageNet's mean and deviation, `[2, 3, 128, 160]`.
fn images(case: &Case, device: &Device) -> Tensor<4> {
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

fn targets(case: &Case) -> Vec<Vec<Target>> {
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
                    class: label.as_u64().unwrap() as usize,
                    xyxy: std::array::from_fn(|i| number(&b[i])),
                })
                .collect()
        })
        .collect()
}

#[test]
fn outputs_and_detections() {
    let case = Case::open("retinanet_resnet50_fpn");
    let device = Device::flex();
    let model = case.filled(config().init(&device));
    let x = images(&case, &device);
    for (name, map) in ["0", "1", "2", "p6", "p7"].iter().zip(model.pyramid(x.clone())) {
        case.check(&format!("eval/fpn_{name}"), &map);
    }
    check_output(&case, model.forward(x.clone()));
    check_output(&case, RetinaNetInference::new(&model).forward(x));
}

fn check_output(case: &Case, output: RetinaNetOutput) {
    let anchors: Vec<f32> = output.anchors.boxes.iter().flat_map(|b| <[f32; 4]>::from(*b)).collect();
    let wanted = case.stored_f32("eval/anchors");
    assert_eq!(anchors.len(), wanted.len());
    let worst = anchors.iter().zip(&wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    case.report("eval/anchors", worst, 1e-4);
    case.check("eval/cls_logits", &output.class_logits);
    case.check("eval/bbox_regression", &output.box_deltas);

    let number = |key: &str| case.manifest["config"][key].as_f64().unwrap();
    let detect = DetectConfig {
        score_threshold: number("score_thresh") as f32,
        top_k_per_level: number("topk_candidates") as usize,
        nms_iou: number("nms_thresh") as f32,
        max_detections: number("detections_per_img") as usize,
    };
    let found = output.detect(&[(128.0, 160.0); 2], &detect);
    for (tag, found) in ["a", "b"].iter().zip(found) {
        let found = found.expect("finite outputs");
        let stored = |part: &str| case.stored_f32(&format!("detections_{tag}/{part}"));
        let (boxes, scores, labels) = (stored("boxes"), stored("scores"), stored("labels"));
        assert_eq!(found.len(), scores.len(), "detections of image {tag}");
        let (mut box_error, mut score_error) = (0.0f64, 0.0f64);
        for (i, detection) in found.iter().enumerate() {
            assert_eq!(detection.class as f32, labels[i], "class of detection {i} of image {tag}");
            score_error = score_error.max(f64::from((detection.score - scores[i]).abs()));
            for (a, b) in <[f32; 4]>::from(detection.xyxy).iter().zip(&boxes[i * 4..]) {
                box_error = box_error.max(f64::from((a - b).abs()));
            }
        }
        case.report(&format!("detections_{tag}/boxes, px"), box_error, 1e-2);
        case.report(&format!("detections_{tag}/scores"), score_error, 1e-5);
    }
}

#[test]
fn losses_and_gradients() {
    let case = Case::open("retinanet_resnet50_fpn");
    let device = Device::flex().autodiff();
    let model = case.filled(config().init(&device));
    let output = model.forward(images(&case, &device));

    let mut boxes = targets(&case);
    let loss = model.loss(&output, &boxes);
    boxes[1].clear();
    let second_empty = model.loss(&output, &boxes);
    for (tag, loss) in [("train", &loss), ("train_second_image_empty", &second_empty)] {
        case.check_scalar(&format!("{tag}/classification"), loss.classification.clone().into_scalar());
        case.check_scalar(&format!("{tag}/bbox_regression"), loss.regression.clone().into_scalar());
    }
    let grads = loss.total().backward();
    case.check_gradients("train/grads", &model, &grads, Gradient::Exact);
}

#[test]
fn anchors_of_the_reference_cover_the_image() {
    let case = Case::open("retinanet_resnet50_fpn");
    let anchors = config().anchors.generate((128, 160), &[(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]);
    assert_eq!(anchors.per_level, [2880, 720, 180, 54, 18]);
    let wanted = case.stored_f32("eval/anchors");
    let first = BoxXyxy::new(wanted[0], wanted[1], wanted[2], wanted[3]);
    assert_eq!(anchors.boxes[0], first);
}

//! RetinaNet with ResNet-50 and frozen norms: pyramid, anchors, outputs, detections, losses, gradients.

use burn::tensor::Device;
use spinexr_core::BoxXyxy;
use spinexr_models::RetinaNetInference;
use spinexr_models::{DetectConfig, RetinaNetConfig, RetinaNetOutput};

use crate::case::Case;
use crate::case::Gradient;
use crate::torchvision_detectors::{check_anchors, check_detections, images, targets};

fn config() -> RetinaNetConfig {
    RetinaNetConfig::resnet50().with_num_classes(8)
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
    check_anchors(case, &output.anchors);
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
    check_detections(case, found, 0);
}

#[test]
fn losses_and_gradients() {
    let case = Case::open("retinanet_resnet50_fpn");
    let device = Device::flex().autodiff();
    let model = case.filled(config().init(&device));
    let output = model.forward(images(&case, &device));

    let mut boxes = targets(&case, 0);
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

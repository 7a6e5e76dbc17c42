//! Faster R-CNN with ResNet-50, a pyramid and frozen norms: both stages, detections, losses, gradients.

use burn::tensor::{Device, Tensor};
use spinexr_core::BoxXyxy;
use spinexr_models::faster_rcnn::detect::ImageOutput;
use spinexr_models::faster_rcnn::{Proposal, ProposalConfig, SampleOrder, SamplerConfig};
use spinexr_models::matcher::MatcherConfig;
use spinexr_models::{Detect, DetectConfig, FasterRcnnConfig, FasterRcnnInference, NotFinite};

use crate::case::{Case, Gradient, nan_max};
use crate::torchvision_detectors::{check_anchors, check_detections, images, targets};

pub const CONTENT_PX: [(f32, f32); 2] = [(128.0, 160.0); 2];
const ITS_OWN: &str = "a finite output";

fn number(case: &Case, key: &str) -> f64 {
    case.manifest["config"][key].as_f64().unwrap()
}

/// torchvision's network with the numbers of the case: fewer proposals and samples than published.
pub fn config(case: &Case) -> FasterRcnnConfig {
    let number = |key: &str| number(case, key);
    let proposals = |phase: &str| ProposalConfig {
        top_k_per_level: number(&format!("rpn_pre_nms_top_n_{phase}")) as usize,
        nms_iou: number("rpn_nms_thresh") as f32,
        max_proposals: number(&format!("rpn_post_nms_top_n_{phase}")) as usize,
    };
    let sampler = |stage: &str| SamplerConfig {
        per_image: number(&format!("{stage}_batch_size_per_image")) as usize,
        foreground_share: number(&format!("{stage}_positive_fraction")),
    };
    let matcher = |stage: &str, low_quality_matches| MatcherConfig {
        foreground_iou: number(&format!("{stage}_fg_iou_thresh")) as f32,
        background_iou: number(&format!("{stage}_bg_iou_thresh")) as f32,
        low_quality_matches,
    };
    let mut config = FasterRcnnConfig::resnet50().with_num_classes(7);
    assert_eq!(config.rpn.matcher, matcher("rpn", true));
    assert_eq!(config.roi.matcher, matcher("box", false));
    (config.rpn.training, config.rpn.inference) = (proposals("train"), proposals("test"));
    (config.rpn.sampler, config.roi.sampler) = (sampler("rpn"), sampler("box"));
    config
}

fn detect_config(case: &Case) -> DetectConfig {
    DetectConfig {
        score_threshold: number(case, "box_score_thresh") as f32,
        top_k_per_level: number(case, "rpn_pre_nms_top_n_test") as usize,
        nms_iou: number(case, "box_nms_thresh") as f32,
        max_detections: number(case, "box_detections_per_img") as usize,
    }
}

fn xyxy(boxes: impl Iterator<Item = BoxXyxy>) -> Vec<[f32; 4]> {
    boxes.map(Into::into).collect()
}

/// Proposals of both images in order: boxes within 1e-2 px, objectness within the rule.
fn check_proposals(case: &Case, phase: &str, proposals: &[Vec<Proposal>]) {
    for (tag, proposals) in ["a", "b"].iter().zip(proposals) {
        let found = xyxy(proposals.iter().map(|p| p.xyxy));
        check_boxes(case, &format!("{phase}/proposals_{tag}"), found.as_flattened());
        let scores: Vec<f32> = proposals.iter().map(|p| 1.0 / (1.0 + (-p.logit).exp())).collect();
        case.check_values(&format!("{phase}/proposal_scores_{tag}"), &[scores.len()], &scores);
    }
}

fn check_boxes(case: &Case, name: &str, found: &[f32]) {
    let wanted = case.stored(name);
    assert_eq!(found.len(), wanted.len(), "{name}");
    let worst = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, nan_max);
    case.report(&format!("{name}, px"), worst, 1e-2);
}

#[test]
fn both_stages_and_detections() {
    let case = Case::open("fasterrcnn_resnet50_fpn");
    let device = Device::flex();
    let model = case.filled(config(&case).init(&device));
    let x = images(&case, &device);

    let maps = model.pyramid(x.clone());
    for (name, map) in ["0", "1", "2", "3", "pool"].iter().zip(&maps) {
        case.check(&format!("eval/fpn_{name}"), map);
    }
    for (level, map) in maps.iter().enumerate() {
        let (objectness, deltas) = model.rpn.head.forward(map.clone());
        case.check(&format!("eval/rpn_objectness_{level}"), &objectness);
        case.check(&format!("eval/rpn_deltas_{level}"), &deltas);
    }
    let rpn = model.propose(&maps, (128, 160));
    check_anchors(&case, &rpn.anchors);
    let proposals: Vec<Vec<Proposal>> = rpn
        .proposals(&CONTENT_PX, &model.config.rpn.inference)
        .into_iter()
        .map(|found| found.expect(ITS_OWN))
        .collect();
    check_proposals(&case, "eval", &proposals);
    let boxes: Vec<Vec<[f32; 4]>> = proposals.iter().map(|p| xyxy(p.iter().map(|p| p.xyxy))).collect();
    let features = model.pool(&maps, &boxes);
    case.check("eval/roi_features", &features);
    case.check("eval/box_head", &model.roi_heads.box_head.forward(features));

    let detect = detect_config(&case);
    check_second_stage(&case, model.forward(x.clone(), &CONTENT_PX, &detect));
    check_detections(&case, model.detect(x.clone(), &CONTENT_PX, &detect), 1);
    let prepared = FasterRcnnInference::new(&model);
    check_second_stage(&case, prepared.forward(x.clone(), &CONTENT_PX, &detect));
    check_detections(&case, prepared.detect(x, &CONTENT_PX, &detect), 1);
}

fn check_second_stage(case: &Case, outputs: Vec<Result<ImageOutput, NotFinite>>) {
    let outputs: Vec<ImageOutput> = outputs.into_iter().map(|output| output.expect(ITS_OWN)).collect();
    let proposals: Vec<_> = outputs.iter().map(|output| output.proposals.clone()).collect();
    check_proposals(case, "eval", &proposals);
    let rois: Vec<_> = outputs.into_iter().map(|output| output.rois.expect("proposals")).collect();
    let all = |part: fn(&spinexr_models::faster_rcnn::RoiOutput) -> &Tensor<2>| {
        Tensor::cat(rois.iter().map(|rois| part(rois).clone()).collect(), 0)
    };
    case.check("eval/class_logits", &all(|rois| &rois.class_logits));
    case.check("eval/box_regression", &all(|rois| &rois.box_deltas));
}

#[test]
fn losses_and_gradients() {
    let case = Case::open("fasterrcnn_resnet50_fpn");
    let device = Device::flex().autodiff();
    let model = case.filled(config(&case).init(&device));
    let (x, truth) = (images(&case, &device), targets(&case, 1));

    let maps = model.pyramid(x.clone());
    let proposals: Vec<Vec<Proposal>> = model
        .propose(&maps, (128, 160))
        .proposals(&CONTENT_PX, &model.config.rpn.training)
        .into_iter()
        .map(|found| found.expect(ITS_OWN))
        .collect();
    check_proposals(&case, "train", &proposals);
    let rois = model.training_rois(&proposals, &truth, SampleOrder::ByIndex);
    let boxes: Vec<Vec<[f32; 4]>> = rois.iter().map(|rois| xyxy(rois.iter().map(|roi| roi.xyxy))).collect();
    for (tag, boxes) in ["a", "b"].iter().zip(&boxes) {
        check_boxes(&case, &format!("train/roi_boxes_{tag}"), boxes.as_flattened());
    }
    let output = model.roi_heads.forward(model.pool(&maps, &boxes));
    case.check("train/class_logits", &output.class_logits);
    case.check("train/box_regression", &output.box_deltas);

    let loss = model.loss(x, &CONTENT_PX, &truth, SampleOrder::ByIndex);
    for (name, value) in [
        ("objectness", &loss.objectness),
        ("rpn_box_reg", &loss.proposal_boxes),
        ("classifier", &loss.classification),
        ("box_reg", &loss.regression),
    ] {
        case.check_scalar(&format!("train/loss_{name}"), value.clone().into_scalar());
    }
    let grads = loss.total().backward();
    case.check_gradients("train/grads", &model, &grads, Gradient::Exact);
}

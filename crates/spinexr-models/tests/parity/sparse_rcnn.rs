//! Sparse R-CNN with ResNet-50 and frozen norms: backbone, pyramid, the first stage inside, all stages, matching,
//! losses, gradients, detections.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use spinexr_models::detector::{DetectConfig, Target};
use spinexr_models::sparse_rcnn::detectron2::{from_detectron2, has_detectron2_names, own_name};
use spinexr_models::sparse_rcnn::{
    CriterionConfig, SparseRcnn, SparseRcnnConfig, SparseRcnnOutput, StageLoss, boxes_by_image,
};
use spinexr_models::weights::{Strictness, load_state_dict};
use spinexr_ops::max_pool2d;

use crate::case::{Case, Gradient};

const CONTENT_PX: [(f32, f32); 2] = [(128.0, 160.0), (112.0, 144.0)];

/// The network with the formula's weights, under detectron2's names.
fn filled(case: &Case, device: &Device) -> SparseRcnn {
    let state = case.state("/state");
    assert!(has_detectron2_names(&state));
    let model = SparseRcnnConfig::resnet50().init(device);
    load_state_dict(model, &from_detectron2(state), Strictness::Exact).unwrap()
}

/// The two images less the mean, the second padded with zeros: `[2, 3, 128, 160]`.
fn images(case: &Case, device: &Device) -> Tensor<4> {
    let mean: Vec<f32> = case.manifest["config"]["pixel_mean"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();
    let mean = Tensor::<3>::from_data(TensorData::new(mean, [3, 1, 1]), device);
    let images = ["input_a", "input_b"].map(|name| {
        let image = case.input::<3>(name, device) - mean.clone();
        let [_, height, width] = image.dims();
        image.pad((0, 160 - width, 0, 128 - height), burn::tensor::ops::PadMode::Constant(0.0))
    });
    Tensor::stack::<4>(images.to_vec(), 0)
}

fn targets(case: &Case) -> Vec<Vec<Target>> {
    let of_image = |image: &Value| {
        let (boxes, labels) = (image["boxes_xyxy"].as_array().unwrap(), image["labels"].as_array().unwrap());
        let targets = boxes.iter().zip(labels).map(|(b, label)| Target {
            class: label.as_u64().unwrap() as usize,
            xyxy: std::array::from_fn(|i| b[i].as_f64().unwrap() as f32),
        });
        targets.collect()
    };
    case.manifest["targets"].as_array().unwrap().iter().map(of_image).collect()
}

#[test]
fn outputs_and_detections() {
    let case = Case::open("sparse_rcnn");
    let device = Device::flex();
    let model = filled(&case, &device);
    let x = images(&case, &device);
    case.check("eval/normalized_images", &x);
    for (name, map) in
        ["res2", "res3", "res4", "res5"].iter().zip(model.backbone.body.features(x.clone(), |_, _| {}))
    {
        case.check(&format!("eval/{name}"), &map);
    }
    let maps = model.pyramid(x.clone());
    for (level, map) in maps.iter().enumerate() {
        case.check(&format!("eval/p{}", level + 2), map);
    }
    case.check("eval/p6", &max_pool2d(maps[3].clone(), [1, 1], [2, 2], [0, 0]));
    first_stage(&case, &model, &maps);

    let output = model.forward(x, &CONTENT_PX);
    let stack = |part: fn(&spinexr_models::sparse_rcnn::StageOutput) -> &Tensor<3>| {
        Tensor::stack::<4>(output.stages.iter().map(|stage| part(stage).clone()).collect(), 0)
    };
    for (index, stage) in output.stages.iter().enumerate() {
        case.check(&format!("eval/obj_features_{index}"), &stage.features.clone().unsqueeze_dim::<3>(0));
    }
    case.check("eval/pred_logits", &stack(|stage| &stage.class_logits));
    case.check("eval/pred_boxes", &stack(|stage| &stage.boxes));
    detections(&case, &output);
}

/// The first stage step by step, on its public parts.
fn first_stage(case: &Case, model: &SparseRcnn, maps: &[Tensor<4>]) {
    let boxes = model.first_boxes(&CONTENT_PX);
    case.check("eval/init_boxes", &boxes);
    let pooled = model.pooler().forward(maps, &boxes_by_image(&boxes));
    case.check("eval/head0/roi_features", &pooled);
    // The reference keeps proposals before images here.
    let by_proposal = |x: &Tensor<2>| x.clone().reshape([2, 100, 256]).swap_dims(0, 1);
    let stage = &model.head.head_series[0];
    let features = model.init_proposal_features.weight.val().repeat(&[2, 1]);
    let attended = stage.self_attn.forward(features.clone(), 2);
    case.check("eval/head0/self_attn", &by_proposal(&attended));
    let features = stage.norm1.forward(features + attended);
    case.check("eval/head0/norm1", &by_proposal(&features));
    let matrices = stage.inst_interact.dynamic_layer.forward(features.clone());
    case.check("eval/head0/inst_interact.dynamic_layer", &matrices.unsqueeze_dim::<3>(0));
    let pooled = pooled.reshape([200, 256, 49]);
    let interacted = stage.inst_interact.forward(features.clone(), pooled, |name, x| {
        let name = format!("eval/head0/inst_interact.{name}");
        if name.ends_with("norm3") {
            case.check(&name, &x.clone().reshape([200, 256]));
        } else {
            case.check(&name, x);
        }
    });
    case.check("eval/head0/inst_interact", &interacted);
    let features = stage.norm2.forward(features + interacted);
    case.check("eval/head0/norm2", &features.clone().unsqueeze_dim::<3>(0));
    case.check("eval/head0/norm3", &stage.feed_forward(features).unsqueeze_dim::<3>(0));
}

fn detections(case: &Case, output: &SparseRcnnOutput) {
    let found = output.detect(&DetectConfig::SPARSE_RCNN);
    // The first image's are scaled to 256 × 320 px.
    for ((tag, scale), found) in [("a", 2.0), ("b", 1.0)].into_iter().zip(found) {
        let found = found.unwrap();
        let stored = |part: &str| case.stored_f32(&format!("detections_{tag}/{part}"));
        let (boxes, scores, classes) = (stored("boxes"), stored("scores"), stored("classes"));
        assert_eq!(found.len(), scores.len(), "detections of image {tag}");
        // Neighbours whose scores differ by less than 1e-5 may change places.
        let mut open: Vec<usize> = (0..found.len()).collect();
        let (mut box_error, mut score_error) = (0.0f64, 0.0f64);
        for (i, detection) in found.iter().enumerate() {
            let xyxy = <[f32; 4]>::from(detection.xyxy.scale(scale, scale));
            let distance = |j: usize| -> f64 {
                xyxy.iter().zip(&boxes[j * 4..]).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
            };
            let (at, &j) = open
                .iter()
                .enumerate()
                .filter(|(_, j)| classes[**j] == detection.class as f32)
                .min_by(|a, b| distance(*a.1).total_cmp(&distance(*b.1)))
                .expect("a stored detection of the class");
            open.remove(at);
            assert!(
                j == i || (scores[i] - scores[j]).abs() < 1e-5,
                "image {tag}: {i} is {j} in the reference"
            );
            box_error = box_error.max(distance(j));
            score_error = score_error.max(f64::from((detection.score - scores[j]).abs()));
        }
        case.report(&format!("detections_{tag}/boxes, px"), box_error, 1e-2);
        case.report(&format!("detections_{tag}/scores"), score_error, 1e-5);
    }
}

#[test]
fn matching_losses_and_gradients() {
    let case = Case::open("sparse_rcnn");
    let device = Device::flex().autodiff();
    let mut model = filled(&case, &device);
    // The reference freezes the stem and the first stage.
    model.backbone.body.conv1 = model.backbone.body.conv1.freeze();
    model.backbone.body.layer1 = model.backbone.body.layer1.freeze();
    let output = model.forward(images(&case, &device), &CONTENT_PX);
    let targets = targets(&case);

    let matches = model.matches(&output, &targets);
    for (index, (stage, matches)) in output.stages.iter().zip(&matches).enumerate() {
        let logits = stage.class_logits.clone().inner().try_into_vec_as::<f32>().unwrap();
        let boxes = boxes_by_image(&stage.boxes);
        for (image, tag) in ["a", "b"].iter().enumerate() {
            let logits = &logits[image * 700..][..700];
            let costs = model.matching_costs(logits, &boxes[image], &targets[image], CONTENT_PX[image]);
            let costs: Vec<f32> = costs.iter().map(|cost| *cost as f32).collect();
            let name = format!("train/cost_stage{index}_{tag}");
            case.check_values(&name, &[100, targets[image].len()], &costs);

            let wanted = &case.manifest["hungarian"][format!("stage_{index}")][*tag];
            let side = |name: &str| -> Vec<usize> {
                wanted[name].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
            };
            let wanted: Vec<(usize, usize)> = side("pred").into_iter().zip(side("target")).collect();
            assert_eq!(matches[image], wanted, "matching of image {tag} in stage {index}");
        }
    }

    let loss = model.loss(&output, &targets);
    let second_empty = model.loss(&output, &[targets[0].clone(), vec![]]);
    let CriterionConfig { class_weight, l1_weight, giou_weight, .. } = loss.config;
    for (section, loss) in [("train", &loss), ("train_second_image_empty", &second_empty)] {
        for (index, StageLoss { classification, l1, giou }) in loss.stages.iter().enumerate() {
            let suffix = if index == 5 { String::new() } else { format!("_{index}") };
            for (name, part, weight) in [
                ("loss_ce", classification, class_weight),
                ("loss_bbox", l1, l1_weight),
                ("loss_giou", giou, giou_weight),
            ] {
                let value: f32 = part.clone().into_scalar();
                case.check_scalar(&format!("{section}/unweighted/{name}{suffix}"), value);
                let weighted = format!("{section}/weighted/{name}{suffix}");
                if !case.manifest["scalars"][&weighted].is_null() {
                    case.check_scalar(&weighted, value * weight as f32);
                }
            }
        }
    }
    let grads = loss.total().backward();
    case.check_renamed_gradients("train/grads", &model, &grads, Gradient::Deep, own_name);
}

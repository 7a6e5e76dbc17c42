//! EfficientDet-D0 with both paddings and evaluation norms: features, pyramid, outputs, anchors, assignment, losses,
//! gradients, detections.

use burn::tensor::{Device, Tensor};
use spinexr_models::{
    Detect, DetectConfig, EfficientDetConfig, EfficientDetInference, NotFinite, RawDetection, Target,
};

use crate::case::{Case, Gradient, nan_max};
use crate::classifiers::with_evaluation_norms;

pub const CASES: [&str; 2] = ["tf_efficientdet_d0", "efficientdet_d0"];

pub fn config(name: &str) -> EfficientDetConfig {
    let config = EfficientDetConfig::d0();
    if name.starts_with("tf_") { config } else { config.with_symmetric_padding() }
}

/// `[2, 3, 128, 128]`
pub fn images(case: &Case, device: &Device) -> Tensor<4> {
    case.input("input_3", device)
}

/// The true boxes, `xyxy` and from class 0 where the reference has `yxyx` and from class 1.
pub fn targets(case: &Case) -> Vec<Vec<Target>> {
    let of_image = |image: &serde_json::Value| {
        let boxes = image["bbox_yxyx"].as_array().unwrap().iter();
        let target = |(b, class): (&serde_json::Value, &serde_json::Value)| {
            let [y1, x1, y2, x2] = [0, 1, 2, 3].map(|i| b[i].as_f64().unwrap() as f32);
            Target { class: class.as_u64().unwrap() as usize - 1, xyxy: [x1, y1, x2, y2] }
        };
        boxes.zip(image["cls"].as_array().unwrap()).map(target).collect()
    };
    case.manifest["targets"].as_array().unwrap().iter().map(of_image).collect()
}

#[test]
fn features_pyramid_outputs_and_detections() {
    for name in CASES {
        let case = Case::open(name);
        let device = Device::flex();
        let model = case.filled(config(name).init(&device));
        let x = images(&case, &device);
        let features = model.backbone.features(x.clone(), None);
        let pyramid = model.fpn.forward(features.to_vec());
        let (classes, boxes) = (model.class_net.forward(&pyramid), model.box_net.forward(&pyramid));
        let parts = [("backbone", &features[..]), ("bifpn", &pyramid), ("class", &classes), ("box", &boxes)];
        for (part, maps) in parts {
            for (level, map) in maps.iter().enumerate() {
                case.check(&format!("{part}_{level}"), map);
            }
        }
        let output = model.forward(x.clone());
        let found: Vec<f32> = output.anchors.boxes.iter().flat_map(|b| [b.y1, b.x1, b.y2, b.x2]).collect();
        let wanted = case.stored_f32("anchors_yxyx");
        assert_eq!(found.len(), wanted.len());
        let worst = found.iter().zip(&wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, nan_max);
        case.report("anchors_yxyx", worst, 1e-4);

        let most = DetectConfig { max_detections: 40, ..DetectConfig::EFFICIENTDET };
        let content = [(128.0, 128.0); 2];
        check_detections(&case, model.detect(x.clone(), &content, &most));
        check_detections(&case, EfficientDetInference::new(&model).detect(x, &content, &most));
    }
}

fn check_detections(case: &Case, found: Vec<Result<Vec<RawDetection>, NotFinite>>) {
    // Rows x1, y1, x2, y2, score, class from 1.
    let wanted = case.stored_f32("detections");
    let (mut box_error, mut score_error) = (0.0, 0.0);
    for (image, found) in found.into_iter().enumerate() {
        let found = found.expect("finite outputs");
        assert_eq!(found.len(), 40);
        for (i, detection) in found.iter().enumerate() {
            let row = &wanted[(image * 40 + i) * 6..][..6];
            assert_eq!(detection.class as f32 + 1.0, row[5], "class of detection {i} of image {image}");
            score_error = nan_max(score_error, f64::from((detection.score - row[4]).abs()));
            for (a, b) in <[f32; 4]>::from(detection.xyxy).iter().zip(row) {
                box_error = nan_max(box_error, f64::from((a - b).abs()));
            }
        }
    }
    case.report("detections/boxes, px", box_error, 1e-2);
    case.report("detections/scores", score_error, 1e-5);
}

#[test]
fn anchors_answer_for_the_boxes_they_do_in_the_reference() {
    for name in CASES {
        let case = Case::open(name);
        let config = config(name);
        let anchors = config.anchors.generate([128, 128], 3..=7);
        let mut positives = Vec::new();
        let assigned: Vec<_> = targets(&case)
            .iter()
            .map(|boxes| {
                let assigned = config.loss.assign(&anchors.boxes, boxes);
                positives.push(assigned.iter().flatten().count() as f64);
                assigned
            })
            .collect();
        assert_eq!(positives, case.stored("label_num_positives"));
        let mut start = 0;
        for (level, &count) in anchors.per_level.iter().enumerate() {
            let of_level = || assigned.iter().flat_map(|image| &image[start..start + count]);
            let classes: Vec<f64> = of_level().map(|a| a.map_or(-1.0, |a| a.class as f64)).collect();
            assert_eq!(classes, case.stored(&format!("label_cls_{level}")), "level {level}");
            let offsets: Vec<f32> = of_level().flat_map(|a| a.map_or([0.0; 4], |a| a.offsets)).collect();
            let side = 16 >> level;
            case.check_values(&format!("label_box_{level}"), &[2, side, side, 36], &offsets);
            start += count;
        }
    }
}

#[test]
fn losses_and_gradients() {
    for name in CASES {
        let case = Case::open(name);
        let device = Device::flex().autodiff();
        let model = with_evaluation_norms(case.filled(config(name).init(&device)));
        let loss = model.loss(&model.forward(images(&case, &device)), &targets(&case));
        let total = loss.total(&model.config.loss);
        case.check_scalar("class_loss", loss.classification.into_scalar());
        case.check_scalar("box_loss", loss.boxes.into_scalar());
        case.check_scalar("loss", total.clone().into_scalar());
        case.check_gradients("grads", &model, &total.backward(), Gradient::Exact);
    }
}

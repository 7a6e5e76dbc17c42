//! One plain step of gradient descent from the golden state: the losses before and after it are PyTorch's.
//!
//! Each step takes a hundredth or more off the loss (tests/golden/generate/optimiser_step.py), so that equal losses
//! after it say that gradients, update and a second forward pass agree. Tolerance: 1e-5 of the value, as for losses
//! without a step. The reference itself lies up to 6e-7 from the same step in double precision, and this program up to
//! 8e-7 from the reference.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Tensor};
use serde_json::Value;
use spinexr_models::faster_rcnn::SampleOrder;
use spinexr_models::losses::bce_with_logits;
use spinexr_models::{DenseNet, DenseNetConfig, RetinaNetConfig};

use crate::case::Case;
use crate::classifiers::{tiny, training_batch, with_evaluation_norms};
use crate::faster_rcnn;
use crate::torchvision_detectors::{images, targets};

const TOLERANCE: f64 = 1e-5;

/// `p - rate * gradient` for every parameter that has one.
struct Descent<'a> {
    grads: &'a Gradients,
    rate: f64,
}

impl ModuleMapper for Descent<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let value = match value.grad(self.grads) {
            Some(gradient) => {
                let step = gradient.mul_scalar(self.rate);
                (value.inner() - step).autodiff().require_grad()
            }
            None => value,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Steps once and holds every part of the loss to the reference, before and after.
fn check<M: Module>(
    case: &Case,
    name: &str,
    mut model: M,
    losses: impl Fn(&M) -> Vec<(&'static str, Tensor<1>)>,
) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/optimiser_step/manifest.json");
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let reference = &manifest["cases"][name];
    let setting = name.trim_start_matches(&case.name).trim_start_matches('/');
    for phase in ["before", "after"] {
        let parts = losses(&model);
        assert_eq!(parts.len(), reference[phase].as_object().unwrap().len(), "parts of the loss of {name}");
        for (part, value) in &parts {
            let wanted = reference[phase][part]["value"].as_f64().unwrap();
            let found = f64::from(value.clone().into_scalar::<f32>());
            let what = format!("{setting} {part} {phase} a step: {found} (relative)");
            case.report(&what, ((found - wanted) / wanted).abs(), TOLERANCE);
        }
        if phase == "before" {
            let total = parts.into_iter().map(|(_, value)| value).reduce(|a, b| a + b).expect("a loss");
            let rate = reference["learning_rate"].as_f64().unwrap();
            model = model.map(&mut Descent { grads: &total.backward(), rate });
        }
    }
}

fn densenet(name: &str, config: &DenseNetConfig) {
    let case = Case::open(name);
    let device = Device::flex().autodiff();
    let (x, y) = training_batch(&case, &device);
    let bce =
        |model: &DenseNet| vec![("bce", bce_with_logits(model.forward(x.clone()), y.clone(), None).mean())];
    let model = || case.filled(config.init(&device));
    check(&case, &format!("{name}/batch_statistics"), model(), bce);
    check(&case, &format!("{name}/frozen_norms"), with_evaluation_norms(model()), bce);
}

#[test]
fn densenet_tiny() {
    densenet("densenet_tiny", &tiny());
}

#[test]
fn densenet121() {
    densenet("densenet121", &DenseNetConfig::densenet121().with_num_classes(7));
}

#[test]
fn retinanet() {
    let name = "retinanet_resnet50_fpn";
    let case = Case::open(name);
    let device = Device::flex().autodiff();
    let model = case.filled(RetinaNetConfig::resnet50().with_num_classes(8).init(&device));
    let (x, truth) = (images(&case, &device), targets(&case, 0));
    check(&case, name, model, |model| {
        let loss = model.loss(&model.forward(x.clone()), &truth);
        vec![("classification", loss.classification), ("bbox_regression", loss.regression)]
    });
}

#[test]
fn faster_rcnn() {
    let name = "fasterrcnn_resnet50_fpn";
    let case = Case::open(name);
    let device = Device::flex().autodiff();
    let model = case.filled(faster_rcnn::config(&case).init(&device));
    let (x, truth) = (images(&case, &device), targets(&case, 1));
    check(&case, name, model, |model| {
        let loss = model.loss(x.clone(), &faster_rcnn::CONTENT_PX, &truth, SampleOrder::ByIndex);
        vec![
            ("loss_objectness", loss.objectness),
            ("loss_rpn_box_reg", loss.proposal_boxes),
            ("loss_classifier", loss.classification),
            ("loss_box_reg", loss.regression),
        ]
    });
}

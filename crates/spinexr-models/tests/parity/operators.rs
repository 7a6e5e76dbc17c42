//! Losses, IoU and suppression against torchvision's operators.

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_core::BoxXyxy;
use spinexr_core::nms::{class_wise_nms, nms};
use spinexr_models::assignment::cheapest_assignment;
use spinexr_models::giou::{generalised_iou, giou_loss};
use spinexr_models::losses::{bce_with_logits, sigmoid_focal_loss, smooth_l1_loss};

use crate::case::{Case, nan_max};
use crate::formula;

fn boxes(case: &Case, name: &str) -> Vec<BoxXyxy> {
    case.stored_f32(name).as_chunks::<4>().0.iter().map(|b| BoxXyxy::from(*b)).collect()
}

/// Within 1e-5 of the largest value.
fn close(case: &Case, name: &str, found: &[f32]) {
    let wanted = case.stored(name);
    assert_eq!(found.len(), wanted.len(), "{name}");
    let largest = wanted.iter().map(|v| v.abs()).fold(0.0, f64::max);
    let worst = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, nan_max);
    case.report(name, worst, 1e-5 * largest);
}

/// A loss and the gradient of its sum.
fn loss(case: &Case, name: &str, x: &str, shape: &[usize], f: impl Fn(Tensor<1>, &Device) -> Tensor<1>) {
    let device = Device::flex().autodiff();
    let count = shape.iter().product::<usize>();
    let x = Tensor::<1>::from_data(TensorData::new(case.stored_f32(x), [count]), &device).require_grad();
    let value = f(x.clone(), &device);
    close(case, name, &value.clone().try_into_vec_as::<f32>().unwrap());
    let grads = value.sum().backward();
    let gradient = x.grad(&grads).expect("a gradient").try_into_vec_as::<f32>().unwrap();
    close(case, &format!("{name}_grad_of_sum"), &gradient);
}

#[test]
fn losses() {
    let case = Case::open("ops");
    let tensor = |name: &str, device: &Device| {
        let values = case.stored_f32(name);
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), device)
    };
    for (alpha, gamma) in [(0.25, 2.0), (-1.0, 2.0), (0.25, 0.0), (0.25, 1.5)] {
        let name = format!("sigmoid_focal_loss_alpha{alpha:?}_gamma{gamma:?}");
        loss(&case, &name, "in/loss_logits", &[20, 7], |x, device| {
            sigmoid_focal_loss(x, tensor("in/loss_targets", device), alpha, gamma)
        });
    }
    loss(&case, "bce_with_logits", "in/loss_logits", &[20, 7], |x, device| {
        bce_with_logits(x, tensor("in/loss_targets", device), None)
    });
    loss(&case, "bce_with_logits_pos_weight", "in/loss_logits", &[20, 7], |x, device| {
        let weight = tensor("in/loss_pos_weight", device).repeat(&[20]);
        bce_with_logits(x, tensor("in/loss_targets", device), Some(weight))
    });
    loss(&case, "bce_with_logits_mean", "in/loss_logits", &[20, 7], |x, device| {
        bce_with_logits(x, tensor("in/loss_targets", device), None).mean()
    });
    for (name, beta) in [("0.000", 0.0), ("0.111", 1.0 / 9.0), ("1.000", 1.0)] {
        loss(&case, &format!("smooth_l1_beta{name}"), "in/smooth_x", &[64], |x, device| {
            smooth_l1_loss(x, tensor("in/smooth_y", device), beta)
        });
    }
}

#[test]
fn iou() {
    let case = Case::open("ops");
    let (a, b) = (boxes(&case, "in/boxes_a"), boxes(&case, "in/boxes_b"));
    let found: Vec<f32> = a.iter().flat_map(|a| b.iter().map(|b| a.iou(b))).collect();
    close(&case, "box_iou", &found);
    let found: Vec<f32> = a.iter().flat_map(|a| b.iter().map(|b| generalised_iou(a, b) as f32)).collect();
    close(&case, "generalized_box_iou", &found);
}

#[test]
fn giou() {
    let case = Case::open("ops");
    loss(&case, "generalized_box_iou_loss", "in/giou_a", &[30, 4], |a, device| {
        let b = TensorData::new(case.stored_f32("in/giou_b"), [30, 4]);
        giou_loss(a.reshape([30, 4]), Tensor::from_data(b, device))
    });
}

/// The best of scipy's 30 matrices; where several are best, the total alone is compared.
#[test]
fn assignment() {
    let case = Case::open("ops");
    let cases = case.manifest["assignment"].as_object().unwrap();
    assert_eq!(cases.len(), 30);
    for (name, entry) in cases {
        let numbers = |key: &str| -> Vec<usize> {
            entry[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
        };
        let (shape, ties) = (numbers("shape"), entry["ties"].as_bool().unwrap());
        let costs: Vec<f64> = formula::unit(name, shape[0] * shape[1])
            .into_iter()
            .map(|u| (2.0 * u - 1.0) * 5.0)
            .map(|cost| f64::from(if ties { cost.floor() } else { cost }))
            .collect();
        let pairs = cheapest_assignment(&costs, shape[0], shape[1]);
        let total: f64 = pairs.iter().map(|(row, col)| costs[row * shape[1] + col]).sum();
        case.report(&format!("{name}, total"), (total - entry["total"].as_f64().unwrap()).abs(), 1e-9);
        if !ties {
            let wanted: Vec<(usize, usize)> = numbers("rows").into_iter().zip(numbers("cols")).collect();
            assert_eq!(pairs, wanted, "{name}");
        }
    }
}

#[test]
fn suppression() {
    let case = Case::open("ops");
    let b = boxes(&case, "in/boxes_nms");
    let classes: Vec<usize> = case.stored("in/nms_classes").iter().map(|c| *c as usize).collect();
    for (scores, tag) in [("in/nms_scores", ""), ("in/nms_scores_tied", "tied_")] {
        let scores = case.stored_f32(scores);
        for threshold in [0.3f32, 0.5, 0.7] {
            let wanted = |name: &str| -> Vec<usize> {
                case.stored(&format!("{name}_{tag}{threshold:?}")).iter().map(|i| *i as usize).collect()
            };
            assert_eq!(nms(&b, &scores, threshold), wanted("nms"), "{tag}{threshold}");
            assert_eq!(
                class_wise_nms(&b, &scores, &classes, threshold),
                wanted("batched_nms"),
                "{tag}{threshold}"
            );
        }
    }
}

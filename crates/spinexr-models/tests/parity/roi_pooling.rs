//! Pooling boxes from a pyramid, by torchvision's rule and by detectron2's.

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::roi_pooler::RoiPooler;

use crate::case::Case;
use crate::formula;

/// Maps filled by formula, `[2, 8, height >> level, width >> level]`.
fn maps(name: impl Fn(usize) -> String, height: usize, width: usize, device: &Device) -> Vec<Tensor<4>> {
    (0..4)
        .map(|level| {
            let shape = [2, 8, height >> level, width >> level];
            let values = formula::input(&name(level), shape.iter().product(), -1.0, 1.0);
            Tensor::from_data(TensorData::new(values, shape), device)
        })
        .collect()
}

/// 40 boxes, the first 25 on the first image.
fn boxes(case: &Case, name: &str) -> Vec<Vec<[f32; 4]>> {
    let values = case.stored_f32(name);
    let (first, second) = values.as_chunks::<4>().0.split_at(25);
    vec![first.to_vec(), second.to_vec()]
}

#[test]
fn multiscale_roi_align_of_torchvision() {
    let case = Case::open("ops");
    let maps = maps(|level| format!("msroi_{level}"), 128, 160, &Device::flex());
    let pooled = RoiPooler::torchvision(7, 2, 2).forward(&maps, &boxes(&case, "in/msroi_boxes"));
    case.check("multiscale_roi_align", &pooled);
}

#[test]
fn roi_pooler_of_detectron2() {
    let case = Case::open("sparse_rcnn");
    let device = Device::flex().autodiff();
    let maps: Vec<Tensor<4>> = maps(|level| format!("pooler_p{}", level + 2), 128, 160, &device)
        .into_iter()
        .map(Tensor::require_grad)
        .collect();
    let boxes = boxes(&case, "pooler/boxes");
    let pooler = RoiPooler::detectron2(7, 2, 2);
    let levels: Vec<f64> = boxes.iter().flatten().map(|&b| pooler.level(b, 4) as f64).collect();
    assert_eq!(levels, case.stored("pooler/levels"));

    let pooled = pooler.forward(&maps, &boxes);
    case.check("pooler/output", &pooled);
    let weight = formula::input("pooler_grad", 40 * 8 * 49, -1.0, 1.0);
    let weight = Tensor::<4>::from_data(TensorData::new(weight, [40, 8, 7, 7]), &device);
    let grads = (pooled * weight).sum().backward();
    for (level, map) in maps.iter().enumerate() {
        case.check(&format!("pooler/grad_p{}", level + 2), &map.grad(&grads).expect("a gradient"));
    }
}

#[test]
fn levels_without_boxes_have_gradients_of_zero() {
    let device = Device::flex().autodiff();
    let maps: Vec<Tensor<4>> =
        maps(|level| level.to_string(), 32, 40, &device).into_iter().map(Tensor::require_grad).collect();
    let pooler = RoiPooler::detectron2(7, 2, 2);
    assert_eq!(pooler.forward(&maps, &[vec![], vec![]]).dims(), [0, 8, 7, 7]);

    let one = pooler.forward(&maps, &[vec![], vec![[1.0, 2.0, 100.0, 150.0]]]);
    assert_eq!(one.dims(), [1, 8, 7, 7]);
    let grads = one.sum().backward();
    for (level, map) in maps.iter().enumerate() {
        let gradient = map.grad(&grads).expect("a gradient, though zero");
        assert_eq!(gradient.abs().max().into_scalar::<f32>() > 0.0, level == 1, "level {level}");
    }
}

#[test]
fn levels_are_octaves_around_224_px() {
    let square = |side: f32| [10.0, 10.0, 10.0 + side, 10.0 + side];
    let pooler = RoiPooler::torchvision(7, 2, 2);
    let level = |side: f32| pooler.level(square(side), 4) + 2;
    assert_eq!([1.0, 111.0, 112.5, 223.0, 224.5, 447.0, 449.0, 1e6].map(level), [2, 2, 3, 3, 4, 4, 5, 5]);
    for odd in [square(0.0), square(-50.0), [0.0, 0.0, -5.0, 5.0], [f32::NAN; 4]] {
        assert_eq!(pooler.level(odd, 4), 0, "{odd:?}");
    }
    assert_eq!(pooler.level([0.0, 0.0, f32::INFINITY, 5.0], 4), 3);
}

//! The number of threads does not change a bit of a training step.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::tensor::Device;
use spinexr_ops::{
    BatchNorm2dConfig, Conv2dOptions, Roi, RoiAlignOptions, add_relu, conv2d, global_avg_pool, max_pool2d,
    roi_align, upsample_nearest,
};
use support::{leaf, signed, values};

/// A convolution, norms, a residual sum, both poolings, an upsampling and boxes; all values and gradients.
fn step() -> Vec<Vec<u32>> {
    let x = leaf(&signed(1, 3 * 5 * 61 * 47), [3, 5, 61, 47]);
    let (w, b) = (leaf(&signed(2, 20 * 5 * 9), [20, 5, 3, 3]), leaf(&signed(3, 20), [20]));
    let device = Device::flex().autodiff();
    let (norm, last) = (BatchNorm2dConfig::new(20).init(&device), BatchNorm2dConfig::new(20).init(&device));
    let options = Conv2dOptions { stride: [2, 1], padding: [1, 1], ..Default::default() };
    let y = norm.forward_relu(conv2d(x.clone(), w.clone(), Some(b.clone()), options));
    let [_, _, height, width] = y.dims();
    let small = max_pool2d(y.clone(), [3, 3], [2, 2], [1, 1]);
    let z = last.forward(add_relu(y, upsample_nearest(small, [height, width])));
    let corners = signed(4, 40 * 4);
    let rois: Vec<Roi> = corners
        .as_chunks::<4>()
        .0
        .iter()
        .enumerate()
        .map(|(i, c)| Roi { film: i % 3, xyxy: c.map(|c| 20.0 + 30.0 * c) })
        .collect();
    let options =
        RoiAlignOptions { output_size: [3, 5], spatial_scale: 0.5, sampling_ratio: 0, aligned: false };
    let features = roi_align(z.clone(), &rois, options);
    let pooled = global_avg_pool(z.clone() * z);
    let grads =
        ((pooled.clone() * pooled.clone()).sum() + (features.clone() * features.clone()).sum()).backward();
    [
        values(pooled),
        values(features),
        values(x.grad(&grads).unwrap()),
        values(w.grad(&grads).unwrap()),
        values(b.grad(&grads).unwrap()),
        values(norm.weight.val().grad(&grads).unwrap()),
        values(last.bias.val().grad(&grads).unwrap()),
        values(norm.running_mean.value()),
        values(last.running_var.value()),
    ]
    .map(|values| values.iter().map(|v| v.to_bits()).collect())
    .to_vec()
}

#[test]
fn one_thread_and_several_give_the_same_bits() {
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(step);
    let alone = on(1);
    assert!(alone.iter().all(|values| values.iter().any(|&bits| bits != 0)), "nothing was computed");
    assert_eq!(alone, on(2));
    assert_eq!(alone, on(3));
}

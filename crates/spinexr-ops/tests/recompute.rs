//! A normalised map that is made again in the backward step gives the bits of one that was kept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::tensor::{Device, Tensor};
use spinexr_ops::{BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, norm_relu_conv, recompute};
use support::{leaf, signed, tensor, values};

/// Every number of a forward and backward pass through two norms and convolutions.
fn step(dims: [usize; 4], kernel: usize, frozen: bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let layers = |seed: u64, from: usize, to: usize| -> (BatchNorm2d, Conv2d) {
        let norm = BatchNorm2dConfig::new(from).init(&device);
        norm.running_mean.set(tensor(&signed(seed, from), [from], &device));
        let norm = if frozen { norm.frozen() } else { norm };
        let conv =
            Conv2dConfig::new(from, to, kernel).with_padding(kernel / 2).with_bias(false).init(&device);
        let weight = signed(seed ^ 7, conv.weight.val().dims().iter().product());
        let shape = conv.weight.val().dims();
        let weight = conv.weight.clone().map(|_| tensor(&weight, shape, &device).require_grad());
        (norm, Conv2d { weight, ..conv })
    };
    let (first, second) = (layers(1, dims[1], 6), layers(2, 6, 4));
    let x = leaf(&signed(3, dims.iter().product()), dims);
    let y = norm_relu_conv(&first.0, &first.1, x.clone());
    let y = norm_relu_conv(&second.0, &second.1, y);
    let grads = (y.clone() * y.clone()).sum().backward();
    let mut all = vec![values(y), values(x.grad(&grads).unwrap())];
    for (norm, conv) in [&first, &second] {
        all.push(values(conv.weight.val().grad(&grads).unwrap()));
        let parameters: [Option<Tensor<1>>; 2] =
            [norm.weight.val().grad(&grads), norm.bias.val().grad(&grads)];
        assert!(parameters.iter().all(|gradient| gradient.is_none() == frozen));
        all.extend(parameters.into_iter().flatten().map(values));
        all.extend([&norm.running_mean, &norm.running_var].map(|stat| values(stat.value())));
    }
    all
}

#[test]
fn maps_made_again_give_the_bits_of_maps_kept() {
    for frozen in [false, true] {
        for (dims, kernel) in [([2, 5, 7, 9], 3), ([1, 3, 1, 17], 1), ([3, 8, 16, 16], 1)] {
            let kept = step(dims, kernel, frozen);
            let guard = recompute::on();
            let again = step(dims, kernel, frozen);
            drop(guard);
            assert_eq!(again, kept, "{dims:?}, frozen: {frozen}");
            assert!(kept[1].iter().any(|v| *v != 0.0));
        }
    }
}

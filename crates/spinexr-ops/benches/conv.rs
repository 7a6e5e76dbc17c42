//! The layers that small networks spend their time in, ours beside the engine's.
//!
//! `cargo bench -p spinexr-ops` prints medians; `forward` is inference, `step` a forward and backward
//! pass with gradients for input, weight and bias.

use burn::backend::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor};
use divan::Bencher;
use spinexr_ops::{BatchNorm2dConfig, Conv2dOptions, conv2d, max_pool2d};

/// `[N, I, H, W]`, output channels, kernel, stride.
type Layer = ([usize; 4], usize, usize, usize);

const LAYERS: [(&str, Layer); 9] = [
    ("stem_1_16_k3s2", ([8, 1, 384, 256], 16, 3, 2)),
    ("3x3_16_16", ([8, 16, 192, 128], 16, 3, 1)),
    ("3x3_32_32", ([8, 32, 96, 64], 32, 3, 1)),
    ("3x3_48_48_head", ([8, 48, 48, 32], 48, 3, 1)),
    ("3x3_32_64_s2", ([8, 32, 96, 64], 64, 3, 2)),
    ("1x1_64_16", ([8, 64, 96, 64], 16, 1, 1)),
    ("1x1_16_64", ([8, 16, 96, 64], 64, 1, 1)),
    ("3x3_256_256_one_film", ([1, 256, 50, 38], 256, 3, 1)),
    ("depthwise_32", ([8, 32, 48, 32], 32, 3, 1)),
];

fn names() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|(name, _)| *name)
}

struct Case {
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    options: Conv2dOptions,
}

impl Case {
    fn new(name: &str, device: &Device) -> Self {
        let (_, (shape, out, k, stride)) =
            *LAYERS.iter().find(|(n, _)| *n == name).expect("the name is one of the layers'");
        let groups = if name.starts_with("depthwise") { shape[1] } else { 1 };
        let uniform = Distribution::Uniform(-1.0, 1.0);
        Self {
            x: Tensor::random(shape, uniform, device),
            weight: Tensor::random([out, shape[1] / groups, k, k], uniform, device),
            bias: Tensor::random([out], uniform, device),
            options: Conv2dOptions {
                stride: [stride, stride],
                padding: [k / 2, k / 2],
                groups,
                ..Default::default()
            },
        }
    }

    fn ours(&self) -> Tensor<4> {
        conv2d(self.x.clone(), self.weight.clone(), Some(self.bias.clone()), self.options)
    }

    fn engine(&self) -> Tensor<4> {
        let Conv2dOptions { stride, padding, dilation, groups, .. } = self.options;
        let options = ConvOptions::new(stride, padding, dilation, groups);
        burn::tensor::module::conv2d(self.x.clone(), self.weight.clone(), Some(self.bias.clone()), options)
    }

    fn tracked(mut self) -> Self {
        self.x = self.x.require_grad();
        self.weight = self.weight.require_grad();
        self.bias = self.bias.require_grad();
        self
    }
}

mod forward {
    use super::*;

    #[divan::bench(args = names(), sample_count = 15)]
    fn ours(bencher: Bencher<'_, '_>, name: &str) {
        let case = Case::new(name, &Device::flex());
        bencher.bench_local(|| case.ours());
    }

    #[divan::bench(args = names(), sample_count = 15)]
    fn engine(bencher: Bencher<'_, '_>, name: &str) {
        let case = Case::new(name, &Device::flex());
        bencher.bench_local(|| case.engine());
    }
}

mod step {
    use super::*;

    #[divan::bench(args = names(), sample_count = 9)]
    fn ours(bencher: Bencher<'_, '_>, name: &str) {
        let case = Case::new(name, &Device::flex().autodiff()).tracked();
        bencher.bench_local(|| case.ours().sum().backward());
    }

    #[divan::bench(args = names(), sample_count = 9)]
    fn engine(bencher: Bencher<'_, '_>, name: &str) {
        let case = Case::new(name, &Device::flex().autodiff()).tracked();
        bencher.bench_local(|| case.engine().sum().backward());
    }
}

/// Norm and ReLU, forward and backward, on `[8, 64, 96, 64]`.
mod norm_relu_step {
    use super::*;

    fn input() -> Tensor<4> {
        let device = Device::flex().autodiff();
        Tensor::random([8, 64, 96, 64], Distribution::Uniform(-1.0, 1.0), &device).require_grad()
    }

    #[divan::bench(sample_count = 15)]
    fn ours(bencher: Bencher<'_, '_>) {
        let x = input();
        let norm = BatchNorm2dConfig::new(64).init(&x.device());
        bencher.bench_local(|| norm.forward_relu(x.clone()).sum().backward());
    }

    #[divan::bench(sample_count = 15)]
    fn engine(bencher: Bencher<'_, '_>) {
        let x = input();
        let norm = burn::nn::BatchNormConfig::new(64).init(&x.device());
        bencher.bench_local(|| burn::tensor::activation::relu(norm.forward(x.clone())).sum().backward());
    }
}

/// Max pooling 3x3, stride 2, forward and backward, on `[8, 64, 96, 64]`.
mod max_pool_step {
    use super::*;

    fn input() -> Tensor<4> {
        let device = Device::flex().autodiff();
        Tensor::random([8, 64, 96, 64], Distribution::Uniform(-1.0, 1.0), &device).require_grad()
    }

    #[divan::bench(sample_count = 15)]
    fn ours(bencher: Bencher<'_, '_>) {
        let x = input();
        bencher.bench_local(|| max_pool2d(x.clone(), [3, 3], [2, 2], [1, 1]).sum().backward());
    }

    #[divan::bench(sample_count = 15)]
    fn engine(bencher: Bencher<'_, '_>) {
        let x = input();
        bencher.bench_local(|| {
            burn::nn::pool::MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(burn::nn::PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init()
                .forward(x.clone())
                .sum()
                .backward()
        });
    }
}

fn main() {
    divan::main();
}

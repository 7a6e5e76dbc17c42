//! Against the tensor operations, over odd shapes, on every instruction set of this CPU.

use burn::module::Param;
use burn::tensor::{Device, Distribution, Tensor};

use super::super::Maps;
use super::*;
use crate::running_stat::RunningStat;
use crate::{BatchNorm2dConfig, Conv2dConfig, relu, silu};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

fn norm(channels: usize) -> BatchNorm2d {
    let mut norm = BatchNorm2dConfig::new(channels).init(&Device::flex());
    norm.weight = Param::from_tensor(random([channels]) + 1.5);
    norm.bias = Param::from_tensor(random([channels]));
    norm.running_mean = RunningStat::new(random([channels]));
    norm.running_var = RunningStat::new(random([channels]) + 1.2);
    norm
}

fn maps(x: &Tensor<4>) -> Maps {
    Maps::new(x.clone().try_into_vec_as::<f32>().unwrap(), x.dims())
}

struct Case {
    x: Tensor<4>,
    conv: Conv2d,
    before: Option<BatchNorm2d>,
    after: Option<BatchNorm2d>,
    residual: bool,
    activation: Activation,
    same: bool,
}

impl Case {
    /// Every combination of norms, residual and ReLU comes up over a few `variant`s.
    fn new(input: [usize; 4], config: Conv2dConfig, variant: usize) -> Self {
        let (i, o) = (config.in_channels, config.out_channels);
        Self {
            x: random(input),
            conv: config.with_bias(variant.is_multiple_of(2)).init(&Device::flex()),
            before: variant.is_multiple_of(3).then(|| norm(i)),
            after: (variant % 4 < 2).then(|| norm(o)),
            residual: variant % 5 < 3,
            activation: [Activation::Relu, Activation::Silu, Activation::Identity][variant % 3],
            same: false,
        }
    }

    /// With TensorFlow's padding.
    fn same(self) -> Self {
        Self { same: true, ..self }
    }

    fn check(&self) {
        let x = match &self.before {
            Some(norm) => norm.forward_relu(self.x.clone()),
            None => self.x.clone(),
        };
        let mut y = if self.same { self.conv.forward_same(x) } else { self.conv.forward(x) };
        if let Some(norm) = &self.after {
            y = norm.forward(y);
        }
        let residual = random(y.dims());
        if self.residual {
            y = y + residual.clone();
        }
        y = match self.activation {
            Activation::Identity => y,
            Activation::Relu => relu(y),
            Activation::Silu => silu(y),
        };
        let shape @ [n, o, oh, ow] = y.dims();
        let expected = y.try_into_vec_as::<f32>().unwrap();
        let (x, residual) = (maps(&self.x), maps(&residual));
        let norms = Norms { before: self.before.as_ref(), after: self.after.as_ref() };
        for isa in Isa::available() {
            let prepared = PreparedConv { same: self.same, ..PreparedConv::on(isa, &self.conv, norms) };
            assert_eq!(prepared.output_shape(x.shape()), shape);
            // Into channels 2.. of a wider buffer; NaN marks what should be written and is not.
            let mut wide = Maps::new(vec![f32::NAN; n * (o + 3) * oh * ow], [n, o + 3, oh, ow]);
            let finish =
                Finish { residual: self.residual.then(|| residual.view()), activation: self.activation };
            prepared.run(x.view(), wide.channels_mut(2..o + 2), finish);
            for (plane, expected) in expected.chunks_exact(oh * ow).enumerate() {
                let (film, channel) = (plane / o, plane % o);
                let found = wide.channels(2..o + 2).plane(film, channel);
                for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                    assert!(
                        (found - expected).abs() <= 2e-5 * expected.abs().max(1.0),
                        "film {film}, channel {channel}, pixel {at}: {found}, expected {expected}; {isa:?}, \
                         {:?} of {:?}",
                        self.conv.options,
                        self.x.dims()
                    );
                }
            }
            let beside =
                wide.channels(0..2).plane(n - 1, 1).iter().chain(wide.channels(o + 2..o + 3).plane(0, 0));
            assert!(
                beside.into_iter().all(|value| value.is_nan()),
                "channels beside the output were written"
            );
        }
    }
}

#[test]
fn layers_agree_with_the_tensor_operations() {
    Device::flex().seed(1);
    let conv = Conv2dConfig::new;
    for (variant, (input, config)) in [
        ([2, 20, 7, 9], conv(20, 13, 1)),                                // pointwise
        ([1, 70, 14, 14], conv(70, 30, 1)),                              // two tiles of a film
        ([3, 3, 31, 29], conv(3, 17, 7).with_stride(2).with_padding(3)), // stem
        ([2, 16, 13, 8], conv(16, 24, 1).with_stride(2)),                // projection
        ([2, 9, 12, 11], conv(9, 10, 3).with_stride(2).with_padding(1)), // strided
        ([2, 12, 5, 4], conv(12, 9, 3).with_padding(1)),                 // too small for Winograd's tiles
        ([1, 4, 30, 30], conv(4, 20, 3).with_padding(1)),                // too few channels
        ([2, 6, 10, 9], conv(6, 6, 3).with_padding(1).with_groups(3)),   // groups
    ]
    .into_iter()
    .enumerate()
    {
        for turn in 0..4 {
            Case::new(input, config.clone(), variant + 7 * turn).check();
        }
    }
}

#[test]
fn depthwise_layers_agree_with_the_tensor_operations() {
    Device::flex().seed(4);
    for (variant, (height, width)) in [(9, 13), (16, 40), (1, 5), (7, 1), (33, 34)].into_iter().enumerate() {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            let config = Conv2dConfig::new(12, 12, kernel)
                .with_stride(stride)
                .with_padding(kernel / 2)
                .with_groups(12);
            let case = |turn| Case::new([2, 12, height, width], config.clone(), variant + turn);
            (0..4).for_each(|turn| case(turn).check());
            (0..2).for_each(|turn| case(turn).same().check());
        }
    }
}

#[test]
fn layers_with_the_padding_of_tensorflow_agree() {
    Device::flex().seed(5);
    for (variant, (height, width)) in [(9, 12), (16, 40), (25, 38), (1, 1), (2, 3)].into_iter().enumerate() {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (5, 2)] {
            let config = Conv2dConfig::new(10, 9, kernel).with_stride(stride).with_padding(kernel / 2);
            (0..2).for_each(|turn| {
                Case::new([2, 10, height, width], config.clone(), variant + turn).same().check();
            });
        }
    }
}

#[test]
fn winograd_agrees_with_the_tensor_operations_at_odd_sizes() {
    Device::flex().seed(2);
    let sizes = [(8, 9), (9, 12), (13, 40), (6, 33), (25, 38), (1, 23), (23, 1), (5, 70)];
    for (variant, (height, width)) in sizes.into_iter().enumerate() {
        for padding in [0, 1, 2] {
            if height.min(width) + 2 * padding < 3 {
                continue;
            }
            let config = Conv2dConfig::new(11, 18, 3).with_padding(padding);
            let case = Case::new([3, 11, height, width], config, variant + padding);
            case.check();
        }
    }
    // More tiles than a task takes, and channels enough for several blocks.
    Case::new([2, 40, 57, 61], Conv2dConfig::new(40, 50, 3).with_padding(1), 1).check();
}

fn bits(maps: &Maps) -> Vec<u32> {
    maps.values().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn threads_and_companions_do_not_change_a_bit() {
    Device::flex().seed(3);
    for (input, kernel) in
        [([5, 24, 14, 14], 1), ([5, 24, 14, 14], 3), ([5, 24, 7, 7], 3), ([3, 24, 31, 45], 3)]
    {
        let config = Conv2dConfig::new(24, 20, kernel).with_padding(kernel / 2);
        let case = Case::new(input, config, 0);
        let norms = Norms { before: case.before.as_ref(), after: case.after.as_ref() };
        let conv = PreparedConv::new(&case.conv, norms);
        let run = |x: &Tensor<4>, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let (x, mut out) = (maps(x), Maps::default());
            out.reshape(conv.output_shape(x.shape()));
            pool.install(|| conv.run(x.view(), out.view_mut(), Finish::RELU));
            out
        };
        let together = run(&case.x, 1);
        assert_eq!(bits(&together), bits(&run(&case.x, 2)));
        assert_eq!(bits(&together), bits(&run(&case.x, 5)));
        for film in 0..input[0] {
            let alone = run(&case.x.clone().narrow(0, film, 1), 2);
            let of_film = alone.values().len();
            assert_eq!(
                bits(&alone),
                bits(&together)[film * of_film..][..of_film],
                "film {film} of {input:?}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "output of a convolution of [1, 4, 6, 6]")]
fn an_output_of_another_shape_is_refused() {
    let conv = PreparedConv::new(&Conv2dConfig::new(4, 3, 3).init(&Device::flex()), Norms::NONE);
    let x = Maps::new(vec![0.0; 144], [1, 4, 6, 6]);
    let mut out = Maps::new(vec![0.0; 108], [1, 3, 6, 6]);
    conv.run(x.view(), out.view_mut(), Finish::NONE);
}

//! Batch normalisation over films and pixels (Ioffe & Szegedy, arXiv 1502.03167).
//!
//! Semantics and names are `torch.nn.BatchNorm2d`'s: a training pass normalises with the biased batch
//! variance and moves the running variance towards the unbiased one; an evaluation pass uses the
//! running statistics. The engine's own norm stores the biased variance, hence this one.
//! Where several processes train together ([`crate::ranks`]), the batch is that of all of them.
//! Normalisation and ReLU can be had in one pass ([`BatchNorm2d::forward_relu`]).

use burn::backend::Dispatch;
use burn::module::{Flag, Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::Conv2d;
use crate::backend::FilmOps;
use crate::precision;
use crate::ranks;
use crate::running_stat::RunningStat;

/// Configuration of a [`BatchNorm2d`].
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm2dConfig {
    /// Channels.
    pub num_features: usize,
    /// Added to the variance before the square root (default 1e-5).
    pub eps: f64,
    /// Share of the new batch in a running statistic, PyTorch's meaning (default 0.1).
    pub momentum: f64,
    /// Start frozen: running statistics always, parameters without gradient (default false).
    pub frozen: bool,
}

impl BatchNorm2dConfig {
    /// Defaults of `torch.nn.BatchNorm2d`.
    pub fn new(num_features: usize) -> Self {
        Self { num_features, eps: 1e-5, momentum: 0.1, frozen: false }
    }

    /// Set the value added to the variance.
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Set the share of the new batch in a running statistic.
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Start frozen (`torchvision.ops.FrozenBatchNorm2d`).
    pub fn with_frozen(mut self, frozen: bool) -> Self {
        self.frozen = frozen;
        self
    }

    /// Build the layer: weight 1, bias 0, running mean 0, running variance 1.
    ///
    /// # Panics
    /// When there is no channel, `eps` is not positive, or `momentum` is outside 0..=1.
    pub fn init(&self, device: &Device) -> BatchNorm2d {
        let c = self.num_features;
        assert!(c > 0, "batch norm: num_features must not be 0");
        assert!(self.eps.is_finite() && self.eps > 0.0, "batch norm: eps must be positive, got {}", self.eps);
        assert!(
            (0.0..=1.0).contains(&self.momentum),
            "batch norm: momentum {} is not in 0..=1",
            self.momentum
        );
        let param = |value: Tensor<1>| {
            let value = if device.is_autodiff() { value.set_require_grad(!self.frozen) } else { value };
            Param::initialized(ParamId::new(), value).set_require_grad(!self.frozen)
        };
        BatchNorm2d {
            weight: param(Tensor::ones([c], device)),
            bias: param(Tensor::zeros([c], device)),
            running_mean: RunningStat::new(Tensor::zeros([c], device)),
            running_var: RunningStat::new(Tensor::ones([c], device)),
            training: Param::from_bool(!self.frozen),
            eps: self.eps,
            momentum: self.momentum,
        }
    }
}

/// Batch normalisation layer with the state names of `torch.nn.BatchNorm2d`.
///
/// It uses batch statistics, and moves the running ones, when its input lives on an autodiff device and
/// it is not frozen (by [`BatchNorm2dConfig::frozen`] or the engine's `freeze`/`freeze_group`).
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<1>>,
    /// Running mean, `[C]`.
    pub running_mean: RunningStat,
    /// Running unbiased variance, `[C]`.
    pub running_var: RunningStat,
    /// Whether batch statistics may be used at all.
    pub training: Param<Flag>,
    /// Added to the variance before the square root.
    #[module(skip)]
    pub eps: f64,
    /// Share of the new batch in a running statistic.
    #[module(skip)]
    pub momentum: f64,
}

impl BatchNorm2d {
    /// Normalise.
    ///
    /// # Shapes
    /// - `x`: `[N, C, H, W]`; the output has the same.
    ///
    /// # Panics
    /// When the channels do not agree.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.normalise(x, false)
    }

    /// Normalise and apply ReLU, in one pass over memory less than the two apart.
    ///
    /// # Shapes
    /// - `x`: `[N, C, H, W]`; the output has the same.
    ///
    /// # Panics
    /// When the channels do not agree.
    pub fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        self.normalise(x, true)
    }

    /// The layer with its running statistics fixed and its parameters without gradient.
    pub fn frozen(self) -> Self {
        self.freeze()
    }

    /// Normalise, apply ReLU and `conv` (without bias); the backward step makes the map between them again.
    pub(crate) fn relu_conv_recomputed(&self, x: Tensor<4>, conv: &Conv2d) -> Tensor<4> {
        let conv_weight = conv.weight.val();
        conv.options.output_shape(x.dims(), conv_weight.dims(), None);
        let x = precision::rounded(x);
        if self.uses_batch_statistics(&x) {
            let [n, _, h, w] = x.dims();
            let (y, mean, var) = <Dispatch as FilmOps>::op_norm_train_conv2d(
                x.into_dispatch(),
                self.weight.val().into_dispatch(),
                self.bias.val().into_dispatch(),
                self.eps,
                conv_weight.into_dispatch(),
                conv.options,
            );
            self.move_running_statistics(Tensor::from_dispatch(mean), Tensor::from_dispatch(var), n * h * w);
            return Tensor::from_dispatch(y);
        }
        let (scale, shift) = self.running_scale_and_shift(&x.device());
        Tensor::from_dispatch(<Dispatch as FilmOps>::op_channel_affine_conv2d(
            x.into_dispatch(),
            scale.into_dispatch(),
            shift.into_dispatch(),
            conv_weight.into_dispatch(),
            conv.options,
        ))
    }

    /// Whether an input is normalised with its own statistics.
    fn uses_batch_statistics(&self, x: &Tensor<4>) -> bool {
        let [features] = self.weight.val().dims();
        assert_eq!(x.dims()[1], features, "batch norm: input {:?} for {features} features", x.dims());
        x.device().is_autodiff() && self.training.is_enabled()
    }

    fn normalise(&self, x: Tensor<4>, relu: bool) -> Tensor<4> {
        let x = precision::rounded(x);
        if self.uses_batch_statistics(&x) {
            self.with_batch_statistics(x, relu)
        } else {
            self.with_running_statistics(x, relu)
        }
    }

    fn with_batch_statistics(&self, x: Tensor<4>, relu: bool) -> Tensor<4> {
        let [n, _, h, w] = x.dims();
        let (y, mean, var) = <Dispatch as FilmOps>::op_norm_train(
            x.into_dispatch(),
            self.weight.val().into_dispatch(),
            self.bias.val().into_dispatch(),
            self.eps,
            relu,
        );
        self.move_running_statistics(Tensor::from_dispatch(mean), Tensor::from_dispatch(var), n * h * w);
        Tensor::from_dispatch(y)
    }

    fn move_running_statistics(&self, mean: Tensor<1>, var: Tensor<1>, count: usize) {
        let (mean, var) = (mean.without_autodiff(), var.without_autodiff());
        // The statistics are those of all processes that train together, with as many values each.
        let count = count * ranks::size();
        // PyTorch refuses one value a channel; the variance is 0 then, so the factor does not matter.
        let unbias = count as f64 / (count.max(2) - 1) as f64;
        self.update(&self.running_mean, mean, 1.0);
        self.update(&self.running_var, var, unbias);
    }

    fn update(&self, stat: &RunningStat, batch: Tensor<1>, factor: f64) {
        let old = stat.value();
        let autodiff = old.is_autodiff();
        let old = old.without_autodiff();
        let batch = batch.to_device(&old.device());
        let new = old * (1.0 - self.momentum) + batch * (self.momentum * factor);
        stat.set(if autodiff { new.autodiff() } else { new });
    }

    fn with_running_statistics(&self, x: Tensor<4>, relu: bool) -> Tensor<4> {
        let (scale, shift) = self.running_scale_and_shift(&x.device());
        Tensor::from_dispatch(<Dispatch as FilmOps>::op_channel_affine(
            x.into_dispatch(),
            scale.into_dispatch(),
            shift.into_dispatch(),
            relu,
        ))
    }

    /// What normalises with the running statistics, `[C]` each.
    fn running_scale_and_shift(&self, device: &Device) -> (Tensor<1>, Tensor<1>) {
        let mean = self.running_mean.value().to_device(device);
        let var = self.running_var.value().to_device(device);
        let scale = self.weight.val() / (var + self.eps).sqrt(); // [C]
        let shift = self.bias.val() - mean * scale.clone(); // [C]
        (scale, shift)
    }
}

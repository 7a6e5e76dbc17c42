//! Initial weights as a pure function of seed and parameter name, so that neither the order of construction
//! nor the number of threads matters.
//!
//! Each network file states its scheme as a function from a parameter's name and shape to a [`Draw`].

use burn::module::Module;

use crate::weights::{is_statistic, map_values};

/// How the values of a parameter are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// All the same.
    Constant(f32),
    /// Normal with mean zero.
    Normal {
        /// Its standard deviation.
        std: f64,
    },
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// Half the width of the interval.
        bound: f64,
    },
}

/// `module` with every parameter drawn by `scheme(name, shape)` and running statistics at 0 and 1.
pub fn initialise<M: Module>(module: M, seed: u64, scheme: impl Fn(&str, &[usize]) -> Draw) -> M {
    map_values(module, |name, shape| {
        let draw = match name {
            _ if name.ends_with("running_var") => Draw::Constant(1.0),
            _ if is_statistic(name) => Draw::Constant(0.0),
            _ => scheme(name, shape),
        };
        Some(draw.values(seed, name, shape.iter().product()))
    })
}

impl Draw {
    /// Kaiming normal for a ReLU, by the number of inputs a value has (`[out, in, ...]` weights).
    pub fn kaiming_fan_in(shape: &[usize]) -> Self {
        let fan_in: usize = shape.iter().skip(1).product();
        Self::Normal { std: (2.0 / fan_in.max(1) as f64).sqrt() }
    }

    /// Kaiming normal for a ReLU, by the number of outputs a value reaches.
    pub fn kaiming_fan_out(shape: &[usize]) -> Self {
        let fan_out = shape.first().copied().unwrap_or(1) * shape.iter().skip(2).product::<usize>();
        Self::Normal { std: (2.0 / fan_out.max(1) as f64).sqrt() }
    }

    /// Kaiming uniform with slope one: keeps the variance of a layer without a nonlinearity.
    pub fn kaiming_uniform_linear(shape: &[usize]) -> Self {
        let fan_in: usize = shape.iter().skip(1).product();
        Self::Uniform { bound: (3.0 / fan_in.max(1) as f64).sqrt() }
    }

    /// Xavier uniform: keeps the variance of values and of gradients (`[out, in, ...]` weights).
    pub fn xavier_uniform(shape: &[usize]) -> Self {
        let taps: usize = shape.iter().skip(2).product();
        let fans: usize = shape.iter().take(2).map(|side| side * taps).sum();
        Self::Uniform { bound: (6.0 / fans.max(1) as f64).sqrt() }
    }

    /// PyTorch's default for a linear layer's weight and bias of `fan_in` inputs.
    pub fn torch_linear(fan_in: usize) -> Self {
        Self::Uniform { bound: (1.0 / fan_in.max(1) as f64).sqrt() }
    }

    /// `count` values; the same for the same seed and name.
    pub fn values(self, seed: u64, name: &str, count: usize) -> Vec<f32> {
        let mut stream = Stream::new(seed, name);
        match self {
            Self::Constant(value) => vec![value; count],
            Self::Uniform { bound } => {
                (0..count).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32).collect()
            }
            Self::Normal { std } => {
                let mut values = Vec::with_capacity(count + 1);
                while values.len() < count {
                    // Box and Muller: two normal values from two uniform ones.
                    let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt() * std;
                    let angle = std::f64::consts::TAU * stream.unit();
                    values.push((radius * angle.cos()) as f32);
                    values.push((radius * angle.sin()) as f32);
                }
                values.truncate(count);
                values
            }
        }
    }
}

/// The splitmix64 stream (Steele, Lea, Flood 2014) of a seed and a name.
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name, from a start that depends on the seed.
        let start = mix(seed ^ 0xcbf2_9ce4_8422_2325);
        Self(name.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// Uniform in [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `0..count`, each as likely as the others up to 2⁻⁵³ · `count`; `count` is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count - 1)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_name_give_the_same_values() {
        let draw = Draw::Normal { std: 1.0 };
        assert_eq!(draw.values(7, "a.weight", 9), draw.values(7, "a.weight", 9));
        assert_ne!(draw.values(7, "a.weight", 9), draw.values(8, "a.weight", 9));
        assert_ne!(draw.values(7, "a.weight", 9), draw.values(7, "b.weight", 9));
    }

    #[test]
    fn moments_are_as_asked() {
        let moments = |values: &[f32]| {
            let n = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let var = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
            (mean, var.sqrt())
        };
        let (mean, std) = moments(&Draw::Normal { std: 0.3 }.values(1, "w", 100_000));
        assert!(mean.abs() < 5e-3 && (std - 0.3).abs() < 3e-3, "{mean} {std}");
        let (mean, std) = moments(&Draw::Uniform { bound: 3f64.sqrt() }.values(1, "w", 100_000));
        assert!(mean.abs() < 1e-2 && (std - 1.0).abs() < 1e-2, "{mean} {std}");
    }

    #[test]
    fn fans_are_read_from_pytorch_shapes() {
        let shape = [64, 32, 3, 3];
        assert_eq!(Draw::kaiming_fan_in(&shape), Draw::Normal { std: (2.0f64 / 288.0).sqrt() });
        assert_eq!(Draw::kaiming_fan_out(&shape), Draw::Normal { std: (2.0f64 / 576.0).sqrt() });
    }
}

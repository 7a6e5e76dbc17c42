//! Random numbers that depend on names, not on the order of calls between films.
//!
//! A [`Stream`] is SplitMix64 (Steele, Lea and Flood, 2014) started from a hash of a list of numbers such
//! as `[seed, study, film, purpose]`. Each purpose has its own stream, so that a film with a finding and
//! the same film without it share everything else.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finaliser: mixes all 64 bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream named by `key`.
    pub fn new(key: &[u64]) -> Self {
        let state = key.iter().fold(0x0053_5049_4E45_5852_u64, |h, &k| {
            mix(h.wrapping_add(GOLDEN) ^ mix(k.wrapping_add(0x632B_E59B_D9B4_E019)))
        });
        Self { state }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() >> 32) as usize * n) >> 32
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high + 1 - low)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// -1 or 1.
    pub fn sign(&mut self) -> f32 {
        if self.bits() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// Nearly normal: a sum of six uniforms, mean 0, standard deviation 1, never beyond ±4.25.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..6).map(|_| self.unit()).sum();
        (sum - 3.0) * std::f32::consts::SQRT_2
    }

    /// Number of events of a Poisson process with this mean (Knuth's product method; small means).
    pub fn poisson(&mut self, mean: f32) -> usize {
        let limit = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit && count < 64 {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// An index drawn in proportion to `weights`; the last when rounding runs past it.
    pub fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f32>();
        for (i, w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return i;
            }
        }
        weights.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_key_and_repeat() {
        let first = |key: &[u64]| Stream::new(key).bits();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1]), first(&[1, 0]));
    }

    #[test]
    fn moments_are_as_promised() {
        let mut s = Stream::new(&[7]);
        let n = 20_000;
        let draws: Vec<f32> = (0..n).map(|_| s.normal()).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        let var = draws.iter().map(|d| (d - mean).powi(2)).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        let events: usize = (0..n).map(|_| s.poisson(2.5)).sum();
        assert!((events as f32 / n as f32 - 2.5).abs() < 0.06);
    }
}

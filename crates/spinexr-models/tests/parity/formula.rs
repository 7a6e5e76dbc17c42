//! The fill formula of the golden fixtures (tests/golden/README.md): values as a pure function of a name.

pub fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

pub struct SplitMix64(u64);

impl SplitMix64 {
    pub fn named(name: &str) -> Self {
        Self(fnv1a64(name))
    }
}

impl Iterator for SplitMix64 {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ (z >> 31))
    }
}

/// `u` in [0, 1), 24 bits.
pub fn unit(name: &str, count: usize) -> Vec<f32> {
    SplitMix64::named(name).take(count).map(|next| (next >> 40) as f32 / 16_777_216.0).collect()
}

/// An input image: `lo + (hi - lo) * u`.
pub fn input(name: &str, count: usize, lo: f32, hi: f32) -> Vec<f32> {
    let u = unit(name, count);
    if (lo, hi) == (0.0, 1.0) { u } else { u.into_iter().map(|u| lo + (hi - lo) * u).collect() }
}

/// One override of the gain by a part of the name.
pub struct Override {
    pub contains: String,
    pub gain: Option<f64>,
    pub abs: Option<f64>,
    /// Values 0.2 to 0.8, for boxes in shares of the image.
    pub proposal_boxes: bool,
}

/// The value of a state-dict entry.
pub fn fill(name: &str, shape: &[usize], gain: f64, overrides: &[Override]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let last = name.rsplit('.').next().unwrap_or(name);
    let hit = overrides.iter().find(|o| name.contains(&o.contains));
    let signed = || unit(name, count).into_iter().map(|u| 2.0 * u - 1.0);
    if hit.is_some_and(|o| o.proposal_boxes) {
        unit(name, count).into_iter().map(|u| 0.2 + 0.6 * u).collect()
    } else if last == "num_batches_tracked" {
        vec![0.0; count]
    } else if last == "running_var" {
        unit(name, count).into_iter().map(|u| 1.0 + 0.5 * u).collect()
    } else if shape.len() >= 2 {
        let fan_in = (count / shape[0]) as f64;
        let scale = match hit.and_then(|o| o.abs) {
            Some(abs) => abs as f32,
            None => (hit.and_then(|o| o.gain).unwrap_or(gain) * (3.0 / fan_in).sqrt()) as f32,
        };
        signed().map(|s| s * scale).collect()
    } else if shape.len() == 1 && last == "weight" {
        signed().map(|s| 1.0 + 0.1 * s).collect()
    } else {
        signed().map(|s| 0.1 * s).collect()
    }
}

#[test]
fn worked_examples_of_the_formula() {
    assert_eq!(fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(SplitMix64::named("input_64").next(), Some(0x885d_173f_297f_da6a));
    assert_eq!(SplitMix64(0).take(2).collect::<Vec<_>>(), [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    let bits = |values: Vec<f32>| values[..3].iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        bits(fill("conv1.weight", &[64, 3, 7, 7], 1.15, &[])),
        [0x3c72_a70f, 0x3da4_f90b, 0xbe20_8434]
    );
    assert_eq!(bits(fill("bn1.weight", &[64], 1.0, &[])), [0x3f78_d7aa, 0x3f88_4e0c, 0x3f81_c56e]);
    assert_eq!(bits(fill("bn1.running_var", &[64], 1.0, &[])), [0x3fa9_1b91, 0x3fb2_5a2b, 0x3fbe_213e]);
    assert_eq!(input("input_a", 1, 0.0, 255.0), [183.043_09]);
}

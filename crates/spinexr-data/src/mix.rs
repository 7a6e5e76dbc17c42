//! Small deterministic hashing of integers: every random choice of this crate is a function of a seed and
//! a position, so that no generator state has to be saved or shared between threads.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// SplitMix64's output function (Steele, Lea and Flood 2014): a bijection that scatters `x`.
pub(crate) fn scatter(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of two numbers.
pub(crate) fn scatter2(a: u64, b: u64) -> u64 {
    scatter(scatter(a) ^ b)
}

/// A number in `[0, 1)` from the upper 53 bits of `hash`.
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// The generator of one item: independent streams of one seed.
pub(crate) fn item_rng(seed: u64, position: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(position);
    rng
}

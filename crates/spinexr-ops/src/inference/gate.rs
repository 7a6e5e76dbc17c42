//! Squeeze-and-excitation's two passes over a map: the mean of each plane, and each plane times its factor.

use rayon::prelude::*;

use super::{Maps, MapsRef};
use crate::cpu::elementwise::sum;

/// Values a task should take at least, so that small planes are not a task each.
const TASK: usize = 8 << 10;

/// The mean of each plane, `[N, C]` row by row.
///
/// # Panics
/// When there is no pixel.
pub fn means(x: MapsRef<'_>) -> Vec<f32> {
    let [n, c, h, w] = x.shape();
    let pixels = h * w;
    assert!(pixels > 0, "means of {:?}", x.shape());
    let mean = |plane: usize| (sum(x.plane(plane / c, plane % c)) / pixels as f64) as f32;
    (0..n * c).into_par_iter().with_min_len(TASK.div_ceil(pixels)).map(mean).collect()
}

/// Each plane times its factor; `factors`: `[N, C]` row by row.
///
/// # Panics
/// When there is not one factor for each plane.
pub fn gate(maps: &mut Maps, factors: &[f32]) {
    let [n, c, h, w] = maps.shape();
    assert_eq!(factors.len(), n * c, "factors of {:?}", maps.shape());
    let pixels = (h * w).max(1);
    maps.values_mut()
        .par_chunks_exact_mut(pixels)
        .with_min_len(TASK.div_ceil(pixels))
        .zip(factors)
        .for_each(|(plane, factor)| plane.iter_mut().for_each(|value| *value *= factor));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_have_means_and_factors_of_their_own() {
        let mut maps = Maps::new((0..12).map(|v| v as f32).collect(), [2, 3, 1, 2]);
        assert_eq!(means(maps.view()), [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]);
        gate(&mut maps, &[0.0, 1.0, 2.0, -1.0, 0.5, 0.0]);
        assert_eq!(maps.values(), [0.0, 0.0, 2.0, 3.0, 8.0, 10.0, -6.0, -7.0, 4.0, 4.5, 0.0, 0.0]);
    }
}

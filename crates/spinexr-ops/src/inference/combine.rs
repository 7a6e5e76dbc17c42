//! Weighted sums of maps of one size or smaller, as a bidirectional pyramid joins its levels.

use super::pool::for_each_plane;
use super::{Activation, MapsMut, MapsRef};
use crate::cpu::pool::nearest_sources;
use crate::cpu::row::activate;
use crate::cpu::simd::Isa;

/// A map with its weight in a sum.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// Of the sum's size, or smaller and then resized by [`crate::upsample_nearest`]'s rule.
    pub map: MapsRef<'a>,
    /// Factor.
    pub weight: f32,
}

/// `out = activation(Σ weight · map)`, added up in the order of the terms.
///
/// # Shapes
/// - maps: `[N, C, h, w]`; `out`: `[N, C, H, W]`
///
/// # Panics
/// When there is no term, films or channels do not agree, or a map has no pixel and `out` has.
pub fn weighted_sum(terms: &[Term<'_>], activation: Activation, out: MapsMut<'_>) {
    let [n, c, h, w] = out.shape();
    assert!(!terms.is_empty(), "a sum of at least one map");
    for term in terms {
        let [film, channel, _, _] = term.map.shape();
        assert_eq!([film, channel], [n, c], "films and channels of a sum");
    }
    if [n, c, h, w].contains(&0) {
        return;
    }
    let sources = |term: &Term<'_>| {
        let [_, _, height, width] = term.map.shape();
        (nearest_sources(height, h), nearest_sources(width, w))
    };
    let sources: Vec<_> = terms.iter().map(sources).collect();
    let isa = Isa::best();
    for_each_plane(out, |film, channel, plane| {
        for (row, line) in plane.chunks_exact_mut(w).enumerate() {
            for (i, (term, (rows, columns))) in terms.iter().zip(&sources).enumerate() {
                let from = term.row(film, channel, rows[row]);
                let sum = |sum: f32, x: f32| if i == 0 { x * term.weight } else { sum + x * term.weight };
                // Whole rows where sizes agree: the compiler puts those into vectors.
                if from.len() == w {
                    line.iter_mut().zip(from).for_each(|(to, &x)| *to = sum(*to, x));
                } else {
                    line.iter_mut().zip(columns).for_each(|(to, &column)| *to = sum(*to, from[column]));
                }
            }
        }
        activate(isa, plane, activation);
    });
}

impl<'a> Term<'a> {
    fn row(&self, film: usize, channel: usize, row: usize) -> &'a [f32] {
        let [_, _, _, width] = self.map.shape();
        &self.map.plane(film, channel)[row * width..][..width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Maps;
    use crate::{silu, upsample_nearest};
    use burn::tensor::{Device, Tensor, TensorData};

    fn maps(shape: [usize; 4], seed: usize) -> Maps {
        let len = shape.iter().product::<usize>();
        Maps::new((0..len).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 7.0 - 2.0).collect(), shape)
    }

    fn tensor(maps: &Maps) -> Tensor<4> {
        Tensor::from_data(TensorData::new(maps.values().to_vec(), maps.shape()), &Device::flex())
    }

    #[test]
    fn the_sum_is_the_tensor_operations() {
        for (size, above) in [([6, 8], [3, 4]), ([13, 19], [7, 10]), ([1, 1], [1, 1]), ([5, 3], [3, 3])] {
            let [a, b] = [1, 2].map(|seed| maps([2, 3, size[0], size[1]], seed));
            let c = maps([2, 3, above[0], above[1]], 3);
            let expected = tensor(&a) * 0.25 + tensor(&b) * 0.5 + upsample_nearest(tensor(&c), size) * 1.5;
            let terms =
                [(&a, 0.25), (&b, 0.5), (&c, 1.5)].map(|(maps, weight)| Term { map: maps.view(), weight });
            let mut out = Maps::default();
            out.reshape([2, 3, size[0], size[1]]);
            for (activation, expected) in
                [(Activation::Identity, expected.clone()), (Activation::Silu, silu(expected))]
            {
                weighted_sum(&terms, activation, out.view_mut());
                let expected = expected.try_into_vec_as::<f32>().unwrap();
                for (found, expected) in out.values().iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5, "{found} for {expected} at {size:?}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "films and channels of a sum")]
    fn maps_of_other_channels_are_refused() {
        let (a, mut out) = (maps([1, 2, 2, 2], 0), maps([1, 3, 2, 2], 0));
        weighted_sum(&[Term { map: a.view(), weight: 1.0 }], Activation::Identity, out.view_mut());
    }
}

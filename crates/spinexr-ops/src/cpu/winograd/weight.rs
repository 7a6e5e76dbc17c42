//! Weights on Winograd's side: `G g Gᵀ`, computed in f64 and rounded once.

use super::super::product::PackedWeight;
use super::super::simd::{Isa, Kernel, Vector};
use super::{A, B, IN, PRODUCTS};

/// Weights of one group, transformed: for each of the 36 products an `outputs x inputs` matrix.
pub(crate) struct WinogradWeight {
    pub(super) isa: Isa,
    /// Taps of a row: the inputs of the first product, then those of the second, ...
    pub(super) packed: PackedWeight,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Where the nine taps of a pair of channels are found in `[o, i, 3, 3]`.
#[derive(Clone, Copy)]
pub(crate) enum Taps {
    /// Outputs are `o`, inputs `i`.
    Forward,
    /// The convolution that is the input gradient: outputs are `i`, inputs `o`, the kernel is turned by 180°.
    InputGrad,
}

impl WinogradWeight {
    /// `weight` is `[o, i, 3, 3]`.
    pub(crate) fn new(isa: Isa, o: usize, i: usize, weight: &[f32], taps: Taps) -> Self {
        let (weight, rest) = weight.as_chunks::<9>();
        assert!(rest.is_empty() && weight.len() == o * i);
        let (outputs, inputs) = match taps {
            Taps::Forward => (o, i),
            Taps::InputGrad => (i, o),
        };
        let packed = PackedWeight::by_block(isa, outputs, PRODUCTS * inputs, |first, rows, out| {
            isa.run(BlockTransform { weight, taps, columns: i, first, rows, inputs, out });
        });
        Self { isa, packed, inputs, outputs }
    }
}

/// Rows (output channels) transformed at once; at least the rows of a packed block.
const LANES: usize = 16;

/// A packed block: `out[(product * inputs + input) * rows + row]`.
struct BlockTransform<'a> {
    weight: &'a [[f32; 9]],
    taps: Taps,
    /// `i` of the weight's shape.
    columns: usize,
    first: usize,
    rows: usize,
    inputs: usize,
    out: &'a mut [f32],
}

impl Kernel for BlockTransform<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { weight, taps, columns, first, rows, inputs, out } = self;
        assert!(rows <= LANES);
        for input in 0..inputs {
            let mut g = [[0.0f64; LANES]; 9];
            for row in 0..rows {
                let mut nine = match taps {
                    Taps::Forward => weight[(first + row) * columns + input],
                    Taps::InputGrad => weight[input * columns + first + row],
                };
                if let Taps::InputGrad = taps {
                    nine.reverse();
                }
                for (lanes, value) in g.iter_mut().zip(nine) {
                    lanes[row] = f64::from(value);
                }
            }
            let mut columns = [[[0.0f64; LANES]; 3]; IN]; // [i][x]
            for x in 0..3 {
                for (i, values) in weight_transform(&g[x], &g[3 + x], &g[6 + x]).into_iter().enumerate() {
                    columns[i][x] = values;
                }
            }
            for (i, [a, b, c]) in columns.iter().enumerate() {
                for (j, values) in weight_transform(a, b, c).iter().enumerate() {
                    let to = &mut out[((i * IN + j) * inputs + input) * rows..][..rows];
                    for (to, value) in to.iter_mut().zip(values) {
                        *to = *value as f32;
                    }
                }
            }
        }
    }
}

/// `G g`, lane by lane: a row of G for each point p is `[1, p, p²]` times a constant of the pair ±p.
#[inline(always)]
fn weight_transform(g0: &[f64; LANES], g1: &[f64; LANES], g2: &[f64; LANES]) -> [[f64; LANES]; IN] {
    const SCALE_A: f64 = 1.0 / (2.0 * A * A * (A * A - B * B));
    const SCALE_B: f64 = 1.0 / (2.0 * B * B * (B * B - A * A));
    let mut out = [[0.0; LANES]; IN];
    for lane in 0..LANES {
        let (g0, g1, g2) = (g0[lane], g1[lane], g2[lane]);
        let (even_a, odd_a) = (SCALE_A * g0 + (SCALE_A * A * A) * g2, (SCALE_A * A) * g1);
        let (even_b, odd_b) = (SCALE_B * g0 + (SCALE_B * B * B) * g2, (SCALE_B * B) * g1);
        out[0][lane] = g0 * (1.0 / (A * A * B * B));
        out[1][lane] = even_a + odd_a;
        out[2][lane] = even_a - odd_a;
        out[3][lane] = even_b + odd_b;
        out[4][lane] = even_b - odd_b;
        out[5][lane] = g2;
    }
    out
}

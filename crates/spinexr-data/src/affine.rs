//! Affine changes of a film: where boxes go, and the film seen through the map.

use spinexr_core::BoxXyxy;

/// `x' = a x + b y + c`, `y' = d x + e y + f`, continuous px (a pixel's centre is at one half).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) a: f64,
    pub(crate) b: f64,
    pub(crate) c: f64,
    pub(crate) d: f64,
    pub(crate) e: f64,
    pub(crate) f: f64,
}

impl Affine {
    /// From the film as it will be back to the film as it was.
    pub(crate) fn inverse(&self) -> Self {
        let det = self.a * self.e - self.b * self.d; // never 0: no change flattens a film
        let (a, b, d, e) = (self.e / det, -self.b / det, -self.d / det, self.a / det);
        Self { a, b, c: -(a * self.c + b * self.f), d, e, f: -(d * self.c + e * self.f) }
    }

    /// The upright box around the image of `b`.
    pub(crate) fn around(&self, b: &BoxXyxy) -> BoxXyxy {
        let corners = [(b.x1, b.y1), (b.x2, b.y1), (b.x1, b.y2), (b.x2, b.y2)].map(|(x, y)| {
            let (x, y) = (f64::from(x), f64::from(y));
            let px = (self.a * x + self.b * y + self.c) as f32;
            let py = (self.d * x + self.e * y + self.f) as f32;
            BoxXyxy::new(px, py, px, py)
        });
        corners[1..].iter().fold(corners[0], |all, c| all.union(c))
    }
}

/// One in fixed point: coordinates are whole numbers of 2^-32 px, so that a pixel's place is one addition
/// away from its neighbour's and no sum of roundings builds up.
const ONE: i64 = 1 << 32;

/// The upper left `content_h` × `content_w` px of `source` (rows of `width` px) seen through `inverse` (output px to
/// source px), written over `out`, which has rows of the same width. Pixels that show nothing of the source stay as
/// they are. `finish` gets every run of pixels that was written, with the index of its first in `out`.
pub(crate) fn warp(
    source: &[u16],
    out: &mut [u16],
    width: usize,
    (content_h, content_w): (usize, usize),
    inverse: &Affine,
    mut finish: impl FnMut(&mut [u16], usize),
) {
    let fixed = |px: f64| (px * ONE as f64).round() as i64;
    let (end_x, end_y) = (content_w as i64 * ONE, content_h as i64 * ONE);
    let (step_x, step_y) = (fixed(inverse.a), fixed(inverse.d));
    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        let v = y as f64 + 0.5;
        let mut sx = fixed(inverse.a * 0.5 + inverse.b * v + inverse.c);
        let mut sy = fixed(inverse.d * 0.5 + inverse.e * v + inverse.f);
        // A straight line meets the film in one run of pixels; the others stay 0.
        let (mut first, mut end) = (width, width);
        for (x, pixel) in row.iter_mut().enumerate() {
            if (0..end_x).contains(&sx) && (0..end_y).contains(&sy) {
                first = first.min(x);
                // Samples lie at pixel centres; the outermost half pixel repeats the border.
                let fx = (sx - ONE / 2).clamp(0, end_x - ONE);
                let fy = (sy - ONE / 2).clamp(0, end_y - ONE);
                let (ix, iy) = ((fx >> 32) as usize, (fy >> 32) as usize);
                let right = usize::from(ix + 1 < content_w);
                let below = if iy + 1 < content_h { width } else { 0 };
                let at = iy * width + ix;
                let top = blend(source[at], source[at + right], fx);
                let bottom = blend(source[at + below], source[at + below + right], fx);
                *pixel = blend(top, bottom, fy);
            } else if first < width {
                end = x;
                break;
            }
            sx += step_x;
            sy += step_y;
        }
        if first < width {
            finish(&mut row[first..end], y * width + first);
        }
    }
}

/// Between `a` and `b` by the fraction of the fixed-point coordinate `at`, rounded.
fn blend(a: u16, b: u16, at: i64) -> u16 {
    let part = ((at >> 17) & 0x7FFF) as u32; // 15 bits: the products fit 32
    let sum = u32::from(a) * (0x8000 - part) + u32::from(b) * part;
    ((sum + 0x4000) >> 15) as u16
}

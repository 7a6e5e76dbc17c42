//! Random changes of a training film, geometry and grey values, in one pass over its pixels.
//!
//! A box keeps its label through every change: labels and boxes travel in one struct, and what leaves the
//! frame is dropped as a whole. Geometry is one affine warp with bilinear sampling; grey values go through
//! one table. Padding and what the warp uncovers stay exactly 0.

use crate::mix::scatter;
use crate::{DataError, LabelledBox, PreparedFilm};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use spinexr_core::BoxXyxy;

/// How far a film may be changed. Every range is symmetric about "unchanged", drawn uniformly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "AugmentConfig::none")]
pub struct AugmentConfig {
    /// Chance of mirroring left to right, `0..=1`.
    pub flip: f32,
    /// Largest zoom: the factor is drawn from `1/(1+scale) ..= 1+scale`, evenly in its logarithm.
    pub scale: f32,
    /// Largest shift along each side, as a share of that side.
    pub translate: f32,
    /// Largest rotation, degrees.
    pub rotate_deg: f32,
    /// Largest change added to grey values of `0..=1`.
    pub brightness: f32,
    /// Largest change of contrast about mid grey: the factor is drawn from `1-contrast ..= 1+contrast`.
    pub contrast: f32,
    /// Largest gamma: the exponent is drawn from `1/(1+gamma) ..= 1+gamma`, evenly in its logarithm.
    pub gamma: f32,
    /// Largest standard deviation of added noise, grey values of `0..=1`.
    pub noise: f32,
    /// A box is dropped when less than this share of its area stays in the frame.
    pub min_visible: f32,
}

impl AugmentConfig {
    /// No change.
    pub const fn none() -> Self {
        Self {
            flip: 0.0,
            scale: 0.0,
            translate: 0.0,
            rotate_deg: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            gamma: 0.0,
            noise: 0.0,
            min_visible: 0.3,
        }
    }

    /// The paper's classifier: a flip at one half.
    pub const fn flip_only() -> Self {
        Self { flip: 0.5, ..Self::none() }
    }

    /// Mild changes that keep anatomy believable, for classifier and detector alike.
    pub const fn mild() -> Self {
        Self {
            flip: 0.5,
            scale: 0.1,
            translate: 0.05,
            rotate_deg: 5.0,
            brightness: 0.1,
            contrast: 0.2,
            gamma: 0.2,
            noise: 0.01,
            min_visible: 0.3,
        }
    }

    /// Every setting is in its range.
    ///
    /// # Errors
    /// [`DataError::Setting`] naming the first that is not.
    pub fn check(&self) -> Result<(), DataError> {
        let settings = [
            ("flip", self.flip, 1.0, "a chance from 0 to 1"),
            ("scale", self.scale, 4.0, "a number from 0 to 4"),
            ("translate", self.translate, 1.0, "a share from 0 to 1"),
            ("rotate_deg", self.rotate_deg, 180.0, "degrees from 0 to 180"),
            ("brightness", self.brightness, 1.0, "a number from 0 to 1"),
            ("contrast", self.contrast, 1.0, "a number from 0 to 1"),
            ("gamma", self.gamma, 4.0, "a number from 0 to 4"),
            ("noise", self.noise, 1.0, "a number from 0 to 1"),
            ("min_visible", self.min_visible, 1.0, "a share from 0 to 1"),
        ];
        match settings.into_iter().find(|s| !(0.0..=s.2).contains(&s.1)) {
            None => Ok(()),
            Some((name, found, _, expected)) => {
                Err(DataError::Setting { name, expected, found: found.to_string() })
            }
        }
    }
}

/// Changes `film` and `boxes` (input px) at random, within `config`.
///
/// The same draws are made whatever the settings are, so that switching one change off leaves the others
/// as they were. `film.map` still tells how the film was resized, and says nothing about the changes.
pub fn augment(
    film: &mut PreparedFilm,
    boxes: &mut Vec<LabelledBox>,
    config: &AugmentConfig,
    rng: &mut impl Rng,
) {
    let drawn = Draws::new(config, rng);
    let (content_h, content_w) = film.content_px();
    let tone = ToneTable::new(&drawn);
    let noise = Noise::new(drawn.noise, drawn.noise_key);
    let forward = Affine::forward(&drawn, content_h as f64, content_w as f64);
    if drawn.only_flips() {
        let width = film.width;
        for (y, row) in film.pixels.chunks_exact_mut(width).take(content_h).enumerate() {
            let run = &mut row[..content_w];
            if drawn.flip {
                run.reverse();
            }
            change_greys(run, y * width, tone.as_ref(), &noise);
        }
    } else {
        film.pixels = warp(film, content_h, content_w, &forward.inverse(), tone.as_ref(), &noise);
    }
    let (w, h) = (film.width as f32, film.height as f32);
    boxes.retain_mut(|b| {
        let whole = forward.around(&b.xyxy);
        b.xyxy = whole.clip(w, h);
        b.xyxy.is_proper() && b.xyxy.area() >= config.min_visible * whole.area()
    });
}

/// What was drawn for one film.
struct Draws {
    flip: bool,
    zoom: f64,
    shift: (f64, f64),
    angle_rad: f64,
    brightness: f64,
    contrast: f64,
    gamma: f64,
    noise: f32,
    noise_key: u64,
}

impl Draws {
    fn new(config: &AugmentConfig, rng: &mut impl Rng) -> Self {
        let flip = rng.random::<f64>() < f64::from(config.flip);
        let mut signed = || 2.0 * rng.random::<f64>() - 1.0; // -1..1
        let power = |limit: f32, s: f64| (s * f64::from(limit).ln_1p()).exp();
        Self {
            flip,
            zoom: power(config.scale, signed()),
            shift: (f64::from(config.translate) * signed(), f64::from(config.translate) * signed()),
            angle_rad: (f64::from(config.rotate_deg) * signed()).to_radians(),
            brightness: f64::from(config.brightness) * signed(),
            contrast: 1.0 + f64::from(config.contrast) * signed(),
            gamma: power(config.gamma, signed()),
            noise: config.noise * signed().abs() as f32,
            noise_key: rng.next_u64(),
        }
    }

    fn only_flips(&self) -> bool {
        self.zoom == 1.0 && self.shift == (0.0, 0.0) && self.angle_rad == 0.0
    }
}

/// `x' = a x + b y + c`, `y' = d x + e y + f`, continuous px (a pixel's centre is at one half).
#[derive(Debug, Clone, Copy)]
struct Affine {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    e: f64,
    f: f64,
}

impl Affine {
    /// From the film as it was to the film as it will be: mirror, zoom and turn about the middle of the
    /// film's content, then shift.
    fn forward(drawn: &Draws, content_h: f64, content_w: f64) -> Self {
        let (cx, cy) = (content_w / 2.0, content_h / 2.0);
        let (sin, cos) = (drawn.angle_rad.sin() * drawn.zoom, drawn.angle_rad.cos() * drawn.zoom);
        let mirror = if drawn.flip { -1.0 } else { 1.0 };
        let (a, b, d, e) = (cos * mirror, -sin, sin * mirror, cos);
        let (dx, dy) = (drawn.shift.0 * content_w, drawn.shift.1 * content_h);
        Self { a, b, c: cx + dx - a * cx - b * cy, d, e, f: cy + dy - d * cx - e * cy }
    }

    /// From the film as it will be back to the film as it was.
    fn inverse(&self) -> Self {
        let det = self.a * self.e - self.b * self.d; // ± zoom², never 0
        let (a, b, d, e) = (self.e / det, -self.b / det, -self.d / det, self.a / det);
        Self { a, b, c: -(a * self.c + b * self.f), d, e, f: -(d * self.c + e * self.f) }
    }

    /// The upright box around the image of `b`.
    fn around(&self, b: &BoxXyxy) -> BoxXyxy {
        let corners = [(b.x1, b.y1), (b.x2, b.y1), (b.x1, b.y2), (b.x2, b.y2)].map(|(x, y)| {
            let (x, y) = (f64::from(x), f64::from(y));
            let px = (self.a * x + self.b * y + self.c) as f32;
            let py = (self.d * x + self.e * y + self.f) as f32;
            BoxXyxy::new(px, py, px, py)
        });
        corners[1..].iter().fold(corners[0], |all, c| all.union(c))
    }
}

/// Grey values through gamma, contrast and brightness, tabulated: 4096 steps, linear between.
struct ToneTable(Vec<i32>);

/// Grey values between two entries, as a power of two.
const TONE_SHIFT: u32 = 4;

impl ToneTable {
    fn new(drawn: &Draws) -> Option<Self> {
        if drawn.gamma == 1.0 && drawn.contrast == 1.0 && drawn.brightness == 0.0 {
            return None;
        }
        let tone = |i: u32| {
            let v = (f64::from(i << TONE_SHIFT) / 65535.0).min(1.0).powf(drawn.gamma);
            let v = (v - 0.5) * drawn.contrast + 0.5 + drawn.brightness;
            (v * 65535.0).clamp(0.0, 65535.0).round() as i32
        };
        Some(Self((0..=65536 >> TONE_SHIFT).map(tone).collect()))
    }

    fn apply(&self, value: u16) -> u16 {
        let i = usize::from(value >> TONE_SHIFT);
        let part = i32::from(value) & ((1 << TONE_SHIFT) - 1);
        let (low, high) = (self.0[i], self.0[i + 1]);
        (low + (((high - low) * part) >> TONE_SHIFT)) as u16
    }
}

/// Noise as a function of the pixel's index: the sum of four uniform bytes, near enough to normal and many
/// times as quick as a normal distribution.
struct Noise {
    /// Standard deviation over that of the byte sum, in 1/65536 of a grey value of `0..=65535`.
    gain: i64,
    key: u64,
}

impl Noise {
    /// `std` is the standard deviation in grey values of `0..=1`.
    fn new(std: f32, key: u64) -> Self {
        let byte_sum_std = (4.0f64 * (256.0 * 256.0 - 1.0) / 12.0).sqrt();
        Self { gain: (f64::from(std) * 65535.0 * 65536.0 / byte_sum_std) as i64, key }
    }

    /// Noise from four bytes: the lower or upper half of a hash.
    fn of_bytes(&self, bytes: u32) -> i32 {
        let pairs = (bytes & 0x00FF_00FF) + ((bytes >> 8) & 0x00FF_00FF);
        let sum = (pairs & 0xFFFF) + (pairs >> 16); // mean 510
        (((i64::from(sum) - 510) * self.gain) >> 16) as i32
    }

    /// Adds noise to a run of pixels that begins at pixel `first` of the film.
    fn add(&self, run: &mut [u16], first: usize) {
        for (pair, pixels) in run.chunks_mut(2).enumerate() {
            let bits = scatter(self.key.wrapping_add((first + 2 * pair) as u64));
            for (pixel, bytes) in pixels.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                *pixel = (i32::from(*pixel) + self.of_bytes(bytes)).clamp(0, 65535) as u16;
            }
        }
    }
}

/// Changes the grey values of a run of pixels that begins at pixel `first` of the film.
fn change_greys(run: &mut [u16], first: usize, tone: Option<&ToneTable>, noise: &Noise) {
    if let Some(tone) = tone {
        for pixel in run.iter_mut() {
            *pixel = tone.apply(*pixel);
        }
    }
    if noise.gain > 0 {
        noise.add(run, first);
    }
}

/// One in fixed point: coordinates are whole numbers of 2^-32 px, so that a pixel's place is one addition
/// away from its neighbour's and no sum of roundings builds up.
const ONE: i64 = 1 << 32;

/// The film seen through `inverse` (output px to source px), `[H, W]`.
fn warp(
    film: &PreparedFilm,
    content_h: usize,
    content_w: usize,
    inverse: &Affine,
    tone: Option<&ToneTable>,
    noise: &Noise,
) -> Vec<u16> {
    let width = film.width;
    let source = &film.pixels;
    let mut out = vec![0u16; source.len()];
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
            change_greys(&mut row[first..end], y * width + first, tone, noise);
        }
    }
    out
}

/// Between `a` and `b` by the fraction of the fixed-point coordinate `at`, rounded.
fn blend(a: u16, b: u16, at: i64) -> u16 {
    let part = ((at >> 17) & 0x7FFF) as u32; // 15 bits: the products fit 32
    let sum = u32::from(a) * (0x8000 - part) + u32::from(b) * part;
    ((sum + 0x4000) >> 15) as u16
}

#[cfg(test)]
#[path = "augment_tests.rs"]
mod tests;

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
    let noise = Noise { amplitude: drawn.noise * 65535.0, key: drawn.noise_key };
    match Affine::of(&drawn, content_h as f64, content_w as f64) {
        None => {
            if drawn.flip {
                for row in film.pixels.chunks_exact_mut(film.width) {
                    row[..content_w].reverse();
                }
            }
            if tone.is_some() || noise.amplitude > 0.0 {
                tone_in_place(film, content_h, content_w, tone.as_ref(), &noise);
            }
        }
        Some(inverse) => film.pixels = warp(film, content_h, content_w, &inverse, tone.as_ref(), &noise),
    }
    let forward = Affine::forward(&drawn, content_h as f64, content_w as f64);
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

    /// The inverse map for the warp; `None` when nothing but a flip is to be done.
    fn of(drawn: &Draws, content_h: f64, content_w: f64) -> Option<Self> {
        if drawn.only_flips() {
            return None;
        }
        let m = Self::forward(drawn, content_h, content_w);
        let det = m.a * m.e - m.b * m.d; // ± zoom², never 0
        let (a, b, d, e) = (m.e / det, -m.b / det, -m.d / det, m.a / det);
        Some(Self { a, b, c: -(a * m.c + b * m.f), d, e, f: -(d * m.c + e * m.f) })
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
struct ToneTable(Vec<f32>);

const TONE_STEPS: usize = 4096;

impl ToneTable {
    fn new(drawn: &Draws) -> Option<Self> {
        if drawn.gamma == 1.0 && drawn.contrast == 1.0 && drawn.brightness == 0.0 {
            return None;
        }
        let tone = |i: usize| {
            let v = (i as f64 / TONE_STEPS as f64).powf(drawn.gamma);
            let v = (v - 0.5) * drawn.contrast + 0.5 + drawn.brightness;
            (v * 65535.0).clamp(0.0, 65535.0) as f32
        };
        // One entry beyond the last, so that the upper neighbour of 65535 exists.
        Some(Self((0..=TONE_STEPS + 1).map(|i| tone(i.min(TONE_STEPS))).collect()))
    }

    /// `0..=65535` to `0..=65535`.
    fn apply(&self, value: f32) -> f32 {
        let at = value * (TONE_STEPS as f32 / 65535.0);
        let i = (at as usize).min(TONE_STEPS);
        let part = at - i as f32;
        self.0[i] + (self.0[i + 1] - self.0[i]) * part
    }
}

/// Noise as a function of the pixel's index: the sum of four uniform numbers, near enough to normal and
/// ten times as quick.
struct Noise {
    /// Standard deviation, `0..=65535`.
    amplitude: f32,
    key: u64,
}

impl Noise {
    fn at(&self, index: usize) -> f32 {
        let bits = scatter(self.key.wrapping_add(index as u64));
        let sum = (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48);
        // Mean 2 · 65535; standard deviation 65535 · sqrt(4/12).
        (sum as f32 - 131_070.0) * (self.amplitude / (65535.0 * 0.577_350_26))
    }
}

fn finish(value: f32, index: usize, tone: Option<&ToneTable>, noise: &Noise) -> u16 {
    let value = tone.map_or(value, |t| t.apply(value));
    let value = if noise.amplitude > 0.0 { value + noise.at(index) } else { value };
    (value + 0.5) as u16 // saturates
}

fn tone_in_place(
    film: &mut PreparedFilm,
    content_h: usize,
    content_w: usize,
    tone: Option<&ToneTable>,
    noise: &Noise,
) {
    let width = film.width;
    for (y, row) in film.pixels.chunks_exact_mut(width).take(content_h).enumerate() {
        for (x, pixel) in row[..content_w].iter_mut().enumerate() {
            *pixel = finish(f32::from(*pixel), y * width + x, tone, noise);
        }
    }
}

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
    let (h, w) = (content_h as f32, content_w as f32);
    let (last_x, last_y) = (w - 1.0, h - 1.0);
    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        let v = y as f64 + 0.5;
        let (x0, y0) = ((inverse.b * v + inverse.c) as f32, (inverse.e * v + inverse.f) as f32);
        let (step_x, step_y) = (inverse.a as f32, inverse.d as f32);
        for (x, pixel) in row.iter_mut().enumerate() {
            let u = x as f32 + 0.5;
            let (sx, sy) = (x0 + step_x * u, y0 + step_y * u);
            if !(sx >= 0.0 && sy >= 0.0 && sx < w && sy < h) {
                continue; // uncovered: stays 0
            }
            // Sample centres; the outermost half pixel repeats the border.
            let (fx, fy) = ((sx - 0.5).clamp(0.0, last_x), (sy - 0.5).clamp(0.0, last_y));
            let (ix, iy) = (fx as usize, fy as usize);
            let (px, py) = (fx - ix as f32, fy - iy as f32);
            let (right, below) = (usize::from(ix + 1 < content_w), usize::from(iy + 1 < content_h) * width);
            let at = iy * width + ix;
            let value = |i: usize| f32::from(source[i]);
            let top = value(at) + (value(at + right) - value(at)) * px;
            let bottom = value(at + below) + (value(at + below + right) - value(at + below)) * px;
            *pixel = finish(top + (bottom - top) * py, y * width + x, tone, noise);
        }
    }
    out
}

#[cfg(test)]
#[path = "augment_tests.rs"]
mod tests;

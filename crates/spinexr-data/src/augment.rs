//! Random changes of a training film, geometry and grey values, in one pass over its pixels; and the settings of all
//! that is done to training films (the rest of which is in `compose`).
//!
//! A box keeps its label through every change: labels and boxes travel in one struct, and what leaves the
//! frame is dropped as a whole. Geometry is one affine warp with bilinear sampling; grey values go through
//! one table. Padding and what the warp uncovers stay exactly 0.

use crate::affine::{Affine, warp};
use crate::mix::scatter;
use crate::{AutoAugmentPolicy, DataError, LabelledBox, PreparedFilm};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How far a film may be changed. Every range is symmetric about "unchanged", drawn uniformly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// A published policy, done to each film before the changes above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_augment: Option<AutoAugmentPolicy>,
    /// Sizes of training, as shares of the prepared input size up to 1; each batch has one of them, all equally
    /// likely. Empty for the input size alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<f32>,
    /// Chance of a film being shown with three others, each in a quarter of the input, `0..=1`.
    pub mosaic: f32,
    /// Chance of a rare finding of another training film being pasted in, `0..=1`.
    pub copy_paste: f32,
    /// Findings on less than this share of the training films are rare.
    pub copy_paste_below: f32,
}

impl AugmentConfig {
    /// No change.
    pub fn none() -> Self {
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
            auto_augment: None,
            sizes: Vec::new(),
            mosaic: 0.0,
            copy_paste: 0.0,
            copy_paste_below: 0.1,
        }
    }

    /// The paper's classifier: a flip at one half.
    pub fn flip_only() -> Self {
        Self { flip: 0.5, ..Self::none() }
    }

    /// Mild changes that keep anatomy believable, for classifier and detector alike.
    pub fn mild() -> Self {
        Self {
            flip: 0.5,
            scale: 0.1,
            translate: 0.05,
            rotate_deg: 5.0,
            brightness: 0.1,
            contrast: 0.2,
            gamma: 0.2,
            noise: 0.01,
            ..Self::none()
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
            ("mosaic", self.mosaic, 1.0, "a chance from 0 to 1"),
            ("copy_paste", self.copy_paste, 1.0, "a chance from 0 to 1"),
            ("copy_paste_below", self.copy_paste_below, 1.0, "a share from 0 to 1"),
        ];
        if let Some(size) = self.sizes.iter().find(|size| !(0.1..=1.0).contains(*size)) {
            let expected = "shares of the input size from 0.1 to 1";
            return Err(DataError::Setting { name: "sizes", expected, found: size.to_string() });
        }
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
    let forward = drawn.forward(content_h as f64, content_w as f64);
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
        let mut changed = vec![0; film.pixels.len()];
        let content = (content_h, content_w);
        warp(&film.pixels, &mut changed, film.width, content, &forward.inverse(), |run, first| {
            change_greys(run, first, tone.as_ref(), &noise);
        });
        film.pixels = changed;
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

    /// From the film as it was to the film as it will be: mirror, zoom and turn about the middle of the
    /// film's content, then shift.
    fn forward(&self, content_h: f64, content_w: f64) -> Affine {
        let (cx, cy) = (content_w / 2.0, content_h / 2.0);
        let (sin, cos) = (self.angle_rad.sin() * self.zoom, self.angle_rad.cos() * self.zoom);
        let mirror = if self.flip { -1.0 } else { 1.0 };
        let (a, b, d, e) = (cos * mirror, -sin, sin * mirror, cos);
        let (dx, dy) = (self.shift.0 * content_w, self.shift.1 * content_h);
        Affine { a, b, c: cx + dx - a * cx - b * cy, d, e, f: cy + dy - d * cx - e * cy }
    }

    fn only_flips(&self) -> bool {
        self.zoom == 1.0 && self.shift == (0.0, 0.0) && self.angle_rad == 0.0
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

#[cfg(test)]
#[path = "augment_tests.rs"]
mod tests;

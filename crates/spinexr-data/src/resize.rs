//! The one resize of the project: training, evaluation and prediction all call [`prepare_film`].
//!
//! A separable triangle filter whose width grows with the reduction, which is what
//! `torchvision.transforms.Resize(antialias=True)` and Pillow's `BILINEAR` compute; enlarging is plain
//! bilinear interpolation. Sums are taken in `f32` in a fixed order on one thread, so that the same film
//! gives the same pixels everywhere. Rounding to eight bits between the two passes, which Pillow does, is
//! left out.

use crate::DataError;
use serde::{Deserialize, Serialize};
use spinexr_core::{Annotation, BoxXyxy, ClassList, UnknownLabel};
use spinexr_dicom::{Display, Radiograph};
use std::fmt;

/// Changes whenever [`prepare_film`] gives other pixels: caches of another version are made anew.
pub const RESIZE_VERSION: u32 = 1;

/// Largest side of a network's input, px.
pub const MAX_INPUT_PX: u32 = 8192;

/// How a film is brought to the input's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Both sides are scaled to fill the input; the aspect is not kept (the paper's classifier).
    Stretch,
    /// The aspect is kept; the film lies at the top left and zeros fill the right or lower rest.
    Letterbox,
}

impl Fit {
    /// `stretch`, `letterbox`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Letterbox => "letterbox",
        }
    }
}

/// The shape of a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSize {
    /// Height, px.
    pub height_px: u32,
    /// Width, px.
    pub width_px: u32,
    /// How films are brought to it.
    pub fit: Fit,
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} {}", self.height_px, self.width_px, self.fit.name())
    }
}

impl InputSize {
    /// Both sides are between 1 and [`MAX_INPUT_PX`].
    ///
    /// # Errors
    /// [`DataError::Setting`] when not.
    pub fn check(&self) -> Result<(), DataError> {
        let sides = 1..=MAX_INPUT_PX;
        if sides.contains(&self.height_px) && sides.contains(&self.width_px) {
            return Ok(());
        }
        Err(DataError::Setting {
            name: "input size",
            expected: "height and width from 1 to 8192 px",
            found: self.to_string(),
        })
    }

    /// Height and width, px, of the part of the input that a film of the given size covers.
    pub fn content_px(&self, film_height_px: u32, film_width_px: u32) -> (u32, u32) {
        match self.fit {
            Fit::Stretch => (self.height_px, self.width_px),
            Fit::Letterbox => {
                let (h, w) = (f64::from(film_height_px), f64::from(film_width_px));
                let scale = (f64::from(self.height_px) / h).min(f64::from(self.width_px) / w);
                let side = |px: f64, limit: u32| ((px * scale).round() as u32).clamp(1, limit);
                (side(h, self.height_px), side(w, self.width_px))
            }
        }
    }

    /// The map from a film of the given size to this input: the exact ratio of pixels, rounding of the
    /// letterbox included.
    pub fn map(&self, film_height_px: u32, film_width_px: u32) -> ResizeMap {
        let (h, w) = self.content_px(film_height_px, film_width_px);
        ResizeMap { sx: w as f32 / film_width_px as f32, sy: h as f32 / film_height_px as f32 }
    }
}

/// The map between film pixels and input pixels. Edges map to edges: there is no half-pixel shift.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResizeMap {
    /// Input px for one film px, along x.
    pub sx: f32,
    /// Input px for one film px, along y.
    pub sy: f32,
}

impl ResizeMap {
    /// A box in film px as one in input px.
    pub fn to_input(&self, film_box: &BoxXyxy) -> BoxXyxy {
        film_box.scale(self.sx, self.sy)
    }

    /// A box in input px as one in film px.
    pub fn to_film(&self, input_box: &BoxXyxy) -> BoxXyxy {
        BoxXyxy {
            x1: input_box.x1 / self.sx,
            y1: input_box.y1 / self.sy,
            x2: input_box.x2 / self.sx,
            y2: input_box.y2 / self.sy,
        }
    }
}

/// A box with its class, in input px: the only boxes of the project that are not in film px, alive between
/// the resize and its inverse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledBox {
    /// Class index in the data set's list, see [`spinexr_core::ClassList`].
    pub class: usize,
    /// Place, input px.
    pub xyxy: BoxXyxy,
}

/// A film at a network's input size.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedFilm {
    /// Height H, px.
    pub height: usize,
    /// Width W, px.
    pub width: usize,
    /// `[H, W]`, row-major; `0..=65535` stands for `0..=1`, bone bright.
    pub pixels: Vec<u16>,
    /// From film px to input px.
    pub map: ResizeMap,
    /// Height of the film itself, px.
    pub film_height_px: u32,
    /// Width of the film itself, px.
    pub film_width_px: u32,
}

impl PreparedFilm {
    /// Height and width, px, of the part of the input that the film covers; the rest is zero padding.
    pub fn content_px(&self) -> (usize, usize) {
        let side = |film_px: u32, scale: f32, limit: usize| {
            ((film_px as f32 * scale).round() as usize).clamp(1, limit.max(1))
        };
        (
            side(self.film_height_px, self.map.sy, self.height),
            side(self.film_width_px, self.map.sx, self.width),
        )
    }

    /// The pixels as `0..=1`, `[H, W]`.
    pub fn to_unit(&self) -> Vec<f32> {
        self.pixels.iter().map(|&v| f32::from(v) * (1.0 / 65535.0)).collect()
    }

    /// The film's boxes in input px: clipped to the film, those with a side under `min_side_px` (input px)
    /// dropped.
    ///
    /// # Errors
    /// [`UnknownLabel`] for a box of a class that is not of `classes`.
    pub fn input_boxes(
        &self,
        boxes: &[Annotation],
        classes: &ClassList,
        min_side_px: f32,
    ) -> Result<Vec<LabelledBox>, UnknownLabel> {
        let (w, h) = (self.film_width_px as f32, self.film_height_px as f32);
        let mut in_input = Vec::with_capacity(boxes.len());
        for b in boxes {
            let (class, xyxy) = (classes.index(&b.label)?, self.map.to_input(&b.xyxy.clip(w, h)));
            if xyxy.width() >= min_side_px && xyxy.height() >= min_side_px {
                in_input.push(LabelledBox { class, xyxy });
            }
        }
        Ok(in_input)
    }
}

/// Brings a film to `input`'s shape.
///
/// Display values of either policy become `0..=65535` (eight-bit values times 257).
///
/// # Panics
/// When the radiograph has no pixel, or not `height × width` of them, or a side of `input` is 0
/// (see [`InputSize::check`]): the reader gives no such film.
pub fn prepare_film(film: &Radiograph, input: &InputSize) -> PreparedFilm {
    let (film_h, film_w) = (film.height_px as usize, film.width_px as usize);
    let (content_h, content_w) = input.content_px(film.height_px, film.width_px);
    let size = Reduction {
        film_h,
        film_w,
        content_h: content_h as usize,
        content_w: content_w as usize,
        height: input.height_px as usize,
        width: input.width_px as usize,
    };
    let pixels = match &film.display {
        Display::U8(values) => size.run(values, 257.0),
        Display::F32(values) => size.run(values, 65535.0),
    };
    PreparedFilm {
        height: size.height,
        width: size.width,
        pixels,
        map: input.map(film.height_px, film.width_px),
        film_height_px: film.height_px,
        film_width_px: film.width_px,
    }
}

/// A display value as `f32`.
pub(crate) trait Sample: Copy {
    fn value(self) -> f32;
}

impl Sample for u8 {
    fn value(self) -> f32 {
        f32::from(self)
    }
}

impl Sample for u16 {
    fn value(self) -> f32 {
        f32::from(self)
    }
}

impl Sample for f32 {
    fn value(self) -> f32 {
        self
    }
}

/// The sizes of one reduction, px.
pub(crate) struct Reduction {
    pub(crate) film_h: usize,
    pub(crate) film_w: usize,
    pub(crate) content_h: usize,
    pub(crate) content_w: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Reduction {
    /// Rows first, then columns: the film is read once, row by row, and the row in hand stays in the
    /// processor's cache.
    pub(crate) fn run<S: Sample>(&self, values: &[S], to_u16: f32) -> Vec<u16> {
        assert!(self.film_h > 0 && self.film_w > 0, "a film has pixels");
        assert_eq!(values.len(), self.film_h * self.film_w, "height x width display values");
        let rows = taps(self.film_h, self.content_h);
        let columns = taps(self.film_w, self.content_w);
        let mut pixels = vec![0u16; self.height * self.width];
        let mut row = vec![0f32; self.film_w];
        for (out, tap) in pixels.chunks_exact_mut(self.width).zip(&rows) {
            weigh_rows(values, self.film_w, tap, &mut row);
            for (pixel, tap) in out.iter_mut().zip(&columns) {
                let span = &row[tap.first..tap.first + tap.weights.len()];
                // NaN saturates to 0 in the cast, as do values under 0; above, to 65535.
                *pixel = (dot(span, &tap.weights) * to_u16 + 0.5) as u16;
            }
        }
        pixels
    }
}

/// `row = sum of weights[i] * values[first + i]` over film rows, four rows at a time.
fn weigh_rows<S: Sample>(values: &[S], film_w: usize, tap: &Tap, row: &mut [f32]) {
    row.fill(0.0);
    let line = |i: usize| &values[(tap.first + i) * film_w..(tap.first + i + 1) * film_w];
    let mut i = 0;
    while i + 4 <= tap.weights.len() {
        let w = &tap.weights[i..i + 4];
        let (a, b, c, d) = (line(i), line(i + 1), line(i + 2), line(i + 3));
        for ((((sum, &a), &b), &c), &d) in row.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum += (a.value() * w[0] + b.value() * w[1]) + (c.value() * w[2] + d.value() * w[3]);
        }
        i += 4;
    }
    while i < tap.weights.len() {
        let weight = tap.weights[i];
        for (sum, &a) in row.iter_mut().zip(line(i)) {
            *sum += a.value() * weight;
        }
        i += 1;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The source samples of one output sample, with weights that sum to 1.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

/// Triangle-filter taps from `source` to `target` samples.
fn taps(source: usize, target: usize) -> Vec<Tap> {
    let scale = source as f64 / target as f64;
    let radius = scale.max(1.0);
    (0..target)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - radius + 0.5).floor().max(0.0) as usize).min(source - 1);
            let end = ((center + radius + 0.5).floor() as usize).clamp(first + 1, source);
            let weight = |s: usize| (1.0 - ((s as f64 + 0.5 - center) / radius).abs()).max(0.0);
            // Samples at the triangle's foot weigh nothing: left out, they cost nothing.
            let inside: Vec<usize> = (first..end).filter(|&s| weight(s) > 0.0).collect();
            let sum: f64 = inside.iter().map(|&s| weight(s)).sum();
            let weights = inside.iter().map(|&s| (weight(s) / sum) as f32).collect();
            Tap { first: inside[0], weights }
        })
        .collect()
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;

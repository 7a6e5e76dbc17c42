//! Box AutoAugment: the policy v2 of Zoph et al., "Learning Data Augmentation Strategies for Object Detection"
//! (arXiv 1906.11172), which the VinDr-SpineXR detectors were trained with.
//!
//! One of fifteen sub-policies is drawn for a film, and each of its operations is done with a probability of its
//! own. Deliberate deviations:
//! - A box keeps its label: the published VinDr code drops boxes that leave the frame and re-attaches labels by
//!   position.
//! - A box whose visible share falls under the bound goes; the others are clipped to the film.
//! - A film is grey: `Color` is drawn and changes nothing (see `grey_ops`).
//! - Lengths in pixels are those of a film whose shorter side is [`REFERENCE_SIDE_PX`], as the policy's authors'
//!   and VinDr's are, and follow the film's size: at a smaller input a shift of 250 px would empty the frame.
//!
//! What a change uncovers, and what is cut out, is mid grey; the letterbox around the film stays 0.

use crate::affine::{Affine, warp};
use crate::{LabelledBox, PreparedFilm, grey_ops};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Shorter side of a film, px, at which the policy's lengths in pixels hold.
pub const REFERENCE_SIDE_PX: f64 = 800.0;

/// Grey of what is uncovered or cut out: level 128 of 256.
const FILL: u16 = 128 * 257;

/// Which published policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoAugmentPolicy {
    /// Version 2 of the paper's code, 15 sub-policies.
    V2,
}

/// What is done to a film and its boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    AutoContrast,
    BoxCutout,
    Brightness,
    Color,
    Contrast,
    Cutout,
    Equalize,
    Rotate,
    Sharpness,
    ShearX,
    ShearY,
    Solarize,
    SolarizeAdd,
    TranslateY,
}

/// An operation with its probability and its level of 0 to 10.
type Step = (Operation, f64, f64);

use Operation::{
    AutoContrast, BoxCutout, Brightness, Color, Contrast, Cutout, Equalize, Rotate, Sharpness, ShearX,
    ShearY, Solarize, SolarizeAdd, TranslateY,
};

/// Policy v2.
const V2: [&[Step]; 15] = [
    &[(Color, 0.0, 6.0), (Cutout, 0.6, 8.0), (Sharpness, 0.4, 8.0)],
    &[(Rotate, 0.4, 8.0), (Sharpness, 0.4, 2.0), (Rotate, 0.8, 10.0)],
    &[(TranslateY, 1.0, 8.0), (AutoContrast, 0.8, 2.0)],
    &[(AutoContrast, 0.4, 6.0), (ShearX, 0.8, 8.0), (Brightness, 0.0, 10.0)],
    &[(SolarizeAdd, 0.2, 6.0), (Contrast, 0.0, 10.0), (AutoContrast, 0.6, 0.0)],
    &[(Cutout, 0.2, 0.0), (Solarize, 0.8, 8.0), (Color, 1.0, 4.0)],
    &[(TranslateY, 0.0, 4.0), (Equalize, 0.6, 8.0), (Solarize, 0.0, 10.0)],
    &[(TranslateY, 0.2, 2.0), (ShearY, 0.8, 8.0), (Rotate, 0.8, 8.0)],
    &[(Cutout, 0.8, 8.0), (Brightness, 0.8, 8.0), (Cutout, 0.2, 2.0)],
    &[(Color, 0.8, 4.0), (TranslateY, 1.0, 6.0), (Rotate, 0.6, 6.0)],
    &[(Rotate, 0.6, 10.0), (BoxCutout, 1.0, 4.0), (Cutout, 0.2, 8.0)],
    &[(Rotate, 0.0, 0.0), (Equalize, 0.6, 6.0), (ShearY, 0.6, 8.0)],
    &[(Brightness, 0.8, 8.0), (AutoContrast, 0.4, 2.0), (Brightness, 0.2, 2.0)],
    &[(TranslateY, 0.4, 8.0), (Solarize, 0.4, 6.0), (SolarizeAdd, 0.2, 10.0)],
    &[(Contrast, 1.0, 10.0), (SolarizeAdd, 0.2, 8.0), (Equalize, 0.2, 4.0)],
];

/// Changes a film by a sub-policy drawn from `policy`. Boxes (input px) move with the film; one of which less than
/// `min_visible` of its area stays on the film goes.
pub(crate) fn auto_augment(
    film: &mut PreparedFilm,
    boxes: &mut Vec<LabelledBox>,
    policy: AutoAugmentPolicy,
    min_visible: f32,
    rng: &mut impl Rng,
) {
    let steps = match policy {
        AutoAugmentPolicy::V2 => V2[rng.random_range(0..V2.len())],
    };
    let mut content = Content::of(film);
    for &(operation, probability, level) in steps {
        if rng.random::<f64>() < probability {
            content.apply(operation, level, boxes, min_visible, rng);
        }
    }
    content.put_back(film);
}

/// The film without its letterbox.
struct Content {
    pixels: Vec<u16>,
    height: usize,
    width: usize,
}

impl Content {
    fn of(film: &PreparedFilm) -> Self {
        let (height, width) = film.content_px();
        let rows = film.pixels.chunks_exact(film.width).take(height);
        Self { pixels: rows.flat_map(|row| &row[..width]).copied().collect(), height, width }
    }

    fn put_back(&self, film: &mut PreparedFilm) {
        let rows = film.pixels.chunks_exact_mut(film.width);
        for (row, changed) in rows.zip(self.pixels.chunks_exact(self.width)) {
            row[..self.width].copy_from_slice(changed);
        }
    }

    /// Input px for one of the policy's pixels.
    fn px(&self) -> f64 {
        self.height.min(self.width) as f64 / REFERENCE_SIDE_PX
    }

    fn apply(
        &mut self,
        operation: Operation,
        level: f64,
        boxes: &mut Vec<LabelledBox>,
        min_visible: f32,
        rng: &mut impl Rng,
    ) {
        let share = level / 10.0;
        let factor = 0.1 + 1.8 * share; // of the enhancers; 1 changes nothing
        let mut signed = |size: f64| if rng.random::<bool>() { size } else { -size };
        match operation {
            Color => {}
            AutoContrast => grey_ops::auto_contrast(&mut self.pixels),
            Equalize => grey_ops::equalise(&mut self.pixels),
            Brightness => grey_ops::brightness(&mut self.pixels, factor),
            Contrast => grey_ops::contrast(&mut self.pixels, factor),
            Sharpness => grey_ops::sharpness(&mut self.pixels, self.width, factor),
            Solarize => grey_ops::solarise(&mut self.pixels, 256.0 * share),
            SolarizeAdd => grey_ops::solarise_add(&mut self.pixels, 110.0 * share),
            Cutout => self.cut_out(100.0 * share * self.px(), rng),
            BoxCutout => self.cut_out_of_a_box(0.75 * share, boxes, rng),
            Rotate => self.transform(rotation(signed(30.0 * share), self), boxes, min_visible),
            ShearX => self.transform(Affine { b: signed(0.3 * share), ..IDENTITY }, boxes, min_visible),
            ShearY => self.transform(Affine { d: signed(0.3 * share), ..IDENTITY }, boxes, min_visible),
            TranslateY => {
                let f = signed(250.0 * share * self.px());
                self.transform(Affine { f, ..IDENTITY }, boxes, min_visible);
            }
        }
    }

    fn transform(&mut self, forward: Affine, boxes: &mut Vec<LabelledBox>, min_visible: f32) {
        let mut changed = vec![FILL; self.pixels.len()];
        let content = (self.height, self.width);
        warp(&self.pixels, &mut changed, self.width, content, &forward.inverse(), |_, _| {});
        self.pixels = changed;
        boxes.retain_mut(|b| {
            let whole = forward.around(&b.xyxy);
            b.xyxy = whole.clip(self.width as f32, self.height as f32);
            b.xyxy.is_proper() && b.xyxy.area() >= min_visible * whole.area()
        });
    }

    /// Fills a square of twice `half_side` px about a pixel drawn from the whole film.
    fn cut_out(&mut self, half_side: f64, rng: &mut impl Rng) {
        let (x, y) = (rng.random_range(0..self.width), rng.random_range(0..self.height));
        self.fill_around((x as f64, y as f64), half_side, half_side);
    }

    /// Fills, about a pixel drawn from a drawn box, a rectangle of `share` of the box's sides.
    fn cut_out_of_a_box(&mut self, share: f64, boxes: &[LabelledBox], rng: &mut impl Rng) {
        if boxes.is_empty() {
            return;
        }
        let b = boxes[rng.random_range(0..boxes.len())].xyxy;
        let mut inside = |from: f32, size: f32| f64::from(from) + rng.random::<f64>() * f64::from(size);
        let place = (inside(b.x1, b.width()).floor(), inside(b.y1, b.height()).floor());
        self.fill_around(place, share * f64::from(b.width()) / 2.0, share * f64::from(b.height()) / 2.0);
    }

    fn fill_around(&mut self, (x, y): (f64, f64), half_width: f64, half_height: f64) {
        // The casts saturate at 0.
        let columns = (x - half_width).round() as usize..((x + half_width).round() as usize).min(self.width);
        let rows = (y - half_height).round() as usize..((y + half_height).round() as usize).min(self.height);
        for row in self.pixels.chunks_exact_mut(self.width).take(rows.end).skip(rows.start) {
            if let Some(run) = row.get_mut(columns.clone()) {
                run.fill(FILL);
            }
        }
    }
}

const IDENTITY: Affine = Affine { a: 1.0, b: 0.0, c: 0.0, d: 0.0, e: 1.0, f: 0.0 };

/// A turn about the film's middle.
fn rotation(angle_deg: f64, content: &Content) -> Affine {
    let (sin, cos) = angle_deg.to_radians().sin_cos();
    let (cx, cy) = (content.width as f64 / 2.0, content.height as f64 / 2.0);
    Affine { a: cos, b: -sin, c: cx - cos * cx + sin * cy, d: sin, e: cos, f: cy - sin * cx - cos * cy }
}

#[cfg(test)]
#[path = "auto_augment_tests.rs"]
mod tests;

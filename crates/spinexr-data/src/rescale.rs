//! A prepared film at another input size: training at several sizes, mosaics, and test-time scales.
//!
//! Every size is made from the one that was prepared, by the same triangle filter. Preparing each size would
//! multiply the cache on the disk, its checksums and the hash that names a run's films; a film reduced twice differs
//! from one reduced once by less than the noise that augmentation adds, so long as the prepared size is the largest
//! of training.

use crate::resize::Reduction;
use crate::{InputSize, PreparedFilm};
use std::borrow::Cow;

/// Sides that are multiples of this stay multiples: the strides of the networks' coarsest maps.
const SIDE_STEP_PX: u32 = 32;

impl InputSize {
    /// The input with both sides times `share`, to the nearest multiple of 32 where the side is one.
    pub fn scaled(&self, share: f32) -> Self {
        let side = |px: u32| {
            let wanted = f64::from(px) * f64::from(share);
            match px.is_multiple_of(SIDE_STEP_PX) {
                true => SIDE_STEP_PX * ((wanted / f64::from(SIDE_STEP_PX)).round() as u32).max(1),
                false => (wanted.round() as u32).max(1),
            }
        };
        Self { height_px: side(self.height_px), width_px: side(self.width_px), fit: self.fit }
    }
}

impl PreparedFilm {
    /// The film mirrored left to right in its place; the letterbox stays where it is.
    pub fn mirrored(&self) -> Self {
        let (height, width) = self.content_px();
        let mut mirrored = self.clone();
        for row in mirrored.pixels.chunks_exact_mut(self.width).take(height) {
            row[..width].reverse();
        }
        mirrored
    }

    /// The film at another input size, as [`crate::prepare_film`] would bring it there but for being resized twice.
    pub fn at(&self, input: &InputSize) -> Cow<'_, Self> {
        let (height, width) = (input.height_px as usize, input.width_px as usize);
        let (film_h, film_w) = self.content_px();
        let (content_h, content_w) = input.content_px(self.film_height_px, self.film_width_px);
        let (content_h, content_w) = (content_h as usize, content_w as usize);
        if (self.height, self.width, film_h, film_w) == (height, width, content_h, content_w) {
            return Cow::Borrowed(self);
        }
        let rows = self.pixels.chunks_exact(self.width).take(film_h);
        let content: Vec<u16> = rows.flat_map(|row| &row[..film_w]).copied().collect();
        let size = Reduction { film_h, film_w, content_h, content_w, height, width };
        Cow::Owned(Self {
            height,
            width,
            pixels: size.run(&content, 1.0),
            map: input.map(self.film_height_px, self.film_width_px),
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare_film;
    use crate::resize::Fit;
    use crate::test_films::{pattern, radiograph};
    use spinexr_dicom::Display;

    fn smooth(height: u32, width: u32) -> spinexr_dicom::Radiograph {
        let pixels = (0..height * width).map(|i| {
            let (x, y) = ((i % width) as f32 / width as f32, (i / width) as f32 / height as f32);
            0.5 + 0.3 * (5.0 * x).sin() * (7.0 * y).cos()
        });
        radiograph(height, width, Display::F32(pixels.collect()))
    }

    #[test]
    fn sides_follow_the_share() {
        let input = InputSize { height_px: 384, width_px: 250, fit: Fit::Letterbox };
        let scaled = input.scaled(0.7);
        assert_eq!((scaled.height_px, scaled.width_px), (256, 175)); // 268.8 lies nearer to 256 than to 288
        assert_eq!(input.scaled(1.0), input);
        assert_eq!(input.scaled(0.001).height_px, 32);
    }

    #[test]
    fn the_same_size_is_the_same_film() {
        let input = InputSize { height_px: 32, width_px: 40, fit: Fit::Letterbox };
        let film = prepare_film(&radiograph(50, 30, Display::U8(pattern(50, 30, 1))), &input);
        assert!(matches!(film.at(&input), Cow::Borrowed(_)));
    }

    #[test]
    fn a_film_resized_twice_is_near_one_resized_once() {
        for fit in [Fit::Letterbox, Fit::Stretch] {
            let input = InputSize { height_px: 96, width_px: 64, fit };
            let film = smooth(230, 171);
            let prepared = prepare_film(&film, &input);
            for share in [0.5, 0.67, 1.34] {
                let other = input.scaled(share);
                let (twice, once) = (prepared.at(&other), prepare_film(&film, &other));
                assert_eq!((twice.height, twice.width, twice.map), (once.height, once.width, once.map));
                assert_eq!(twice.content_px(), once.content_px());
                // Near the border, where fewer samples are under the filter, the two differ most.
                let differs = twice.pixels.iter().zip(&once.pixels).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(differs.unwrap() < 1600, "{fit:?} {share}: {differs:?}");
            }
        }
    }
}

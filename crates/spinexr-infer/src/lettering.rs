//! Text and rectangles on pictures.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// A colour.
pub(crate) type Colour = Rgb<u8>;

/// A rectangle of whole picture px, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub x: i64,
    pub y: i64,
    pub width: i64,
    pub height: i64,
}

impl Area {
    pub(crate) fn right(&self) -> i64 {
        self.x + self.width
    }

    pub(crate) fn bottom(&self) -> i64 {
        self.y + self.height
    }

    /// Px² shared with `other`.
    pub(crate) fn overlap(&self, other: &Self) -> i64 {
        let w = self.right().min(other.right()) - self.x.max(other.x);
        let h = self.bottom().min(other.bottom()) - self.y.max(other.y);
        w.max(0) * h.max(0)
    }

    /// Smaller by `n` px on every side.
    pub(crate) fn shrink(&self, n: i64) -> Self {
        Self { x: self.x + n, y: self.y + n, width: self.width - 2 * n, height: self.height - 2 * n }
    }
}

/// A type size: one of the four that the font is drawn in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypeSize {
    raster: RasterHeight,
    weight: FontWeight,
}

impl TypeSize {
    /// The largest size whose lines are at most `line_px` high.
    pub(crate) fn at_most(line_px: u32, bold: bool) -> Self {
        let raster = match line_px {
            0..20 => RasterHeight::Size16,
            20..24 => RasterHeight::Size20,
            24..32 => RasterHeight::Size24,
            _ => RasterHeight::Size32,
        };
        Self { raster, weight: if bold { FontWeight::Bold } else { FontWeight::Regular } }
    }

    pub(crate) fn line_px(self) -> i64 {
        self.raster.val() as i64
    }

    /// Width of `text` on one line, px.
    pub(crate) fn width_px(self, text: &str) -> i64 {
        (get_raster_width(self.weight, self.raster) * text.chars().count()) as i64
    }

    /// Breaks `text` at spaces into lines of at most `width_px`; a longer word is broken where it must.
    pub(crate) fn wrap(self, text: &str, width_px: i64) -> Vec<String> {
        let columns = (width_px / self.width_px("m")).max(1) as usize;
        let mut lines: Vec<String> = vec![];
        for word in text.split_whitespace() {
            let mut letters: Vec<char> = word.chars().collect();
            while !letters.is_empty() {
                let part: String = letters.drain(..letters.len().min(columns)).collect();
                match lines.last_mut() {
                    Some(line) if line.chars().count() + 1 + part.chars().count() <= columns => {
                        line.push(' ');
                        line.push_str(&part);
                    }
                    _ => lines.push(part),
                }
            }
        }
        lines
    }
}

/// Lays `colour` over an area; `opacity` 0 to 1. What lies outside the picture is left out.
pub(crate) fn fill(picture: &mut RgbImage, area: Area, colour: Colour, opacity: f32) {
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    for y in area.y.max(0)..area.bottom().min(height) {
        for x in area.x.max(0)..area.right().min(width) {
            blend(picture, x, y, colour, opacity);
        }
    }
}

/// A frame of `line_px` inside the edges of an area; dashed when `dash_px` is given.
pub(crate) fn frame(picture: &mut RgbImage, area: Area, line_px: i64, colour: Colour, dash_px: Option<i64>) {
    let on = |along: i64| dash_px.is_none_or(|dash| along.rem_euclid(2 * dash) < dash);
    for x in area.x..area.right() {
        if on(x - area.x) {
            for y in [area.y, area.bottom() - line_px] {
                fill(picture, Area { x, y, width: 1, height: line_px }, colour, 1.0);
            }
        }
    }
    for y in area.y..area.bottom() {
        if on(y - area.y) {
            for x in [area.x, area.right() - line_px] {
                fill(picture, Area { x, y, width: line_px, height: 1 }, colour, 1.0);
            }
        }
    }
}

/// Writes one line with its top left corner at `(x, y)`. A letter the font lacks becomes `?`.
pub(crate) fn write_line(picture: &mut RgbImage, x: i64, y: i64, text: &str, size: TypeSize, colour: Colour) {
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    let mut left = x;
    for letter in text.chars() {
        let glyph = get_raster(letter, size.weight, size.raster)
            .or_else(|| get_raster('?', size.weight, size.raster))
            .expect("the font has the question mark");
        for (row, line) in glyph.rows().enumerate() {
            for (column, &ink) in line.iter().enumerate() {
                let (px, py) = (left + column as i64, y + row as i64);
                if ink > 0 && (0..width).contains(&px) && (0..height).contains(&py) {
                    blend(picture, px, py, colour, f32::from(ink) / 255.0);
                }
            }
        }
        left += glyph.width() as i64;
    }
}

fn blend(picture: &mut RgbImage, x: i64, y: i64, colour: Colour, opacity: f32) {
    let pixel = picture.get_pixel_mut(x as u32, y as u32);
    for (under, over) in pixel.0.iter_mut().zip(colour.0) {
        let mixed = f32::from(*under) + (f32::from(over) - f32::from(*under)) * opacity;
        *under = mixed.round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_loses_no_letter_and_keeps_the_width() {
        let size = TypeSize::at_most(16, false);
        let text = "AI result - research only - not for clinical use averyverylongword";
        let width = size.width_px("123456789012");
        let lines = size.wrap(text, width);
        assert!(lines.len() > 3 && lines.iter().all(|l| size.width_px(l) <= width), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }

    #[test]
    fn drawing_outside_is_left_out() {
        let mut picture = RgbImage::new(10, 10);
        let red = Rgb([255, 0, 0]);
        fill(&mut picture, Area { x: -5, y: -5, width: 100, height: 7 }, red, 1.0);
        frame(&mut picture, Area { x: 4, y: 4, width: 400, height: 400 }, 2, red, Some(3));
        write_line(&mut picture, -3, -3, "Wä", TypeSize::at_most(16, true), red);
        assert_eq!(*picture.get_pixel(0, 0), red);
        assert_eq!(picture.get_pixel(0, 3).0[1], 0);
    }
}

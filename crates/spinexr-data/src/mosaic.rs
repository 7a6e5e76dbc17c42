//! Mosaic: four films in the quarters of one input, so that a batch shows four times as many findings, at other
//! sizes and places.
//!
//! Source: Bochkovskiy et al., "YOLOv4" (arXiv 2004.10934), section 3.3. Deviation: each film is reduced to its
//! quarter whole, in place of being cropped there, because what surrounds a vertebra tells which it is.

use crate::example::{Example, MIN_BOX_PX};
use crate::{Fit, InputSize, LabelledBox, PreparedFilm, ResizeMap};
use rand::{Rng, RngExt};

/// The meeting point of the four films lies between these shares of each side.
const MIDDLE: std::ops::Range<f64> = 0.35..0.65;

/// The four films in one of the first one's input size; upper left, upper right, lower left, lower right.
pub(crate) fn mosaic(parts: &[Example; 4], rng: &mut impl Rng) -> Example {
    let (height, width) = (parts[0].film.height, parts[0].film.width);
    let mut split = |side: usize| match side {
        0 | 1 => side,
        _ => ((side as f64 * rng.random_range(MIDDLE)).round() as usize).clamp(1, side - 1),
    };
    let (middle_y, middle_x) = (split(height), split(width));
    let mut pixels = vec![0u16; height * width];
    let mut boxes: Vec<LabelledBox> = vec![];
    for (i, part) in parts.iter().enumerate() {
        let (top, rows) = if i < 2 { (0, middle_y) } else { (middle_y, height - middle_y) };
        let (left, columns) = if i % 2 == 0 { (0, middle_x) } else { (middle_x, width - middle_x) };
        if rows == 0 || columns == 0 {
            continue; // an input of one pixel has one quarter
        }
        let quarter = InputSize { height_px: rows as u32, width_px: columns as u32, fit: Fit::Letterbox };
        let small = part.film.at(&quarter);
        for (y, row) in small.pixels.chunks_exact(columns).enumerate() {
            pixels[(top + y) * width + left..][..columns].copy_from_slice(row);
        }
        let ((old_h, old_w), (new_h, new_w)) = (part.film.content_px(), small.content_px());
        let (sx, sy) = (new_w as f32 / old_w as f32, new_h as f32 / old_h as f32);
        let moved = part
            .boxes
            .iter()
            .map(|b| LabelledBox { xyxy: b.xyxy.scale(sx, sy).translate(left as f32, top as f32), ..*b });
        boxes.extend(moved.filter(|b| b.xyxy.width() >= MIN_BOX_PX && b.xyxy.height() >= MIN_BOX_PX));
    }
    Example {
        // A picture of its own that fills the input.
        film: PreparedFilm {
            height,
            width,
            pixels,
            map: ResizeMap { sx: 1.0, sy: 1.0 },
            film_height_px: height as u32,
            film_width_px: width as u32,
        },
        boxes,
        abnormal: parts.iter().any(|p| p.abnormal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::item_rng;
    use spinexr_core::BoxXyxy;

    /// 120 × 80 px of film in a 120 × 100 letterbox, with a rectangle of the grey `bright`.
    fn example(bright: u16, b: BoxXyxy, class: usize) -> Example {
        let pixels = (0..120 * 100)
            .map(|i| {
                let (x, y) = ((i % 100) as f32 + 0.5, (i / 100) as f32 + 0.5);
                let inside = x > b.x1 && x < b.x2 && y > b.y1 && y < b.y2;
                if x > 80.0 {
                    0
                } else if inside {
                    bright
                } else {
                    4000
                }
            })
            .collect();
        let map = ResizeMap { sx: 0.5, sy: 0.5 };
        let film =
            PreparedFilm { height: 120, width: 100, pixels, map, film_height_px: 240, film_width_px: 160 };
        Example { film, boxes: vec![LabelledBox { class, xyxy: b }], abnormal: class == 3 }
    }

    #[test]
    fn every_box_lies_on_its_own_content() {
        let rectangles = [
            BoxXyxy::new(10.0, 20.0, 50.0, 80.0),
            BoxXyxy::new(30.0, 10.0, 70.0, 60.0),
            BoxXyxy::new(0.0, 60.0, 40.0, 120.0),
            BoxXyxy::new(20.0, 40.0, 60.0, 100.0),
        ];
        let greys = [60_000, 50_000, 40_000, 30_000];
        let parts: [Example; 4] = std::array::from_fn(|i| example(greys[i], rectangles[i], i));
        for draw in 0..10 {
            let made = mosaic(&parts, &mut item_rng(2, draw));
            assert_eq!((made.film.height, made.film.width, made.film.content_px()), (120, 100, (120, 100)));
            assert!(made.abnormal, "one of the four is");
            assert_eq!(made.boxes.iter().map(|b| b.class).collect::<Vec<_>>(), [0, 1, 2, 3]);
            for b in &made.boxes {
                // The grey of this rectangle and no other, up to what the filter mixes at its edges.
                let near = |v: u16| v.abs_diff(greys[b.class]) < 1500;
                let mut seen: Option<BoxXyxy> = None;
                for (i, _) in made.film.pixels.iter().enumerate().filter(|(_, v)| near(**v)) {
                    let (x, y) = ((i % 100) as f32, (i / 100) as f32);
                    let pixel = BoxXyxy::new(x, y, x + 1.0, y + 1.0);
                    let (cx, cy) = pixel.center();
                    // Edges of brighter rectangles pass through this grey too: look around this box only.
                    let around = (b.xyxy.x1 - 3.0..b.xyxy.x2 + 3.0).contains(&cx)
                        && (b.xyxy.y1 - 3.0..b.xyxy.y2 + 3.0).contains(&cy);
                    if around {
                        seen = Some(seen.map_or(pixel, |s| s.union(&pixel)));
                    }
                }
                let seen = seen.expect("the rectangle is there");
                for (edge, found) in <[f32; 4]>::from(b.xyxy).into_iter().zip(<[f32; 4]>::from(seen)) {
                    assert!((edge - found).abs() <= 1.5, "draw {draw}: {:?} around {seen:?}", b.xyxy);
                }
            }
        }
        assert_eq!(mosaic(&parts, &mut item_rng(2, 1)), mosaic(&parts, &mut item_rng(2, 1)));
        assert_ne!(mosaic(&parts, &mut item_rng(2, 1)), mosaic(&parts, &mut item_rng(2, 2)));
    }
}

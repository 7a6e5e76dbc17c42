//! The picture of an explanation: the film with the evidence for "abnormal", and beside it the film with its boxes and
//! what spoke for each of them.

use crate::explain::{Explanation, FilmMap};
use crate::overlay::{INK, OverlayOptions, class_colour, display_picture, render_tinted};
use image::{GrayImage, Rgb, RgbImage, Rgba, RgbaImage};
use spinexr_core::{BoxXyxy, Detection, FilmPrediction};
use spinexr_dicom::Radiograph;

/// Shares of the peak below this leave the film as it is.
const FAINT: f32 = 0.08;
/// How much of the film the strongest evidence covers.
const STRONGEST: f32 = 0.62;
/// Px between the two halves.
const GAP_PX: u32 = 6;

/// A share of the peak as a colour: dark red over orange to pale yellow, lighter the stronger, so that it reads without
/// hue as well.
fn heat(share: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 4] =
        [[90.0, 8.0, 70.0], [190.0, 35.0, 60.0], [250.0, 130.0, 30.0], [255.0, 240.0, 150.0]];
    let at = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let (low, part) = ((at as usize).min(STOPS.len() - 2), at - at.floor().min((STOPS.len() - 2) as f32));
    [0, 1, 2].map(|i| STOPS[low][i] + part * (STOPS[low + 1][i] - STOPS[low][i]))
}

/// How much of what lies under it a share of the peak covers.
fn cover(share: f32) -> f32 {
    STRONGEST * ((share - FAINT) / (1.0 - FAINT)).clamp(0.0, 1.0).powf(0.7)
}

/// Grey under a colour that covers it the more, the larger `share` is.
fn tint(grey: u8, colour: [f32; 3], share: f32) -> Rgb<u8> {
    let cover = cover(share);
    Rgb(colour.map(|c| (f32::from(grey) * (1.0 - cover) + c * cover).round() as u8))
}

/// A film picture of any scale, tinted by a map.
pub fn tinted(film: &GrayImage, map: &FilmMap) -> RgbImage {
    let peak = map.peak();
    let (width, height) = (film.width() as f32, film.height() as f32);
    RgbImage::from_fn(film.width(), film.height(), |x, y| {
        let share = map.share_at((x as f32 + 0.5) / width, (y as f32 + 0.5) / height, peak);
        tint(film.get_pixel(x, y).0[0], heat(share), share)
    })
}

/// A map alone, to be laid over a film of any scale: a pixel for each of its cells, clear where nothing speaks.
pub fn veil(map: &FilmMap) -> RgbaImage {
    let peak = map.peak();
    RgbaImage::from_fn(map.width as u32, map.height as u32, |x, y| {
        let value = map.values[y as usize * map.width + x as usize];
        let share = if peak > 0.0 { value / peak } else { 0.0 };
        let [r, g, b] = heat(share).map(|c| c.round() as u8);
        Rgba([r, g, b, (cover(share) * 255.0).round() as u8])
    })
}

/// What spoke for each of some boxes, in the colour of its class; where several speak, the strongest is seen.
#[derive(Debug)]
pub struct BoxEvidence<'a>(Vec<OfBox<'a>>);

#[derive(Debug)]
struct OfBox<'a> {
    xyxy: BoxXyxy,
    colour: [u8; 3],
    map: &'a FilmMap,
    peak: f32,
}

impl<'a> BoxEvidence<'a> {
    /// Of those of the boxes `shown` that the explanation knows; `None` when it knows none.
    pub fn of<'b>(
        shown: impl IntoIterator<Item = &'b Detection>,
        explanation: &'a Explanation,
    ) -> Option<Self> {
        let of_box = |b: &Detection| {
            let map = explanation.of_box(b)?;
            Some(OfBox { xyxy: b.xyxy, colour: class_colour(&b.label), map, peak: map.peak() })
        };
        let boxes: Vec<OfBox<'_>> = shown.into_iter().filter_map(of_box).collect();
        (!boxes.is_empty()).then_some(Self(boxes))
    }

    /// Share of a box's peak, and its colour, at a place of the film, `x` and `y` in `0..=1`.
    fn at(&self, x: f32, y: f32) -> (f32, [f32; 3]) {
        let of_boxes = self.0.iter().map(|b| (b.map.share_at(x, y, b.peak), b.colour.map(f32::from)));
        of_boxes.max_by(|a, b| a.0.total_cmp(&b.0)).expect("there is at least one box")
    }

    /// A film picture, tinted, with the boxes drawn; `scale`: px of the picture a film px, horizontally and vertically.
    pub fn tinted(&self, film: &GrayImage, scale: [f32; 2]) -> RgbImage {
        let (width, height) = (film.width() as f32, film.height() as f32);
        let mut picture = RgbImage::from_fn(film.width(), film.height(), |x, y| {
            let (share, colour) = self.at((x as f32 + 0.5) / width, (y as f32 + 0.5) / height);
            tint(film.get_pixel(x, y).0[0], colour, share)
        });
        for b in &self.0 {
            let last = |side: u32| side.saturating_sub(1) as f32;
            let drawn = b.xyxy.scale(scale[0], scale[1]).clip(last(film.width()), last(film.height()));
            let [left, top, right, bottom] =
                [drawn.x1, drawn.y1, drawn.x2, drawn.y2].map(|v| v.round() as u32);
            let level = (left..=right).flat_map(|x| [(x, top), (x, bottom)]);
            let upright = (top..=bottom).flat_map(|y| [(left, y), (right, y)]);
            for (x, y) in level.chain(upright) {
                picture.put_pixel(x, y, Rgb(b.colour));
            }
        }
        picture
    }

    /// The evidence alone, to be laid over a film of any scale, as [`veil`].
    pub fn veil(&self) -> RgbaImage {
        let FilmMap { height, width, .. } = *self.0[0].map;
        RgbaImage::from_fn(width as u32, height as u32, |x, y| {
            let (share, colour) = self.at((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
            let [r, g, b] = colour.map(|c| c as u8);
            Rgba([r, g, b, (cover(share) * 255.0).round() as u8])
        })
    }
}

/// The picture; a half that has nothing to show (no classifier, or no box with an explanation) is left out, and with
/// neither the film with its boxes is shown.
pub fn render(
    film: &Radiograph,
    prediction: &FilmPrediction,
    explanation: &Explanation,
    options: &OverlayOptions,
) -> RgbImage {
    let film = display_picture(film);
    let shown = prediction.boxes.iter().filter(|b| b.score >= options.min_score);
    let evidence = BoxEvidence::of(shown, explanation);
    let mut halves = vec![];
    if let Some(map) = &explanation.abnormal {
        let peak = map.peak();
        let note = match peak > 0.0 {
            true => format!("colour: what spoke for abnormal (Grad-CAM), strongest {peak:.2} logit a place"),
            false => "nothing on the film spoke for abnormal (Grad-CAM)".to_owned(),
        };
        let options = OverlayOptions { notes: vec![note], show_boxes: false, ..options.clone() };
        halves.push(render_tinted(&film, prediction, &options, |x, y, grey| {
            let share = map.share_at(x, y, peak);
            tint(grey, heat(share), share)
        }));
    }
    if evidence.is_some() || halves.is_empty() {
        let note = "colour: what spoke for each box at its place (gradient x activation)";
        let notes = evidence.iter().map(|_| note.to_owned()).collect();
        let options = OverlayOptions { notes, ..options.clone() };
        halves.push(render_tinted(&film, prediction, &options, |x, y, grey| match &evidence {
            Some(evidence) => {
                let (share, colour) = evidence.at(x, y);
                tint(grey, colour, share)
            }
            None => Rgb([grey; 3]),
        }));
    }
    beside(&halves)
}

/// Pictures from left to right.
fn beside(pictures: &[RgbImage]) -> RgbImage {
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(1);
    let gaps = GAP_PX * (pictures.len().max(1) as u32 - 1);
    let width = pictures.iter().map(RgbImage::width).sum::<u32>() + gaps;
    let mut all = RgbImage::from_pixel(width.max(1), height, INK);
    let mut x = 0;
    for picture in pictures {
        image::imageops::replace(&mut all, picture, x, 0);
        x += i64::from(picture.width() + GAP_PX);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::ExplainedBox;
    use spinexr_core::Finding;

    #[test]
    fn stronger_evidence_is_lighter_and_covers_more() {
        let light = |c: [f32; 3]| 0.3 * c[0] + 0.6 * c[1] + 0.1 * c[2];
        let shares: Vec<f32> = (0..=20).map(|i| i as f32 / 20.0).collect();
        assert!(shares.windows(2).all(|w| light(heat(w[0])) < light(heat(w[1]))));
        assert_eq!(tint(100, heat(0.05), 0.05), Rgb([100; 3]), "faint evidence leaves the film as it is");
        let Rgb([r, _, b]) = tint(100, heat(1.0), 1.0);
        assert!(r > 180 && r > b);
    }

    #[test]
    fn a_film_is_tinted_where_the_map_is() {
        let film = GrayImage::from_pixel(40, 60, image::Luma([80]));
        let mut values = vec![0.0; 6];
        values[4] = 2.0; // the middle of three rows is 2 and 3, the last 4 and 5
        let picture = tinted(&film, &FilmMap { height: 3, width: 2, values });
        for (x, y, pixel) in picture.enumerate_pixels() {
            let coloured = x < 20 && y >= 40;
            assert_eq!(pixel.0 != [80; 3], coloured, "{x}, {y}");
        }
    }

    #[test]
    fn a_veil_over_a_film_is_its_tint() {
        let values = vec![0.0, 0.1, 0.5, 2.0, 1.0, 0.2];
        let map = FilmMap { height: 3, width: 2, values };
        let film = GrayImage::from_pixel(2, 3, image::Luma([80]));
        for ((x, y, tinted), Rgba([r, g, b, a])) in
            tinted(&film, &map).enumerate_pixels().zip(veil(&map).pixels())
        {
            let alpha = f32::from(*a) / 255.0;
            for (whole, part) in tinted.0.iter().zip([r, g, b]) {
                let laid = 80.0 * (1.0 - alpha) + f32::from(*part) * alpha;
                assert!((laid - f32::from(*whole)).abs() < 1.5, "{x}, {y}: {laid} {whole}");
            }
        }
        let nothing = veil(&FilmMap { height: 1, width: 1, values: vec![0.0] });
        assert_eq!(nothing.get_pixel(0, 0).0[3], 0);
    }

    #[test]
    fn boxes_are_tinted_in_the_colours_of_their_classes() {
        let film = GrayImage::from_pixel(40, 60, image::Luma([80]));
        let explained = |class: Finding, xyxy: [f32; 4], cell: usize, value: f32| {
            let mut values = vec![0.0; 6];
            values[cell] = value;
            let found = Detection { label: class.label(), score: 0.5, xyxy: BoxXyxy::from(xyxy) };
            ExplainedBox { found, map: FilmMap { height: 3, width: 2, values } }
        };
        let (one, other) = (Finding::Osteophytes, Finding::SurgicalImplant);
        let boxes = vec![
            explained(one, [10.0, 10.0, 70.0, 30.0], 0, 2.0),
            explained(other, [90.0, 90.0, 150.0, 110.0], 5, 9.0),
        ];
        let explanation = Explanation { abnormal: None, boxes };
        let shown = explanation.boxes.iter().map(|b| &b.found);
        let evidence = BoxEvidence::of(shown, &explanation).expect("both boxes are known");
        // The film is 160 × 240 px.
        let picture = evidence.tinted(&film, [0.25, 0.25]);
        assert_eq!(picture.get_pixel(3, 5).0, class_colour(&one.label()), "a box's left side");
        assert_eq!(picture.get_pixel(30, 28).0, class_colour(&other.label()), "a box's lower side");
        assert_eq!(picture.get_pixel(30, 5).0, [80; 3], "nothing speaks here");
        let share = cover(1.0);
        for (class, x, y) in [(one, 15, 15), (other, 30, 50)] {
            let colour = class_colour(&class.label()).map(f32::from);
            assert_eq!(picture.get_pixel(x, y).0, tint(80, colour, 1.0).0, "{x}, {y}");
            let Rgba([r, g, b, a]) = *evidence.veil().get_pixel(x / 20, y / 20);
            assert_eq!(([r, g, b], a), (class_colour(&class.label()), (share * 255.0).round() as u8));
        }
        let elsewhere =
            Detection { label: one.label(), score: 0.5, xyxy: BoxXyxy::from([90.0, 90.0, 150.0, 110.0]) };
        assert!(BoxEvidence::of([&elsewhere], &explanation).is_none(), "a box that nothing is known of");
    }
}

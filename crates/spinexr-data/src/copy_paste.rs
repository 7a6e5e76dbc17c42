//! Copy-paste of rare findings: a marked finding of another training film, with some of its surroundings, blended in
//! at about the place it had there.
//!
//! Source: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation"
//! (arXiv 2012.07177). Deviations: findings have boxes and no masks, so a patch is a rectangle whose margin fades
//! into the film; its grey is shifted to that of the place; the place is anatomical (the same part of the film),
//! since a foramen does not lie on a vertebral corner.

use crate::{LabelledBox, example::Example};
use rand::{Rng, RngExt};
use spinexr_core::{BoxXyxy, ClassList, FilmAnnotation, Label};

/// Margin about the box that fades out, as a share of each of its sides.
const MARGIN: f32 = 0.2;
/// How far the place may differ from the one on the other film, as a share of the film's sides.
const JITTER: f32 = 0.1;
/// Places tried before the film is left as it is.
const TRIES: usize = 8;
/// Most of a marked box that a patch may cover.
const MAX_COVERED: f32 = 0.2;

/// Where the rare findings of the training films are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Donors {
    /// For each rare class that is there, its boxes as (film, box).
    by_class: Vec<Vec<(usize, usize)>>,
}

impl Donors {
    /// The classes on less than the share `below` of `films`.
    pub(crate) fn new(films: &[FilmAnnotation], classes: &ClassList, below: f32) -> Self {
        let of_class = |label: &Label| {
            let mut boxes = vec![];
            let mut films_with = 0usize;
            for (film, annotation) in films.iter().enumerate() {
                let before = boxes.len();
                let here = annotation.boxes.iter().enumerate().filter(|(_, b)| b.label == *label);
                boxes.extend(here.map(|(i, _)| (film, i)));
                films_with += usize::from(boxes.len() > before);
            }
            let rare = (films_with as f32) < below * films.len() as f32;
            (rare && !boxes.is_empty()).then_some(boxes)
        };
        Self { by_class: classes.labels().iter().filter_map(of_class).collect() }
    }

    /// A film and one of its boxes: every rare class is as likely as every other.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Option<(usize, usize)> {
        if self.by_class.is_empty() {
            return None;
        }
        let boxes = &self.by_class[rng.random_range(0..self.by_class.len())];
        Some(boxes[rng.random_range(0..boxes.len())])
    }
}

/// Blends the finding `found` of `donor` into `target` and adds its box. Nothing is done where no place is free.
pub(crate) fn paste(target: &mut Example, donor: &Example, found: &LabelledBox, rng: &mut impl Rng) {
    let (donor_h, donor_w) = donor.film.content_px();
    let (height, width) = target.film.content_px();
    // Whole pixels, so that the patch keeps its values.
    let inner = BoxXyxy::new(
        found.xyxy.x1.floor(),
        found.xyxy.y1.floor(),
        found.xyxy.x2.ceil(),
        found.xyxy.y2.ceil(),
    );
    let (mx, my) = ((MARGIN * inner.width()).ceil(), (MARGIN * inner.height()).ceil());
    let outer = BoxXyxy::new(inner.x1 - mx, inner.y1 - my, inner.x2 + mx, inner.y2 + my)
        .clip(donor_w as f32, donor_h as f32);
    if outer.width() > width as f32 || outer.height() > height as f32 || !outer.is_proper() {
        return;
    }
    let (cx, cy) = outer.center();
    for _ in 0..TRIES {
        let mut place = |center: f32, donor_side: usize, side: usize, size: f32| {
            let at = center / donor_side as f32 + JITTER * (2.0 * rng.random::<f32>() - 1.0);
            (at * side as f32 - size / 2.0).round().clamp(0.0, side as f32 - size)
        };
        let left = place(cx, donor_w, width, outer.width());
        let top = place(cy, donor_h, height, outer.height());
        let shift = (left - outer.x1, top - outer.y1);
        let patch = outer.translate(shift.0, shift.1);
        let free = |b: &LabelledBox| b.xyxy.intersection(&patch) <= MAX_COVERED * b.xyxy.area();
        if target.boxes.iter().all(free) {
            blend(target, donor, &outer, &inner, shift);
            let xyxy = found.xyxy.translate(shift.0, shift.1);
            target.boxes.push(LabelledBox { xyxy, ..*found });
            target.abnormal = true;
            return;
        }
    }
}

/// Copies `outer` of the donor, moved by `shift`: whole inside `inner`, fading to the border of `outer`.
fn blend(target: &mut Example, donor: &Example, outer: &BoxXyxy, inner: &BoxXyxy, shift: (f32, f32)) {
    let (from_w, to_w) = (donor.film.width, target.film.width);
    let (x1, y1) = (outer.x1 as usize, outer.y1 as usize);
    let (columns, rows) = (outer.width() as usize, outer.height() as usize);
    let (left, top) = ((outer.x1 + shift.0) as usize, (outer.y1 + shift.1) as usize);
    // How much of the patch shows at a pixel, 0..=1.
    let weight = |x: usize, y: usize| {
        let share = |at: usize, out1: f32, in1: f32, in2: f32, out2: f32| {
            let p = at as f32 + 0.5;
            if p < in1 {
                (p - out1) / (in1 - out1)
            } else if p > in2 {
                (out2 - p) / (out2 - in2)
            } else {
                1.0
            }
        };
        share(x1 + x, outer.x1, inner.x1, inner.x2, outer.x2).min(share(
            y1 + y,
            outer.y1,
            inner.y1,
            inner.y2,
            outer.y2,
        ))
    };
    let from = |x: usize, y: usize| f32::from(donor.film.pixels[(y1 + y) * from_w + x1 + x]);
    let to = |x: usize, y: usize| (top + y) * to_w + left + x;
    let places = || (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));

    // Mean difference over the margin, where both pictures show the surroundings.
    let margin = || places().filter(|&(x, y)| weight(x, y) < 1.0);
    let offset: f64 =
        margin().map(|(x, y)| f64::from(f32::from(target.film.pixels[to(x, y)]) - from(x, y))).sum();
    let offset = (offset / margin().count().max(1) as f64) as f32;
    for (x, y) in places() {
        let (w, at) = (weight(x, y), to(x, y));
        let below = f32::from(target.film.pixels[at]);
        // The cast saturates.
        target.film.pixels[at] = (below + w * (from(x, y) + offset - below) + 0.5) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::item_rng;
    use crate::{PreparedFilm, ResizeMap};
    use spinexr_core::{Annotation, Finding};

    fn example(grey: u16, boxes: Vec<LabelledBox>) -> Example {
        let map = ResizeMap { sx: 1.0, sy: 1.0 };
        let pixels = (0..100 * 80).map(|i| if i % 80 < 70 { grey } else { 0 }).collect();
        let film =
            PreparedFilm { height: 100, width: 80, pixels, map, film_height_px: 100, film_width_px: 70 };
        Example { film, boxes, abnormal: false }
    }

    /// A film with a bright finding on it.
    fn donor(b: BoxXyxy) -> Example {
        let found = LabelledBox { class: 6, xyxy: b };
        let mut donor = example(20_000, vec![found]);
        for y in b.y1 as usize..b.y2 as usize {
            donor.film.pixels[y * 80 + b.x1 as usize..y * 80 + b.x2 as usize].fill(50_000);
        }
        donor.abnormal = true;
        donor
    }

    #[test]
    fn the_finding_lies_in_its_box_and_its_surroundings_fade() {
        let donor = donor(BoxXyxy::new(20.0, 30.0, 40.0, 60.0));
        for draw in 0..20 {
            let mut target = example(10_000, vec![]);
            paste(&mut target, &donor, &donor.boxes[0], &mut item_rng(1, draw));
            let [b] = target.boxes[..] else { panic!("one box was pasted") };
            assert!(target.abnormal && b.class == 6);
            assert_eq!((b.xyxy.width(), b.xyxy.height()), (20.0, 30.0));
            // The same part of the film, within the jitter.
            let (cx, cy) = b.xyxy.center();
            assert!((cx / 70.0 - 30.0 / 70.0).abs() < 0.11 && (cy / 100.0 - 0.45).abs() < 0.11);
            for (i, v) in target.film.pixels.iter().enumerate() {
                let (x, y) = ((i % 80) as f32 + 0.5, (i / 80) as f32 + 0.5);
                let inside = x > b.xyxy.x1 && x < b.xyxy.x2 && y > b.xyxy.y1 && y < b.xyxy.y2;
                // 20 000 of the surroundings became 10 000, so 50 000 of the finding 40 000.
                let expected = if x > 70.0 {
                    0
                } else if inside {
                    40_000
                } else {
                    10_000
                };
                assert!(v.abs_diff(expected) <= 1, "{x}, {y}: {v} for {expected}");
            }
        }
    }

    #[test]
    fn a_marked_finding_is_not_covered() {
        let donor = donor(BoxXyxy::new(20.0, 30.0, 40.0, 60.0));
        let marked = LabelledBox { class: 2, xyxy: BoxXyxy::new(0.0, 0.0, 70.0, 46.0) };
        let mut pasted = 0;
        for draw in 0..20 {
            let mut target = example(10_000, vec![marked]);
            paste(&mut target, &donor, &donor.boxes[0], &mut item_rng(1, draw));
            assert_eq!(target.boxes[0], marked);
            for b in &target.boxes[1..] {
                pasted += 1;
                assert!(b.xyxy.intersection(&marked.xyxy) <= MAX_COVERED * marked.xyxy.area());
            }
            let whole = LabelledBox { class: 2, xyxy: BoxXyxy::new(20.0, 30.0, 40.0, 60.0) };
            let mut target = example(10_000, vec![whole; 3]);
            let before = target.clone();
            paste(&mut target, &donor, &donor.boxes[0], &mut item_rng(1, draw));
            // Shifts of at most 7 and 10 px cannot clear the box: the film stays as it is.
            assert_eq!(target, before);
        }
        assert!(pasted > 0);
    }

    #[test]
    fn only_rare_classes_give_findings() {
        let annotation = |labels: &[Finding]| FilmAnnotation {
            image_id: String::new(),
            study_id: String::new(),
            series_id: String::new(),
            abnormal: !labels.is_empty(),
            boxes: labels
                .iter()
                .map(|f| Annotation { label: f.label(), xyxy: BoxXyxy::new(0.0, 0.0, 9.0, 9.0) })
                .collect(),
        };
        let common = Finding::Osteophytes;
        let mut films = vec![annotation(&[common]); 8];
        films[3] = annotation(&[common, Finding::VertebralCollapse, Finding::VertebralCollapse]);
        films[5] = annotation(&[Finding::OtherLesions]);
        let donors = Donors::new(&films, &ClassList::vindr(), 0.2);
        let drawn: Vec<_> = (0..60).filter_map(|i| donors.draw(&mut item_rng(1, i))).collect();
        assert_eq!(drawn.len(), 60);
        assert!(drawn.iter().all(|d| [(3, 1), (3, 2), (5, 0)].contains(d)), "{drawn:?}");
        let other = drawn.iter().filter(|d| d.0 == 5).count();
        assert!((15..45).contains(&other), "classes are as likely as each other: {other} of 60");
        assert_eq!(Donors::new(&films, &ClassList::vindr(), 0.0).draw(&mut item_rng(1, 0)), None);
    }
}

//! Where the labels of boxes go: beside their box, inside the film, over as little as possible.

use crate::lettering::Area;

/// Places one label of `(width, height)` px for each box, all inside `film`. Boxes are served in the order
/// given, so put the surest first. A label avoids the labels placed before it, then the boxes, its own
/// most of all unless that is so large that a corner of it is no loss.
pub(crate) fn place_labels(film: Area, boxes: &[Area], sizes: &[(i64, i64)]) -> Vec<Area> {
    let mut placed: Vec<Area> = Vec::with_capacity(boxes.len());
    for (i, (own, &(width, height))) in boxes.iter().zip(sizes).enumerate() {
        let cost = |label: &Area| {
            let share = |of: &Area| label.overlap(of) as f64 / (of.width * of.height).max(1) as f64;
            let labels: f64 = placed.iter().map(share).sum();
            let others: f64 = boxes.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, b)| share(b)).sum();
            10.0 * labels + 4.0 * share(own) + others
        };
        let best = candidates(own, width, height)
            .into_iter()
            .map(|label| inside(film, label))
            .enumerate()
            // Of equal costs the earlier candidate wins, whose place a reader expects first.
            .min_by(|(ka, a), (kb, b)| {
                let (ca, cb) = (cost(a) + 0.001 * *ka as f64, cost(b) + 0.001 * *kb as f64);
                ca.total_cmp(&cb)
            })
            .map(|(_, label)| label)
            .expect("there are always candidates");
        placed.push(best);
    }
    placed
}

/// Above, below, at the sides, one or two lines further off, and inside at the top.
fn candidates(own: &Area, width: i64, height: i64) -> Vec<Area> {
    let at = |x, y| Area { x, y, width, height };
    let (left, right) = (own.x, own.right() - width);
    let (above, below) = (own.y - height, own.bottom());
    let mut all = vec![
        at(left, above),
        at(right, above),
        at(left, below),
        at(right, below),
        at(own.right(), own.y),
        at(own.x - width, own.y),
        at(own.right(), own.bottom() - height),
        at(own.x - width, own.bottom() - height),
        at(left, own.y),
    ];
    for lines in 1..=2 {
        let step = lines * height;
        all.extend([at(left, above - step), at(left, below + step), at(own.right(), own.y - step)]);
        all.push(at(own.x - width, own.y - step));
    }
    all
}

/// The label moved into the film; one wider than the film begins at its left edge.
fn inside(film: Area, label: Area) -> Area {
    Area {
        x: label.x.min(film.right() - label.width).max(film.x),
        y: label.y.min(film.bottom() - label.height).max(film.y),
        ..label
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILM: Area = Area { x: 10, y: 40, width: 500, height: 700 };

    #[test]
    fn a_lone_label_stands_above_its_box() {
        let own = Area { x: 100, y: 200, width: 30, height: 30 };
        let label = place_labels(FILM, &[own], &[(120, 20)])[0];
        assert_eq!(label, Area { x: 100, y: 180, width: 120, height: 20 });
    }

    #[test]
    fn a_label_does_not_cover_a_small_box_in_a_corner() {
        for (x, y) in [(10, 40), (480, 40), (10, 715), (480, 715)] {
            let own = Area { x, y, width: 25, height: 25 };
            let label = place_labels(FILM, &[own], &[(120, 20)])[0];
            assert_eq!(label.overlap(&own), 0, "box at {x}, {y}: label {label:?}");
        }
    }

    #[test]
    fn a_box_as_large_as_the_film_takes_its_label_inside() {
        let label = place_labels(FILM, &[FILM], &[(120, 20)])[0];
        assert_eq!(label.overlap(&FILM), 120 * 20);
    }

    proptest! {
        #[test]
        fn labels_stay_inside_the_film(raw in prop::collection::vec((10i64..480, 40i64..700, 1i64..300, 1i64..300), 1..25)) {
            let boxes: Vec<_> = raw.iter().map(|r| Area { x: r.0, y: r.1, width: r.2, height: r.3 }).collect();
            let sizes = vec![(140, 18); boxes.len()];
            for label in place_labels(FILM, &boxes, &sizes) {
                prop_assert_eq!(label.overlap(&FILM), 140 * 18);
            }
        }

        #[test]
        fn a_column_of_small_boxes_has_labels_side_by_side(n in 2i64..12) {
            let boxes: Vec<_> = (0..n).map(|i| Area { x: 200, y: 60 + 50 * i, width: 20, height: 20 }).collect();
            let labels = place_labels(FILM, &boxes, &vec![(140, 18); boxes.len()]);
            for (i, a) in labels.iter().enumerate() {
                for b in &labels[i + 1..] {
                    prop_assert_eq!(a.overlap(b), 0);
                }
                for b in &boxes {
                    prop_assert_eq!(a.overlap(b), 0);
                }
            }
        }
    }
}

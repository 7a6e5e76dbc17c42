//! Findings: visible where their boxes are, as frequent as they should be.

use spinexr_core::{Category, Finding};
use spinexr_synth::film::lay_out;
use spinexr_synth::plan::Study;
use spinexr_synth::{Film, render_film};

// Mean absolute difference inside a box, and outside of all boxes of the film, in stored values. The tone is
// set from the whole film, so that metal changes every value a little: the straight line that takes the values
// outside from one film to the other is taken off first.
fn contrast(with: &Film, without: &Film, b: &spinexr_core::BoxXyxy) -> (f64, f64) {
    let holds = |b: &spinexr_core::BoxXyxy, x: f32, y: f32| b.x1 <= x && x < b.x2 && b.y1 <= y && y < b.y2;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for y in 0..with.height_px {
        for x in 0..with.width_px {
            let k = (y * with.width_px + x) as usize;
            let pair = (f64::from(without.pixels[k]), f64::from(with.pixels[k]));
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            if holds(b, px, py) {
                inside.push(pair);
            } else if !with.boxes.iter().any(|other| holds(&other.xyxy, px, py)) {
                outside.push(pair);
            }
        }
    }
    let n = outside.len() as f64;
    let (mean_x, mean_y) = outside.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / n, sy + y / n));
    let covariance: f64 = outside.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = outside.iter().map(|(x, _)| (x - mean_x) * (x - mean_x)).sum();
    let slope = covariance / variance;
    let residual = |pairs: &[(f64, f64)]| {
        let sum: f64 = pairs.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).abs()).sum();
        sum / pairs.len().max(1) as f64
    };
    (residual(&inside), residual(&outside))
}

#[test]
fn a_finding_changes_the_film_inside_its_box() {
    for wanted in Category::ALL {
        // These move everything above them, so that the film changes all over.
        let bends = matches!(
            wanted,
            Category::DiscSpaceNarrowing | Category::Spondylolysthesis | Category::VertebralCollapse
        );
        let mut ratios = Vec::new();
        'studies: for index in 0.. {
            let mut study = Study::draw(5, index, true);
            let Some(lesion) = study.lesions.iter().copied().find(|l| l.category() == wanted) else {
                continue;
            };
            study.lesions = vec![lesion];
            for number in 0..study.views.len() {
                let with = render_film(&study.film(number, 320));
                let mut plain = study.clone();
                plain.lesions.clear();
                let without = render_film(&plain.film(number, 320));
                assert!(without.boxes.is_empty());
                for mark in &with.boxes {
                    assert_eq!(mark.category, wanted);
                    let f = with.field;
                    let b = mark.xyxy;
                    assert!(f.x1 <= b.x1 && b.x1 < b.x2 && b.x2 <= f.x2, "{b:?} {f:?}");
                    assert!(f.y1 <= b.y1 && b.y1 < b.y2 && b.y2 <= f.y2, "{b:?} {f:?}");
                    let (inside, outside) = contrast(&with, &without, &mark.xyxy);
                    ratios.push(inside / outside.max(1.0));
                }
                if ratios.len() >= 15 {
                    break 'studies;
                }
            }
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        let least = if bends { 1.3 } else { 2.5 };
        assert!(median > least, "{}: {ratios:?}", wanted.name());
    }
}

#[test]
fn every_category_comes_up_and_half_the_studies_are_normal() {
    for balanced in [false, true] {
        let mut seen = [0usize; 13];
        let mut normal = 0;
        let studies = 3000;
        for index in 0..studies {
            let study = Study::draw(3, index, balanced);
            normal += usize::from(!study.abnormal);
            assert_eq!(study.abnormal, !study.lesions.is_empty());
            study.lesions.iter().for_each(|l| seen[l.category() as usize] += 1);
        }
        assert!((1400..1600).contains(&normal), "{normal}");
        for (category, count) in Category::ALL.iter().zip(seen) {
            assert!(count > 0, "balanced {balanced}: no {}", category.name());
        }
    }
}

// Boxes by category on the films of some studies.
fn boxes(studies: u64, balanced: bool) -> ([f64; 13], f64, f64) {
    let (mut counts, mut films, mut abnormal) = ([0.0; 13], 0.0, 0.0);
    for index in 0..studies {
        let study = Study::draw(8, index, balanced);
        for number in 0..study.views.len() {
            films += 1.0;
            if study.abnormal {
                let marks = lay_out(&study.film(number, 256)).boxes;
                abnormal += f64::from(u8::from(!marks.is_empty()));
                marks.iter().for_each(|m| counts[m.category as usize] += 1.0);
            }
        }
    }
    (counts, films, abnormal)
}

#[test]
fn frequencies_follow_the_release() {
    // Boxes in the 4,000 studies of the released training set, in the order of `Category::ALL`.
    let released = [6.0, 924.0, 54.0, 387.0, 10.0, 12562.0, 24.0, 280.0, 87.0, 429.0, 268.0, 17.0, 248.0];
    let studies = 1500;
    let (counts, films, abnormal) = boxes(studies, false);
    let report: Vec<String> = (0..13)
        .map(|k| {
            let got = counts[k] * 4000.0 / studies as f64;
            format!("{} {got:.0}/{}", Category::ALL[k].name(), released[k])
        })
        .collect();
    assert!((0.36..0.52).contains(&(abnormal / films)), "{abnormal} of {films}; {report:?}");
    for k in 0..13 {
        let got = counts[k] * 4000.0 / studies as f64;
        if released[k] > 200.0 {
            let ratio = got / released[k];
            assert!((0.7..1.4).contains(&ratio), "{report:?}");
        } else {
            assert!(got < 4.0 * released[k] + 30.0, "{report:?}");
        }
    }
}

#[test]
fn a_balanced_set_has_like_many_boxes_of_each_class() {
    let (counts, ..) = boxes(800, true);
    let mut by_class = [0.0; Finding::COUNT];
    for (category, count) in Category::ALL.iter().zip(counts) {
        by_class[category.finding().index()] += count;
    }
    let spurs = Finding::Osteophytes.index();
    let rest = || by_class.iter().enumerate().filter(|(k, _)| *k != spurs).map(|(_, n)| *n);
    let (least, most) = (rest().fold(f64::MAX, f64::min), rest().fold(0.0, f64::max));
    assert!(most < 1.8 * least && by_class[spurs] < 3.0 * least, "{by_class:?}");
}

#[test]
fn films_differ_and_repeat() {
    let study = Study::draw(2, 1, true);
    let film = render_film(&study.film(0, 200));
    assert_eq!(film.pixels, render_film(&study.film(0, 200)).pixels);
    assert_eq!(film.pixels.len(), (film.height_px * film.width_px) as usize);
    let other = render_film(&Study::draw(2, 2, true).film(0, 200));
    assert_ne!(film.pixels, other.pixels);
    let (low, high) = (film.pixels.iter().min().unwrap(), film.pixels.iter().max().unwrap());
    assert!(*high <= 4095 && high - low > 2000, "{low} {high}");
}

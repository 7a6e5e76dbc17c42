use super::*;
use crate::mix::item_rng;
use crate::resize::ResizeMap;
use spinexr_core::BoxXyxy;

/// All operations of the policy.
const ALL: [Operation; 14] = [
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
];

const MOVING: [Operation; 4] = [Rotate, ShearX, ShearY, TranslateY];

/// 240 × 200 px of film in a 260 × 220 letterbox, bright inside `b` and of grey `around` elsewhere.
fn with_rectangle(b: &BoxXyxy, around: u16) -> PreparedFilm {
    let (height, width) = (260, 220);
    let pixels = (0..height * width)
        .map(|i| {
            let (x, y) = (i % width, i / width);
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            match x < 200 && y < 240 {
                false => 0,
                true if px > b.x1 && px < b.x2 && py > b.y1 && py < b.y2 => 60_000,
                true => around,
            }
        })
        .collect();
    let map = ResizeMap { sx: 1.0, sy: 1.0 };
    PreparedFilm { height, width, pixels, map, film_height_px: 240, film_width_px: 200 }
}

/// The box around pixels of which a fifth or more is the rectangle's, on a film of [`FILL`].
fn bright_box(content: &Content) -> Option<BoxXyxy> {
    let mut found: Option<BoxXyxy> = None;
    for (i, &v) in content.pixels.iter().enumerate() {
        if f64::from(v - FILL) >= 0.2 * f64::from(60_000 - FILL) {
            let (x, y) = ((i % content.width) as f32, (i / content.width) as f32);
            let pixel = BoxXyxy::new(x, y, x + 1.0, y + 1.0);
            found = Some(found.map_or(pixel, |f| f.union(&pixel)));
        }
    }
    found
}

fn labelled(class: usize, xyxy: BoxXyxy) -> LabelledBox {
    LabelledBox { class, xyxy }
}

#[test]
fn the_box_follows_its_content_through_every_operation_at_every_level() {
    let drawn = BoxXyxy::new(70.0, 90.0, 120.0, 160.0);
    for operation in ALL {
        for level in [0.0, 3.0, 6.0, 10.0] {
            for draw in 0..4 {
                let mut content = Content::of(&with_rectangle(&drawn, FILL));
                let mut boxes = vec![labelled(4, drawn)];
                content.apply(operation, level, &mut boxes, 0.3, &mut item_rng(3, draw));
                let case = format!("{operation:?} at {level}, draw {draw}");
                let [b] = boxes[..] else { panic!("{case}: the box is gone") };
                assert_eq!(b.class, 4, "{case}");
                if !MOVING.contains(&operation) {
                    assert_eq!(b.xyxy, drawn, "{case}");
                    continue;
                }
                let bright = bright_box(&content).unwrap_or_else(|| panic!("{case}: nothing bright"));
                for (edge, seen) in <[f32; 4]>::from(b.xyxy).into_iter().zip(<[f32; 4]>::from(bright)) {
                    assert!((edge - seen).abs() <= 1.0, "{case}: {:?} around {bright:?}", b.xyxy);
                }
            }
        }
    }
}

#[test]
fn corners_are_mapped_exactly() {
    let drawn = BoxXyxy::new(60.0, 80.0, 140.0, 150.0);
    let content = Content::of(&with_rectangle(&drawn, 9_000));
    let turned = rotation(30.0, &content).around(&drawn);
    let (sin, cos) = 30f32.to_radians().sin_cos();
    // Of a box with middle (100, 115) in a film with middle (100, 120), turned by 30°.
    let (mx, my) = (100.0 + 5.0 * sin, 120.0 - 5.0 * cos);
    let (hw, hh) = (40.0 * cos + 35.0 * sin, 40.0 * sin + 35.0 * cos);
    let expected = BoxXyxy::new(mx - hw, my - hh, mx + hw, my + hh);
    for (a, b) in <[f32; 4]>::from(turned).into_iter().zip(<[f32; 4]>::from(expected)) {
        assert!((a - b).abs() < 1e-3, "{turned:?} for {expected:?}");
    }
}

#[test]
fn levels_have_the_published_sizes() {
    let drawn = BoxXyxy::new(70.0, 90.0, 120.0, 160.0);
    let run = |operation, level, draw| {
        let mut content = Content::of(&with_rectangle(&drawn, 9_000));
        let mut boxes = vec![labelled(0, drawn)];
        content.apply(operation, level, &mut boxes, 0.0, &mut item_rng(9, draw));
        (content, boxes[0].xyxy)
    };
    // Both directions are drawn; 250 px at a shorter side of 800 px are 62.5 px at 200.
    let shifts: Vec<f32> = (0..12).map(|draw| run(TranslateY, 8.0, draw).1.y1 - 90.0).collect();
    assert!(shifts.contains(&50.0) && shifts.contains(&-50.0), "{shifts:?}");
    let sheared = run(ShearX, 10.0, 0).1; // 0.3 · (y2 - y1) is added to the width
    assert!((sheared.width() - (50.0 + 0.3 * 70.0)).abs() < 1e-3, "{sheared:?}");
    let sheared = run(ShearY, 10.0, 0).1;
    assert!((sheared.height() - (70.0 + 0.3 * 50.0)).abs() < 1e-3, "{sheared:?}");
    // Cutout at 8 is a square of 2 · 80 px at a shorter side of 800, 40 px at 200, less where the border is.
    let counts: Vec<usize> =
        (0..20).map(|draw| run(Cutout, 8.0, draw).0.pixels.iter().filter(|v| **v == FILL).count()).collect();
    assert_eq!(counts.iter().max(), Some(&(40 * 40)));
    // BBoxCutout at 4 takes 0.3 of each side, inside the box or across its border.
    let (content, _) = run(BoxCutout, 4.0, 1);
    let cut: Vec<usize> = (0..content.pixels.len()).filter(|i| content.pixels[*i] == FILL).collect();
    let near = |size: usize, expected: usize| size.abs_diff(expected) <= 40;
    assert!(near(cut.len(), 15 * 21), "{} px cut", cut.len());
    let middle = cut[cut.len() / 2];
    let (x, y) = ((middle % 200) as f32, (middle / 200) as f32);
    assert!((69.0..=120.0).contains(&x) && (89.0..=160.0).contains(&y), "cut at {x}, {y}");
}

#[test]
fn a_box_that_leaves_goes_alone_and_the_others_keep_their_labels() {
    // The flaw of the published code: labels re-attached by position after boxes have left.
    let b = |class, y: f32| labelled(class, BoxXyxy::new(50.0, y, 90.0, y + 30.0));
    let mut went = 0;
    for draw in 0..8 {
        let mut content = Content::of(&with_rectangle(&BoxXyxy::new(0.0, 0.0, 1.0, 1.0), 9_000));
        let mut boxes = vec![b(0, 5.0), b(1, 100.0), b(2, 205.0)];
        content.apply(TranslateY, 10.0, &mut boxes, 0.3, &mut item_rng(1, draw)); // ± 62.5 px
        let classes: Vec<usize> = boxes.iter().map(|b| b.class).collect();
        let up = boxes[0].class == 1;
        assert_eq!(classes, if up { vec![1, 2] } else { vec![0, 1] });
        let shift = if up { -62.5 } else { 62.5 };
        let middle = boxes.iter().find(|b| b.class == 1).unwrap();
        assert_eq!(middle.xyxy, BoxXyxy::new(50.0, 100.0 + shift, 90.0, 130.0 + shift));
        went += usize::from(up);
    }
    assert!((1..8).contains(&went), "both directions are drawn");
}

#[test]
fn films_are_a_function_of_seed_and_place_and_the_letterbox_stays_black() {
    let drawn = BoxXyxy::new(70.0, 90.0, 120.0, 160.0);
    let run = |seed, position| {
        let mut film = with_rectangle(&drawn, 9_000);
        let mut boxes = vec![labelled(2, drawn)];
        auto_augment(&mut film, &mut boxes, AutoAugmentPolicy::V2, 0.3, &mut item_rng(seed, position));
        (film, boxes)
    };
    let mut changed = 0;
    for position in 0..40 {
        let (film, boxes) = run(5, position);
        assert_eq!((&film, &boxes), (&run(5, position).0, &run(5, position).1));
        changed += usize::from(film != run(6, position).0);
        for (i, v) in film.pixels.iter().enumerate() {
            assert!((i % 220 < 200 && i / 220 < 240) || *v == 0, "the letterbox at {i} is {v}");
        }
        for b in boxes {
            assert!(b.class == 2 && b.xyxy.x2 <= 200.0 && b.xyxy.y2 <= 240.0 && b.xyxy.is_proper());
        }
    }
    assert!(changed > 20, "{changed} of 40 films differ between two seeds");
}

#[test]
fn the_policy_is_the_published_one() {
    assert_eq!(V2.iter().map(|steps| steps.len()).sum::<usize>(), 44);
    let of = |operation| V2.iter().flat_map(|s| s.iter()).filter(|s| s.0 == operation).count();
    assert_eq!((of(Rotate), of(Cutout), of(TranslateY), of(BoxCutout), of(Color)), (6, 5, 5, 1, 3));
    for (_, probability, level) in V2.iter().flat_map(|s| s.iter()) {
        assert!((0.0..=1.0).contains(probability) && (0.0..=10.0).contains(level));
    }
}

use super::*;
use crate::test_films::{pattern, radiograph};
use proptest::prelude::*;

fn stretch(height_px: u32, width_px: u32) -> InputSize {
    InputSize { height_px, width_px, fit: Fit::Stretch }
}

fn letterbox(height_px: u32, width_px: u32) -> InputSize {
    InputSize { height_px, width_px, fit: Fit::Letterbox }
}

#[test]
fn the_same_size_changes_nothing() {
    let values = pattern(9, 14, 1);
    let film = radiograph(9, 14, Display::U8(values.clone()));
    let prepared = prepare_film(&film, &stretch(9, 14));
    let expected: Vec<u16> = values.iter().map(|&v| u16::from(v) * 257).collect();
    assert_eq!(prepared.pixels, expected);
    assert_eq!(prepared.map, ResizeMap { sx: 1.0, sy: 1.0 });
}

#[test]
fn halving_weighs_four_samples() {
    // By hand: a triangle of radius 2 weighs samples at distance 1/2 by 3/4 and at 3/2 by 1/4; the sum is 2
    // inside and 7/4 at the border, where one sample is missing.
    let film = radiograph(1, 6, Display::F32(vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
    let prepared = prepare_film(&film, &stretch(1, 3));
    let expected = [1.0f64 / 7.0, 0.375, 0.0].map(|v| (v * 65535.0).round() as u16);
    assert_eq!(prepared.pixels, expected);
}

#[test]
fn a_letterbox_lies_at_the_top_left_with_zeros_beside_it() {
    let film = radiograph(100, 50, Display::U8(vec![255; 5000]));
    let prepared = prepare_film(&film, &letterbox(40, 40));
    assert_eq!(prepared.content_px(), (40, 20));
    for (i, &v) in prepared.pixels.iter().enumerate() {
        assert_eq!(v, if i % 40 < 20 { 65535 } else { 0 }, "pixel {i}");
    }
    let wide = prepare_film(&radiograph(30, 90, Display::U8(vec![255; 2700])), &letterbox(40, 40));
    assert_eq!(wide.content_px(), (13, 40));
    assert_eq!(wide.map, ResizeMap { sx: 40.0 / 90.0, sy: 13.0 / 30.0 });
    assert_eq!(wide.pixels[12 * 40], 65535);
    assert_eq!(wide.pixels[13 * 40], 0);
}

#[test]
fn values_that_are_no_grey_are_cut_off() {
    let film = radiograph(1, 4, Display::F32(vec![f32::NAN, -3.0, 7.0, f32::INFINITY]));
    let prepared = prepare_film(&film, &stretch(1, 4));
    assert_eq!(prepared.pixels, [0, 0, 65535, 65535]);
}

#[test]
fn a_bright_rectangle_lands_where_its_box_says() {
    let (h, w) = (300, 200);
    let film_box = BoxXyxy::new(40.0, 60.0, 100.0, 240.0);
    let values: Vec<u8> = (0..h * w)
        .map(|i| {
            let (x, y) = ((i % w) as f32 + 0.5, (i / w) as f32 + 0.5);
            let inside = x > film_box.x1 && x < film_box.x2 && y > film_box.y1 && y < film_box.y2;
            if inside { 255 } else { 0 }
        })
        .collect();
    for input in [stretch(75, 100), letterbox(64, 64), stretch(450, 500)] {
        let prepared = prepare_film(&radiograph(h as u32, w as u32, Display::U8(values.clone())), &input);
        let b = prepared.map.to_input(&film_box);
        let (mut mass, mut mx, mut my) = (0.0, 0.0, 0.0);
        for (i, v) in prepared.to_unit().into_iter().enumerate() {
            let (x, y) = ((i % prepared.width) as f32 + 0.5, (i / prepared.width) as f32 + 0.5);
            mass += v;
            mx += v * x;
            my += v * y;
        }
        let (cx, cy) = b.center();
        assert!((mx / mass - cx).abs() < 0.05 && (my / mass - cy).abs() < 0.05, "{input}");
        assert!((mass / b.area() - 1.0).abs() < 0.02, "{input}: {mass} for {}", b.area());
    }
}

#[test]
fn boxes_are_clipped_and_slivers_dropped() {
    use spinexr_core::{Annotation, ClassList, Finding};
    let film = radiograph(100, 100, Display::U8(vec![0; 10_000]));
    let prepared = prepare_film(&film, &stretch(50, 50));
    let at = |xyxy| Annotation { label: Finding::SurgicalImplant.label(), xyxy };
    let marked = [at(BoxXyxy::new(80.0, 90.0, 130.0, 130.0)), at(BoxXyxy::new(0.0, 0.0, 0.5, 50.0))];
    let boxes = prepared.input_boxes(&marked, &ClassList::vindr(), 0.5).unwrap();
    let expected = LabelledBox { class: 4, xyxy: BoxXyxy::new(40.0, 45.0, 50.0, 50.0) };
    assert_eq!(boxes, [expected]);
    let others = ClassList::from_names(["RBC"]).unwrap();
    let error = prepared.input_boxes(&marked, &others, 0.5).unwrap_err().to_string();
    assert_eq!(error, r#"unknown class "Surgical implant"; expected one of: RBC"#);
}

#[test]
fn sides_out_of_range_are_refused() {
    assert!(stretch(0, 5).check().is_err());
    assert!(stretch(5, 9000).check().is_err());
    assert!(letterbox(384, 256).check().is_ok());
    let error = stretch(0, 5).check().unwrap_err().to_string();
    assert!(error.contains("input size") && error.contains("0x5 stretch"), "{error}");
}

#[test]
fn an_input_size_reads_from_its_config_form() {
    let input: InputSize =
        serde_json::from_str(r#"{"height_px":384,"width_px":256,"fit":"letterbox"}"#).unwrap();
    assert_eq!(input, letterbox(384, 256));
    let error = serde_json::from_str::<InputSize>(r#"{"height_px":384,"width_px":256,"fitt":"letterbox"}"#);
    assert!(error.unwrap_err().to_string().contains("fitt"));
}

/// The filter written down directly, in two dimensions and double precision.
fn direct(values: &[f32], h: usize, w: usize, out_h: usize, out_w: usize) -> Vec<f64> {
    let weights = |n: usize, m: usize, i: usize| -> Vec<f64> {
        let scale = n as f64 / m as f64;
        let radius = scale.max(1.0);
        let center = (i as f64 + 0.5) * scale;
        let raw: Vec<f64> =
            (0..n).map(|s| (1.0 - ((s as f64 + 0.5 - center) / radius).abs()).max(0.0)).collect();
        let sum: f64 = raw.iter().sum();
        raw.into_iter().map(|v| v / sum).collect()
    };
    let mut out = Vec::new();
    for i in 0..out_h {
        let wy = weights(h, out_h, i);
        for j in 0..out_w {
            let wx = weights(w, out_w, j);
            let mut sum = 0.0;
            for (y, wy) in wy.iter().enumerate() {
                for (x, wx) in wx.iter().enumerate() {
                    sum += wy * wx * f64::from(values[y * w + x]);
                }
            }
            out.push(sum);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn equals_the_filter_written_down_directly(
        h in 1usize..40, w in 1usize..40, out_h in 1usize..30, out_w in 1usize..30, seed in 0u64..1000,
    ) {
        let values: Vec<f32> = pattern(h, w, seed).into_iter().map(|v| f32::from(v) / 255.0).collect();
        let expected = direct(&values, h, w, out_h, out_w);
        let film = radiograph(h as u32, w as u32, Display::F32(values));
        let prepared = prepare_film(&film, &stretch(out_h as u32, out_w as u32));
        for (got, want) in prepared.pixels.iter().zip(expected) {
            prop_assert!((f64::from(*got) - want * 65535.0).abs() < 1.0, "{} for {}", got, want * 65535.0);
        }
    }

    #[test]
    fn a_flat_film_stays_flat(h in 1u32..90, w in 1u32..90, grey in 0u8..=255) {
        let film = radiograph(h, w, Display::U8(vec![grey; (h * w) as usize]));
        let prepared = prepare_film(&film, &stretch(37, 23));
        for v in prepared.pixels {
            prop_assert!(v.abs_diff(u16::from(grey) * 257) <= 1);
        }
    }

    #[test]
    fn boxes_return_within_half_a_pixel(
        h in 1u32..5000, w in 1u32..5000, input_h in 1u32..1400, input_w in 1u32..1400, fit in any::<bool>(),
        corners in prop::array::uniform4(0.0f32..1.0),
    ) {
        let fit = if fit { Fit::Letterbox } else { Fit::Stretch };
        let input = InputSize { height_px: input_h, width_px: input_w, fit };
        let map = input.map(h, w);
        let (fw, fh) = (w as f32, h as f32);
        let b = BoxXyxy::new(
            corners[0].min(corners[1]) * fw, corners[2].min(corners[3]) * fh,
            corners[0].max(corners[1]) * fw, corners[2].max(corners[3]) * fh,
        );
        let inside = map.to_input(&b);
        prop_assert!(inside.x2 <= input_w as f32 + 1e-3 && inside.y2 <= input_h as f32 + 1e-3);
        let back: [f32; 4] = map.to_film(&inside).into();
        for (a, b) in back.into_iter().zip(<[f32; 4]>::from(b)) {
            prop_assert!((a - b).abs() < 0.5);
        }
    }
}

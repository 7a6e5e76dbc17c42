//! The picture of a prediction.

use image::{Rgb, RgbImage};
use spinexr_core::prediction::Timings;
use spinexr_core::{Annotation, BoxXyxy, Detection, FilmFacts, FilmPrediction, Finding, Gate};
use spinexr_infer::overlay::{OverlayOptions, class_colour, render_picture, write_png};
use std::collections::BTreeMap;

const HEIGHT: u32 = 1200;
const WIDTH: u32 = 800;

fn prediction(boxes: Vec<Detection>) -> FilmPrediction {
    FilmPrediction {
        image: "film".to_owned(),
        study: "study".to_owned(),
        split: None,
        height_px: HEIGHT,
        width_px: WIDTH,
        facts: FilmFacts::default(),
        logits: BTreeMap::new(),
        p_abnormal: Some(0.7),
        threshold: Some(0.3),
        boxes: boxes.clone(),
        boxes_before_gate: boxes,
        method: None,
        pixels: serde_json::Value::Null,
        timings: Timings::default(),
        model: "hash".to_owned(),
        demonstration: false,
    }
}

fn detection(label: Finding, score: f32, xyxy: [f32; 4]) -> Detection {
    Detection { label: label.label(), score, xyxy: BoxXyxy::from(xyxy) }
}

fn draw(prediction: &FilmPrediction, options: &OverlayOptions) -> RgbImage {
    let film = image::GrayImage::from_pixel(WIDTH, HEIGHT, image::Luma([90]));
    render_picture(&film, prediction, options)
}

/// First and last row and column, from the top of the picture, with this colour.
fn extent(picture: &RgbImage, colour: [u8; 3]) -> Option<[u32; 4]> {
    let of_colour = picture.enumerate_pixels().filter(|(_, _, p)| p.0 == colour);
    of_colour.fold(None, |e, (x, y, _)| {
        Some(e.map_or([x, y, x, y], |[a, b, c, d]: [u32; 4]| [a.min(x), b.min(y), c.max(x), d.max(y)]))
    })
}

#[test]
fn a_box_is_drawn_at_its_place_on_the_film() {
    // The film is shown at its own size: 1200 px is between the smallest and the largest side.
    let label = Finding::SurgicalImplant;
    let picture = draw(
        &prediction(vec![detection(label, 0.9, [100.0, 500.0, 700.0, 900.0])]),
        &OverlayOptions::default(),
    );
    assert_eq!(picture.width(), WIDTH);
    let plain = draw(&prediction(vec![]), &OverlayOptions::default());
    let film_top = (0..plain.height()).find(|&y| plain.get_pixel(0, y).0 == [90; 3]).unwrap();
    assert_eq!(
        (film_top..plain.height()).filter(|&y| plain.get_pixel(0, y).0 == [90; 3]).count() as u32,
        HEIGHT
    );
    // The label stands above the box, so the left, right and lower edges of the colour are the box's.
    let [x1, y1, x2, y2] = extent(&picture, class_colour(&label.label())).unwrap();
    assert_eq!((x1, x2, y2), (100, 699, film_top + 899));
    assert!(y1 < film_top + 500 && y1 > film_top + 440, "the label's bar is above the box: {y1}");
    let inside = picture.get_pixel(400, film_top + 700);
    assert_eq!(inside.0, [90; 3], "the inside of a box stays free");
}

#[test]
fn boxes_below_the_display_score_and_dropped_boxes_are_not_drawn() {
    let weak = detection(Finding::Osteophytes, 0.2, [100.0, 100.0, 200.0, 200.0]);
    let strong = detection(Finding::VertebralCollapse, 0.8, [300.0, 300.0, 500.0, 500.0]);
    let mut film = prediction(vec![weak, strong]);
    let options = OverlayOptions { min_score: 0.25, ..OverlayOptions::default() };
    let picture = draw(&film, &options);
    assert!(extent(&picture, class_colour(&Finding::Osteophytes.label())).is_none());
    assert!(extent(&picture, class_colour(&Finding::VertebralCollapse.label())).is_some());

    film.p_abnormal = Some(0.1);
    film.apply_gate(&Gate { c_star: 0.5, keep_score: 0.9 });
    let picture = draw(&film, &options);
    assert!(extent(&picture, class_colour(&Finding::VertebralCollapse.label())).is_none());
    let with_dropped = draw(&film, &OverlayOptions { show_dropped: true, ..options });
    assert_ne!(picture, with_dropped);
}

#[test]
fn a_demonstration_has_its_amber_strip() {
    let mut film = prediction(vec![]);
    let amber = [255, 196, 61];
    assert!(extent(&draw(&film, &OverlayOptions::default()), amber).is_none());
    film.demonstration = true;
    let [x1, _, x2, _] = extent(&draw(&film, &OverlayOptions::default()), amber).unwrap();
    assert_eq!((x1, x2), (0, WIDTH - 1));
}

#[test]
fn large_films_are_scaled_down_and_small_ones_up() {
    let film = prediction(vec![detection(Finding::Osteophytes, 0.9, [0.0, 0.0, 800.0, 1200.0])]);
    let small = OverlayOptions { max_side_px: 600, min_side_px: 300, ..OverlayOptions::default() };
    assert_eq!(draw(&film, &small).width(), 560, "strips have room for their words");
    let tiny = image::GrayImage::from_pixel(80, 120, image::Luma([90]));
    let picture = render_picture(&tiny, &film, &OverlayOptions::default());
    assert_eq!(picture.width(), 600);
    assert!(picture.height() > 900);
}

#[test]
fn true_boxes_are_dashed_and_white() {
    let film = prediction(vec![]);
    let truth = vec![Annotation {
        label: Finding::Osteophytes.label(),
        xyxy: BoxXyxy::new(200.0, 600.0, 400.0, 800.0),
    }];
    let picture = draw(&film, &OverlayOptions { truth, ..OverlayOptions::default() });
    let plain = draw(&film, &OverlayOptions::default());
    let top = (0..plain.height()).find(|&y| plain.get_pixel(0, y).0 == [90; 3]).unwrap();
    // One more line in the header moves the film down.
    let moved = picture.height() - plain.height();
    let row = top + moved + 600;
    let white = (200..400).filter(|&x| *picture.get_pixel(x, row) == Rgb([255; 3])).count();
    assert!((60..140).contains(&white), "about half of the line: {white}");
}

#[test]
fn hostile_numbers_do_not_harm_the_picture() {
    let boxes = vec![
        detection(Finding::Osteophytes, 0.9, [f32::NAN, 0.0, f32::INFINITY, 5.0]),
        detection(Finding::Osteophytes, f32::NAN, [-1e30, -1e30, 1e30, 1e30]),
        detection(Finding::OtherLesions, 0.5, [700.0, 900.0, 100.0, 100.0]),
    ];
    let mut film = prediction(boxes);
    film.image = "ä".repeat(500);
    film.height_px = 0;
    film.width_px = 0;
    draw(&film, &OverlayOptions::default());
}

#[test]
fn the_png_is_whole_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.png");
    let picture = draw(&prediction(vec![]), &OverlayOptions::default());
    write_png(&path, &picture).unwrap();
    assert_eq!(image::open(&path).unwrap().into_rgb8(), picture);
    assert!(write_png(&path.join("below a file.png"), &picture).is_err());
}

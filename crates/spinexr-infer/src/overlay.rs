//! The picture of a prediction: the film with its boxes, the film-level result above it, and below it what
//! the picture is and is not.

use crate::InferError;
use crate::label_layout::place_labels;
use crate::lettering::{Area, Colour, TypeSize, fill, frame, write_line};
use image::imageops::{FilterType, resize};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use sha2::{Digest, Sha256};
use spinexr_core::{Annotation, BoxXyxy, Detection, FilmPrediction, Finding, Label, whole_file};
use spinexr_dicom::{Display, Radiograph};
use std::io::Cursor;
use std::path::Path;

/// Stands under every picture.
pub const NOTICE: &str = "AI result - research only - not for clinical use";

/// Stands under every picture that a demonstration bundle made.
pub const DEMONSTRATION_NOTICE: &str = "DEMONSTRATION - model trained on synthetic films";

/// How a picture is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct OverlayOptions {
    /// Boxes below this score are not drawn; the bundle's display score.
    pub min_score: f32,
    /// The film is scaled down until its longer side has at most this many px.
    pub max_side_px: u32,
    /// The film is scaled up until its longer side has at least this many px, so that labels fit.
    pub min_side_px: u32,
    /// Also draw, dashed and grey, the boxes that the decision rule took away.
    pub show_dropped: bool,
    /// A reader's boxes, drawn dashed and white; film px.
    pub truth: Vec<Annotation>,
    /// Draw boxes.
    pub show_boxes: bool,
    /// Further lines above the film.
    pub notes: Vec<String>,
}

impl Default for OverlayOptions {
    fn default() -> Self {
        Self {
            min_score: 0.0,
            max_side_px: 1600,
            min_side_px: 900,
            show_dropped: false,
            truth: vec![],
            show_boxes: true,
            notes: vec![],
        }
    }
}

const WHITE: Colour = Rgb([255, 255, 255]);
const GREY: Colour = Rgb([150, 154, 160]);
pub(crate) const INK: Colour = Rgb([12, 13, 16]);
const STRIP: Colour = Rgb([24, 27, 33]);
const ABNORMAL: Colour = Rgb([255, 122, 92]);
/// Neutral on purpose: below the threshold is not the same as healthy.
const BELOW: Colour = Rgb([170, 196, 224]);
const AMBER: Colour = Rgb([255, 196, 61]);

/// The colour of a class: bright enough for a dark film and told apart by colour-blind readers too
/// (after the palette of Okabe and Ito, its two dark hues lightened). A class outside the vocabulary of
/// VinDr-SpineXR has the hue that a hash of its name gives.
pub fn class_colour(label: &Label) -> [u8; 3] {
    match Finding::of_label(label) {
        Some(Finding::DiscSpaceNarrowing) => [86, 180, 233],
        Some(Finding::ForaminalStenosis) => [64, 201, 162],
        Some(Finding::Osteophytes) => [240, 228, 66],
        Some(Finding::Spondylolysthesis) => [255, 128, 48],
        Some(Finding::SurgicalImplant) => [138, 158, 255],
        Some(Finding::VertebralCollapse) => [238, 136, 196],
        Some(Finding::OtherLesions) => [230, 170, 20],
        None => {
            let hash = Sha256::digest(label.name());
            light_hue(u16::from_le_bytes([hash[0], hash[1]]))
        }
    }
}

/// A light colour whose hue is `hash` / 65535 of the circle.
fn light_hue(hash: u16) -> [u8; 3] {
    let hue = 6.0 * f64::from(hash) / f64::from(u16::MAX);
    let channel = |shift: f64| {
        // 1 within a sixth of the circle on both sides of the channel's own hue, falling to 0 over the next sixth.
        let distance = (hue - shift).rem_euclid(6.0);
        let share = (2.0 - distance.min(6.0 - distance)).clamp(0.0, 1.0);
        (96.0 + 159.0 * share).round() as u8
    };
    [channel(0.0), channel(2.0), channel(4.0)]
}

/// The film as an 8-bit picture, as displayed.
pub fn display_picture(film: &Radiograph) -> GrayImage {
    let pixels = match &film.display {
        Display::U8(pixels) => pixels.clone(),
        Display::F32(pixels) => pixels.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect(),
    };
    GrayImage::from_raw(film.width_px, film.height_px, pixels)
        .expect("a radiograph has width times height pixels")
}

/// The picture of a film and its prediction.
pub fn render(film: &Radiograph, prediction: &FilmPrediction, options: &OverlayOptions) -> RgbImage {
    render_picture(&display_picture(film), prediction, options)
}

/// As [`render`], from a display picture of any scale; boxes are scaled from the film size in the
/// prediction.
pub fn render_picture(film: &GrayImage, prediction: &FilmPrediction, options: &OverlayOptions) -> RgbImage {
    render_tinted(film, prediction, options, |_, _, grey| Rgb([grey; 3]))
}

/// As [`render_picture`], each pixel of the film coloured by `tint`, which gets its place as shares of the film's width
/// and height, and its grey.
pub(crate) fn render_tinted(
    film: &GrayImage,
    prediction: &FilmPrediction,
    options: &OverlayOptions,
    tint: impl Fn(f32, f32, u8) -> Colour,
) -> RgbImage {
    let longer = film.width().max(film.height()).max(1);
    let side = longer.clamp(options.min_side_px.min(options.max_side_px), options.max_side_px);
    let scale = f64::from(side) / f64::from(longer);
    let scaled = |px: u32| ((f64::from(px) * scale).round() as u32).max(1);
    let (width, height) = (scaled(film.width()), scaled(film.height()));
    let shown = resize(film, width, height, FilterType::Triangle);

    // The strips want room for words even above a narrow film.
    let canvas_width = width.max(options.max_side_px.min(560));
    let text = TypeSize::at_most(canvas_width / 40, false);
    let strong = TypeSize::at_most(canvas_width / 32, true);
    let header = Strip::new(i64::from(canvas_width), header_lines(prediction, options, strong, text));
    let footer = Strip::new(i64::from(canvas_width), footer_lines(prediction, text));

    let canvas_height = header.height + i64::from(height) + footer.height;
    let mut picture = RgbImage::from_pixel(canvas_width, canvas_height as u32, INK);
    let place = Area {
        x: i64::from(canvas_width - width) / 2,
        y: header.height,
        width: i64::from(width),
        height: i64::from(height),
    };
    for (x, y, grey) in shown.enumerate_pixels() {
        let (px, py) = ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
        picture.put_pixel(x + place.x as u32, y + place.y as u32, tint(px, py, grey.0[0]));
    }
    if options.show_boxes {
        draw_boxes(&mut picture, place, prediction, options, text);
    }
    header.draw(&mut picture, 0);
    footer.draw(&mut picture, place.bottom());
    picture
}

/// Encodes a picture as PNG and writes it whole.
///
/// # Errors
/// The picture does not encode, or the file cannot be written.
pub fn write_png(path: &Path, picture: &RgbImage) -> Result<(), InferError> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| InferError::Picture { path: path.to_owned(), message: e.to_string() })?;
    whole_file::write(path, bytes.get_ref()).map_err(InferError::io(path, "write"))
}

/// Film px to picture px, at least `least` wide and high so that the thinnest box is seen.
fn to_picture(xyxy: &BoxXyxy, place: Area, prediction: &FilmPrediction, least: i64) -> Area {
    let sx = place.width as f64 / f64::from(prediction.width_px.max(1));
    let sy = place.height as f64 / f64::from(prediction.height_px.max(1));
    let edge = |v: f32, s: f64, limit: i64| ((f64::from(v) * s).round() as i64).clamp(0, limit);
    let (x1, x2) = (edge(xyxy.x1, sx, place.width), edge(xyxy.x2, sx, place.width));
    let (y1, y2) = (edge(xyxy.y1, sy, place.height), edge(xyxy.y2, sy, place.height));
    Area { x: place.x + x1, y: place.y + y1, width: (x2 - x1).max(least), height: (y2 - y1).max(least) }
}

fn draw_boxes(
    picture: &mut RgbImage,
    place: Area,
    prediction: &FilmPrediction,
    options: &OverlayOptions,
    text: TypeSize,
) {
    let line = (i64::from(place.width.max(place.height) as u32) / 550).clamp(2, 4);
    let dash = Some(4 * line);
    let area = |xyxy: &BoxXyxy| to_picture(xyxy, place, prediction, 3 * line);

    for true_box in &options.truth {
        frame(picture, area(&true_box.xyxy), line, WHITE, dash);
    }
    if options.show_dropped {
        let dropped = crate::outputs::kept_boxes(prediction);
        for (detection, _) in dropped.iter().filter(|(b, kept)| !kept && b.score >= options.min_score) {
            frame(picture, area(&detection.xyxy), (line / 2).max(1), GREY, dash);
        }
    }

    let mut shown: Vec<Detection> =
        prediction.boxes.iter().filter(|b| b.score >= options.min_score).cloned().collect();
    shown.sort_by(|a, b| b.score.total_cmp(&a.score));
    let areas: Vec<Area> = shown.iter().map(|b| area(&b.xyxy)).collect();
    let names: Vec<String> = shown.iter().map(|b| format!("{} {:.2}", b.label, b.score)).collect();
    let pad = 4;
    let sizes: Vec<_> = names.iter().map(|n| (text.width_px(n) + 2 * pad, text.line_px() + 2)).collect();
    let labels = place_labels(place, &areas, &sizes);

    // The surest last, so that they lie on top; all frames before all labels, so that no frame crosses
    // a word.
    for (detection, own) in shown.iter().zip(&areas).rev() {
        // A dark edge on both sides keeps the line visible on bright bone.
        frame(picture, own.shrink(-1), 1, INK, None);
        frame(picture, own.shrink(line), 1, INK, None);
        frame(picture, *own, line, Rgb(class_colour(&detection.label)), None);
    }
    for ((detection, name), label) in shown.iter().zip(&names).zip(&labels).rev() {
        fill(picture, *label, INK, 0.82);
        let bar = Area { width: 3, ..*label };
        fill(picture, bar, Rgb(class_colour(&detection.label)), 1.0);
        write_line(picture, label.x + pad + 1, label.y + 1, name, text, Rgb(class_colour(&detection.label)));
    }
}

/// Lines of text on a dark ground, across the whole picture; long ones are wrapped.
struct Strip {
    lines: Vec<StripLine>,
    height: i64,
}

struct StripLine {
    text: String,
    size: TypeSize,
    colour: Colour,
    /// Ground of the line, when it is to stand out.
    ground: Option<Colour>,
}

const STRIP_PAD: i64 = 10;

impl Strip {
    fn new(width: i64, lines: Vec<StripLine>) -> Self {
        let lines: Vec<StripLine> = lines
            .into_iter()
            .flat_map(|line| {
                let parts = line.size.wrap(&line.text, width - 2 * STRIP_PAD);
                parts.into_iter().map(move |text| StripLine { text, ..line })
            })
            .collect();
        let height = lines.iter().map(|l| l.size.line_px() + 4).sum::<i64>() + STRIP_PAD;
        Self { lines, height }
    }

    fn draw(&self, picture: &mut RgbImage, top: i64) {
        let width = i64::from(picture.width());
        fill(picture, Area { x: 0, y: top, width, height: self.height }, STRIP, 1.0);
        let mut y = top + STRIP_PAD / 2;
        for line in &self.lines {
            if let Some(ground) = line.ground {
                let height = line.size.line_px() + 4;
                fill(picture, Area { x: 0, y, width, height }, ground, 1.0);
            }
            write_line(picture, STRIP_PAD, y + 2, &line.text, line.size, line.colour);
            y += line.size.line_px() + 4;
        }
    }
}

fn header_lines(
    prediction: &FilmPrediction,
    options: &OverlayOptions,
    strong: TypeSize,
    text: TypeSize,
) -> Vec<StripLine> {
    let (verdict, colour) = match (prediction.p_abnormal, prediction.threshold) {
        (Some(p), Some(c_star)) if p >= c_star => {
            (format!("ABNORMAL: p(abnormal) {p:.3} >= c* {c_star:.3}"), ABNORMAL)
        }
        (Some(p), Some(c_star)) => {
            (format!("NOT CALLED ABNORMAL: p(abnormal) {p:.3} < c* {c_star:.3}"), BELOW)
        }
        (Some(p), None) => (format!("p(abnormal) {p:.3}, no threshold chosen"), WHITE),
        (None, _) => ("boxes only, no film-level classifier".to_owned(), WHITE),
    };
    let shown = prediction.boxes.iter().filter(|b| b.score >= options.min_score).count();
    let findings = match shown {
        0 => "no finding shown".to_owned(),
        1 => "1 finding shown".to_owned(),
        n => format!("{n} findings shown"),
    };
    let mut about = prediction.image.clone();
    if options.show_boxes {
        about.push_str(&format!(" | {findings}"));
        if options.min_score > 0.0 {
            about.push_str(&format!(" (score >= {:.2})", options.min_score));
        }
    }
    let mut lines = vec![
        StripLine { text: verdict, size: strong, colour, ground: None },
        StripLine { text: about, size: text, colour: GREY, ground: None },
    ];
    let note = |note: &String| StripLine { text: note.clone(), size: text, colour: GREY, ground: None };
    lines.extend(options.notes.iter().map(note));
    if !options.truth.is_empty() {
        let marked = format!("dashed white: {} marked by a reader", options.truth.len());
        lines.push(StripLine { text: marked, size: text, colour: GREY, ground: None });
    }
    lines
}

fn footer_lines(prediction: &FilmPrediction, text: TypeSize) -> Vec<StripLine> {
    let mut lines = vec![];
    if prediction.demonstration {
        let notice = DEMONSTRATION_NOTICE.to_owned();
        lines.push(StripLine { text: notice, size: text, colour: INK, ground: Some(AMBER) });
    }
    lines.push(StripLine { text: NOTICE.to_owned(), size: text, colour: WHITE, ground: None });
    lines
}

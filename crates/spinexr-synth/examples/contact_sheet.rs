//! Writes sheets of films with their boxes as PNG files, to look at.
//!
//! `cargo run -p spinexr-synth --example contact_sheet -- OUT_DIR [SHEET] [SEED] [HEIGHT_PX]`, where `SHEET` is
//! `views`, `findings`, `natural`, `balanced` or the name of a category.

use image::{Rgb, RgbImage};
use rayon::prelude::*;
use spinexr_core::Category;
use spinexr_synth::film::{Film, FilmSpec, render_film};
use spinexr_synth::patient::{Region, View};
use spinexr_synth::plan::Study;

fn shrink(film: &Film, height: u32, boxes: bool) -> RgbImage {
    let scale = height as f32 / film.height_px as f32;
    let width = (film.width_px as f32 * scale) as u32;
    let f = (1.0 / scale).max(1.0);
    let mut out = RgbImage::from_fn(width, height, |x, y| {
        let (x0, y0) = ((x as f32 * f) as usize, (y as f32 * f) as usize);
        let n = (f as usize).max(1);
        let (mut sum, mut count) = (0u32, 0u32);
        for yy in y0..(y0 + n).min(film.height_px as usize) {
            for xx in x0..(x0 + n).min(film.width_px as usize) {
                sum += u32::from(film.pixels[yy * film.width_px as usize + xx]);
                count += 1;
            }
        }
        let v = (sum / count.max(1) / 16) as u8;
        Rgb([v, v, v])
    });
    if boxes {
        for mark in &film.boxes {
            let colour = match mark.category {
                Category::Osteophytes => Rgb([255, 220, 0]),
                Category::DiscSpaceNarrowing => Rgb([0, 220, 255]),
                Category::SurgicalImplant => Rgb([255, 80, 80]),
                Category::ForaminalStenosis => Rgb([80, 255, 80]),
                Category::Spondylolysthesis => Rgb([255, 80, 255]),
                Category::VertebralCollapse => Rgb([255, 150, 30]),
                _ => Rgb([140, 160, 255]),
            };
            let b = mark.xyxy.scale(scale, scale);
            let mut dot = |x: f32, y: f32| {
                let (x, y) = (x.clamp(0.0, width as f32 - 1.0), y.clamp(0.0, height as f32 - 1.0));
                out.put_pixel(x as u32, y as u32, colour);
            };
            for x in b.x1 as i32..=b.x2 as i32 {
                dot(x as f32, b.y1);
                dot(x as f32, b.y2);
            }
            for y in b.y1 as i32..=b.y2 as i32 {
                dot(b.x1, y as f32);
                dot(b.x2, y as f32);
            }
        }
    }
    out
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = args.get(1).map_or("target/sheets", String::as_str);
    let sheet = args.get(2).map_or("views", String::as_str);
    let seed: u64 = args.get(3).map_or(1, |s| s.parse().expect("a seed"));
    let height: u32 = args.get(4).map_or(900, |s| s.parse().expect("a height"));
    std::fs::create_dir_all(dir).expect("a writable folder");
    let mut specs: Vec<FilmSpec> = Vec::new();
    match sheet {
        "views" => {
            for region in [Region::Lumbar, Region::Cervical] {
                for view in [View::Ap, View::Lateral, View::Oblique] {
                    let mut study = Study::draw(seed, u64::from(view == View::Ap), false);
                    study.region = region;
                    study.lesions.clear();
                    study.views = vec![view];
                    specs.push(study.film(0, height));
                }
            }
        }
        "natural" | "balanced" => {
            for index in 0.. {
                let study = Study::draw(seed, index, sheet == "balanced");
                for number in 0..study.views.len() {
                    specs.push(study.film(number, height));
                }
                if specs.len() >= 8 {
                    break;
                }
            }
        }
        name => {
            let wanted: Category = name.parse().expect("a category");
            for index in 0..100_000 {
                let study = Study::draw(seed, index, true);
                if study.lesions.iter().any(|l| l.category() == wanted) {
                    specs.extend((0..study.views.len()).map(|n| study.film(n, height)));
                }
                if specs.len() >= 8 {
                    break;
                }
            }
        }
    }
    specs.truncate(8);
    let start = std::time::Instant::now();
    let films: Vec<Film> = specs.par_iter().map(render_film).collect();
    let seconds = start.elapsed().as_secs_f64();
    println!("{} films, {:.2} films/s", films.len(), films.len() as f64 / seconds);
    let cell = 760.min(height);
    let cells: Vec<RgbImage> = films.iter().map(|f| shrink(f, cell, true)).collect();
    let columns = cells.len().min(4);
    let width = cells.iter().map(RgbImage::width).max().unwrap_or(1);
    let rows = cells.len().div_ceil(columns) as u32;
    let mut page = RgbImage::new(width * columns as u32, cell * rows);
    for (k, image) in cells.iter().enumerate() {
        let (x, y) = ((k % columns) as i64 * i64::from(width), (k / columns) as i64 * i64::from(cell));
        image::imageops::replace(&mut page, image, x, y);
    }
    let path = format!("{dir}/{}_{seed}.png", sheet.replace(' ', "_"));
    page.save(&path).expect("a writable file");
    println!("{path}");
}

//! One film: anatomy, camera, exposure, detector, and the boxes of what can be seen.

use crate::detector::{Processing, develop};
use crate::exposure::{Technique, expose};
use crate::lesion::{self, Lesion, Mark};
use crate::patient::{Patient, Region, View};
use crate::random::Stream;
use crate::scene::{Layer, Paint, Scene, Tube};
use crate::space::{Camera, Grid, Vec3, vec3};
use crate::spine::Spine;
use crate::{soft, surroundings, vertebra};
use spinexr_core::{BoxXyxy, Category};

/// Height of a full-size film, px; the mean height of the released films.
pub const FULL_HEIGHT_PX: u32 = 2455;

/// What to render.
#[derive(Debug, Clone)]
pub struct FilmSpec {
    /// Seed of the study: patient's shape and findings' details.
    pub study_seed: u64,
    /// Number of the film in its study: pose, exposure and noise.
    pub film: u32,
    /// Region.
    pub region: Region,
    /// View.
    pub view: View,
    /// Patient.
    pub patient: Patient,
    /// Findings.
    pub lesions: Vec<Lesion>,
    /// Height of the film, px; the width follows.
    pub height_px: u32,
}

/// A finding on a film.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarkedBox {
    /// Category.
    pub category: Category,
    /// Place, film px, inside the collimated field.
    pub xyxy: BoxXyxy,
}

/// A rendered film.
#[derive(Debug, Clone)]
pub struct Film {
    /// Rows.
    pub height_px: u32,
    /// Columns.
    pub width_px: u32,
    /// 12-bit values, bone bright, row-major `[height_px, width_px]`.
    pub pixels: Vec<u16>,
    /// What can be seen, film px.
    pub boxes: Vec<MarkedBox>,
    /// Collimated field, film px.
    pub field: BoxXyxy,
    /// Size of a pixel on the detector, mm.
    pub pixel_mm: f32,
    /// True when the patient's front is at the left edge (lateral and oblique films).
    pub front_left: bool,
}

/// A film before any pixel is computed: geometry and boxes only.
#[derive(Debug, Clone)]
pub struct Layout {
    scene: Scene,
    camera: Camera,
    height_px: usize,
    width_px: usize,
    pixel_mm: f32,
    field: BoxXyxy,
    front_left: bool,
    /// What can be seen, film px.
    pub boxes: Vec<MarkedBox>,
}

/// Builds anatomy and camera and projects the boxes.
pub fn lay_out(spec: &FilmSpec) -> Layout {
    let purpose = |tag: u64| Stream::new(&[spec.study_seed, tag]);
    let spine = Spine::build(spec.region, &spec.patient, &mut purpose(1), &spec.lesions);
    let mut scene = Scene::default();
    spine.vertebrae.iter().for_each(|v| vertebra::build(&mut scene, v, &spec.patient));
    match spec.region {
        Region::Lumbar => {
            surroundings::lumbar(&mut scene, &spine, &spec.patient, &mut purpose(2));
            soft::lumbar(&mut scene, &spine, &spec.patient, &mut purpose(3));
        }
        Region::Cervical => {
            surroundings::cervical(&mut scene, &spine, &spec.patient, &mut purpose(2));
            soft::cervical(&mut scene, &spine, &spec.patient, &mut purpose(3));
        }
    }
    let marks: Vec<Mark> =
        spec.lesions.iter().flat_map(|l| lesion::add(&mut scene, &spine, &spec.patient, l)).collect();

    let mut pose = Stream::new(&[spec.study_seed, 4, u64::from(spec.film)]);
    let (camera, front_left) = aim(spec, &spine, &mut pose);
    let (full_pixel_mm, aspect) = match (spec.region, spec.view) {
        (Region::Lumbar, View::Ap) => (0.155, pose.range(0.64, 0.80)),
        (Region::Lumbar, _) => (0.155, pose.range(0.56, 0.72)),
        (Region::Cervical, _) => (0.092, pose.range(0.62, 0.80)),
    };
    let height_px = spec.height_px as usize;
    let width_px = ((spec.height_px as f32 * aspect).round() as usize).max(8);
    let pixel_mm = full_pixel_mm * FULL_HEIGHT_PX as f32 / spec.height_px as f32;
    let field = collimation(width_px as f32, height_px as f32, &mut pose);
    let grid = film_grid(width_px, height_px, pixel_mm);
    let boxes = marks.iter().filter_map(|m| project(m, &camera, &grid, &field)).collect();
    let mut layout = Layout { scene, camera, height_px, width_px, pixel_mm, field, front_left, boxes };
    if pose.chance(0.85) {
        marker(&mut layout, &mut pose);
    }
    layout
}

/// Renders a film. The same spec gives the same film on any number of threads.
pub fn render_film(spec: &FilmSpec) -> Film {
    let layout = lay_out(spec);
    let mut stream = Stream::new(&[spec.study_seed, 5, u64::from(spec.film)]);
    let factor = if spec.height_px >= 1400 { 2 } else { 1 };
    let film = film_grid(layout.width_px, layout.height_px, layout.pixel_mm);
    let grid = film.coarser(factor);
    let f = layout.field;
    let field = [f.x1, f.y1, f.x2, f.y2].map(|v| v / factor as f32);
    let lumbar = spec.region == Region::Lumbar;
    let porosity = (0.2 - spec.patient.cancellous).max(0.0);
    let technique = Technique {
        scatter: if lumbar { stream.range(0.35, 0.7) } else { stream.range(0.15, 0.35) },
        scatter_mm: stream.range(20.0, 32.0),
        blur_mm: stream.range(0.16, 0.26),
        texture: stream.range(0.06, 0.12) + 0.35 * porosity,
        coarseness: 1.0 + 3.0 * porosity,
        leakage: stream.range(0.004, 0.05),
    };
    let exposure = expose(&layout.scene, &layout.camera, grid, field, &technique, &mut stream);
    let processing = Processing {
        compression: stream.range(0.66, 0.86),
        edge_gain: stream.range(0.25, 0.8),
        contrast: stream.range(0.85, 1.1),
        level: stream.range(0.42, 0.58),
        noise: if lumbar { stream.range(0.018, 0.042) } else { stream.range(0.008, 0.018) },
        shutter: stream.chance(0.55),
        pixel_mm: layout.pixel_mm,
    };
    let size = (layout.height_px, layout.width_px);
    let pixels = develop(&exposure, factor, size, field, &processing, &mut stream);
    Film {
        height_px: layout.height_px as u32,
        width_px: layout.width_px as u32,
        pixels,
        boxes: layout.boxes,
        field: layout.field,
        pixel_mm: layout.pixel_mm,
        front_left: layout.front_left,
    }
}

fn film_grid(width_px: usize, height_px: usize, pixel_mm: f32) -> Grid {
    Grid {
        width: width_px,
        height: height_px,
        cell_mm: pixel_mm,
        corner_mm: [-0.5 * width_px as f32 * pixel_mm, -0.5 * height_px as f32 * pixel_mm],
    }
}

// Places source and detector; also says whether the front is at the left.
fn aim(spec: &FilmSpec, spine: &Spine, pose: &mut Stream) -> (Camera, bool) {
    let (target, drift) = match spec.region {
        Region::Lumbar => {
            let middle = spine.vertebrae[1].frame.origin.lerp(spine.vertebrae[2].frame.origin, 0.4);
            let forward = match spec.view {
                View::Ap => 10.0,
                _ => -4.0,
            };
            (middle + vec3(0.0, forward, 0.0), 9.0)
        }
        Region::Cervical => {
            let middle = spine.vertebrae[4].frame.origin;
            let forward = if spec.view == View::Ap { 0.0 } else { 4.0 };
            (middle + vec3(0.0, forward, if spec.view == View::Ap { -6.0 } else { 2.0 }), 6.0)
        }
    };
    let target = target + vec3(pose.normal(), pose.normal(), pose.normal()) * drift;
    let turn = 0.045 * pose.normal();
    let side = pose.sign();
    // The neck is taken from below in the AP view, so that the jaw moves up and the discs open.
    let tilt = 0.03 * pose.normal()
        + match (spec.region, spec.view) {
            (Region::Cervical, View::Ap) => 0.24,
            _ => 0.0,
        };
    let yaw: f32 = match spec.view {
        View::Ap => 0.0,
        View::Lateral => side * std::f32::consts::FRAC_PI_2,
        View::Oblique => side * pose.range(0.72, 0.86),
    } + turn;
    // Straight back, turned about the upright axis, and a little up or down.
    let forward = vec3(yaw.sin(), -yaw.cos(), tilt);
    let (sid, gap) = match (spec.region, spec.view) {
        (Region::Lumbar, View::Ap) => (1100.0, 130.0),
        (Region::Lumbar, _) => (1100.0, 230.0),
        (Region::Cervical, View::Ap) => (1150.0, 90.0),
        (Region::Cervical, _) => (1600.0, 260.0),
    };
    let roll = 0.035 * pose.normal();
    let camera = Camera::aimed(target, forward, roll, sid, gap);
    (camera, camera.right.y < 0.0)
}

// The blades leave a rectangle, often the whole detector.
fn collimation(width: f32, height: f32, pose: &mut Stream) -> BoxXyxy {
    if pose.chance(0.35) {
        return BoxXyxy::new(0.0, 0.0, width, height);
    }
    let mut cut = |size: f32, most: f32| if pose.chance(0.6) { size * most * pose.unit() } else { 0.0 };
    let (x1, x2) = (cut(width, 0.10), width - cut(width, 0.10));
    let (y1, y2) = (cut(height, 0.06), height - cut(height, 0.06));
    BoxXyxy::new(x1, y1, x2, y2)
}

// The smallest box around a mark's balls, cut to the field; none when unseen or mostly outside.
fn project(mark: &Mark, camera: &Camera, grid: &Grid, field: &BoxXyxy) -> Option<MarkedBox> {
    if !mark.seen.by(camera) {
        return None;
    }
    let mut whole = BoxXyxy::new(f32::MAX, f32::MAX, f32::MIN, f32::MIN);
    for &(p, radius) in &mark.balls {
        let (right, down, magnification) = camera.project(p);
        let (i, j) = grid.cell(right, down);
        let r = radius * magnification / grid.cell_mm;
        whole = whole.union(&BoxXyxy::new(i - r, j - r, i + r, j + r));
    }
    let xyxy = BoxXyxy {
        x1: whole.x1.max(field.x1),
        y1: whole.y1.max(field.y1),
        x2: whole.x2.min(field.x2),
        y2: whole.y2.min(field.y2),
    };
    (xyxy.is_proper() && xyxy.area() >= 0.5 * whole.area())
        .then_some(MarkedBox { category: mark.category, xyxy })
}

// A lead letter on the detector: R at the patient's right, or L at the left.
fn marker(layout: &mut Layout, pose: &mut Stream) {
    let letter_r = pose.chance(0.5);
    let camera = layout.camera;
    // In an AP film the patient's right is at the film's left.
    let at_left =
        if camera.right.x.abs() > 0.7 { letter_r == (camera.right.x < 0.0) } else { pose.chance(0.5) };
    let f = layout.field;
    let mm = layout.pixel_mm;
    let height = pose.range(11.0, 17.0);
    let inset = pose.range(6.0, 16.0) + 0.5 * height;
    let x = if at_left { f.x1 * mm + inset } else { f.x2 * mm - inset };
    let low = pose.chance(0.5);
    let y = if low { f.y2 * mm - pose.range(14.0, 70.0) } else { f.y1 * mm + pose.range(14.0, 70.0) };
    let corner = (-0.5 * layout.width_px as f32 * mm, -0.5 * layout.height_px as f32 * mm);
    let skew = 0.12 * pose.normal();
    let (sin, cos) = skew.sin_cos();
    let place = |u: f32, v: f32| -> (Vec3, f32) {
        let (u, v) = (u * height * cos - v * height * sin, u * height * sin + v * height * cos);
        let p = camera.source + camera.forward * camera.sid_mm + camera.right * (corner.0 + x + u)
            - camera.up * (corner.1 + y + v);
        (p, 0.075 * height)
    };
    let paint = Paint::Uniform(Layer::Heavy, 0.8);
    let stem = vec![place(-0.28, -0.5), place(-0.28, 0.5)];
    let strokes = if letter_r {
        let bow = [
            (-0.28, -0.5),
            (0.1, -0.5),
            (0.28, -0.38),
            (0.3, -0.22),
            (0.2, -0.04),
            (-0.02, 0.02),
            (-0.28, 0.02),
        ];
        vec![stem, bow.map(|(u, v)| place(u, v)).to_vec(), vec![place(0.0, 0.02), place(0.32, 0.5)]]
    } else {
        vec![stem, vec![place(-0.28, 0.5), place(0.3, 0.5)]]
    };
    layout.scene.tubes.extend(std::iter::once(Tube { strands: strokes, paint }));
}

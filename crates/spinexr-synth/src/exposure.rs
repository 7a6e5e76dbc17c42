//! From sums of material to what reaches the detector.
//!
//! Two energies stand for the spectrum of a spine exposure (75 to 90 kV behind the patient). Linear
//! attenuation coefficients are mass coefficients times density, rounded from the NIST tables of X-ray mass
//! attenuation coefficients; they are approximations that give plausible contrast, not dosimetry.

use crate::outline::{draw_plate, draw_tube};
use crate::random::Stream;
use crate::raster::Raster;
use crate::scene::{Layer, Maps, Paint, Part, Scene, draw_longest, draw_part};
use crate::space::{Camera, Grid};

/// Attenuation per mm at one energy.
struct Energy {
    /// Share of the spectrum.
    share: f32,
    water: f32,
    /// Compact bone beyond the water it displaces.
    bone: f32,
    titanium: f32,
    heavy: f32,
}

// 50 keV: water 0.227/cm, cortical bone 0.424 cm²/g × 1.92 g/cm³, titanium 1.213 × 4.51, iron 1.958 × 7.87.
// 80 keV: water 0.184/cm, cortical bone 0.223 × 1.92, titanium 0.405 × 4.51, iron 0.595 × 7.87.
const SPECTRUM: [Energy; 2] = [
    Energy { share: 0.45, water: 0.0227, bone: 0.0814 - 0.0227, titanium: 0.547, heavy: 1.541 },
    Energy { share: 0.55, water: 0.0184, bone: 0.0428 - 0.0184, titanium: 0.183, heavy: 0.468 },
];

/// How the exposure is made.
#[derive(Debug, Clone, Copy)]
pub struct Technique {
    /// Scattered over primary radiation behind the grid.
    pub scatter: f32,
    /// Reach of scatter on the detector, mm (standard deviation).
    pub scatter_mm: f32,
    /// Blur of focal spot and detector, mm (standard deviation).
    pub blur_mm: f32,
    /// Strength of trabecular texture, share of cancellous density.
    pub texture: f32,
    /// Scale of the texture; larger for porotic bone.
    pub coarseness: f32,
    /// Share of radiation that passes the collimator's blades.
    pub leakage: f32,
}

/// What arrives at the detector.
#[derive(Debug)]
pub struct Exposure {
    /// Minus the logarithm of the intensity, by cell.
    pub density: Raster,
    /// Intensity, share of the unattenuated beam.
    pub intensity: Raster,
}

/// Exposes a scene. `field` is the collimated part in cells `[x1, y1, x2, y2]`.
pub fn expose(
    scene: &Scene,
    camera: &Camera,
    grid: Grid,
    field: [f32; 4],
    technique: &Technique,
    stream: &mut Stream,
) -> Exposure {
    let mut maps = Maps::new(grid);
    maps.layer_mut(Layer::Cortical);
    maps.layer_mut(Layer::Cancellous);
    scene.parts.iter().for_each(|part| draw_part(&mut maps, camera, part));
    scene.tubes.iter().for_each(|tube| draw_tube(&mut maps, camera, tube));

    // Plates and soft tissue are smooth: half the resolution is enough.
    let coarse = grid.coarser(2);
    let mut sheets = Raster::filled(coarse.width, coarse.height, 0.0);
    for plate in &scene.plates {
        draw_plate(&mut sheets.data, &coarse, camera, plate);
    }
    let soft = soft_tissue(scene, camera, coarse, stream);

    let texture = Texture::new(grid.cell_mm, technique, stream);
    let (w, h) = (grid.width, grid.height);
    let mut intensity = Raster::filled(w, h, 0.0);
    let (mut soft_row, mut sheet_row) = (vec![0.0; w], vec![0.0; w]);
    let row_of = |layer: Layer, j: usize| -> Option<&[f32]> {
        let map = maps.layer(layer);
        (!map.is_empty()).then(|| &map[j * w..(j + 1) * w])
    };
    for j in 0..h {
        soft.enlarged_row(j, 2, &mut soft_row);
        sheets.enlarged_row(j, 2, &mut sheet_row);
        let cortical = row_of(Layer::Cortical, j).expect("drawn above");
        let cancellous = row_of(Layer::Cancellous, j).expect("drawn above");
        let (titanium, heavy) = (row_of(Layer::Titanium, j), row_of(Layer::Heavy, j));
        let local = row_of(Layer::Soft, j);
        let out = &mut intensity.data[j * w..(j + 1) * w];
        let grain = texture.row(j);
        for i in 0..w {
            let spongy = cancellous[i] + 0.6 * sheet_row[i];
            let bone =
                (cortical[i] + 0.4 * sheet_row[i] + spongy * (1.0 + grain[i % Texture::SIZE])).max(0.0);
            let water = (soft_row[i] + local.map_or(0.0, |row| row[i])).max(0.0);
            let (ti, pb) = (titanium.map_or(0.0, |row| row[i]), heavy.map_or(0.0, |row| row[i]));
            out[i] = SPECTRUM
                .iter()
                .map(|e| {
                    e.share * (-(e.water * water + e.bone * bone + e.titanium * ti + e.heavy * pb)).exp()
                })
                .sum();
        }
    }
    collimate(&mut intensity, field, technique.leakage);
    blur3(&mut intensity, technique.blur_mm / grid.cell_mm);
    let density = add_scatter(&mut intensity, grid.cell_mm, technique);
    Exposure { density, intensity }
}

// Water-equivalent thickness: the body's outline plus or minus what differs in it.
fn soft_tissue(scene: &Scene, camera: &Camera, grid: Grid, stream: &mut Stream) -> Raster {
    let mut body = Raster::filled(grid.width, grid.height, 0.0);
    draw_longest(&mut body.data, &grid, camera, &scene.body);
    // Round off the creases where two outlines meet.
    let mut body = body.blurred(0.9 / grid.cell_mm);
    let mut maps = Maps::new(grid);
    maps.layer_mut(Layer::Soft);
    for (solid, weight) in &scene.organs {
        let paint = Paint::Uniform(Layer::Soft, *weight);
        draw_part(&mut maps, camera, &Part { solid: *solid, paint });
    }
    for cord in &scene.cords {
        draw_tube(&mut maps, camera, cord);
    }
    // Fat, vessels and bowel are uneven: a smooth field of a few per cent at two scales.
    let clouds = |cell_mm: f32, stream: &mut Stream| {
        let factor = (cell_mm / grid.cell_mm).round().max(1.0) as usize;
        let mut field = Raster::filled(grid.width / factor + 3, grid.height / factor + 3, 0.0);
        field.data.iter_mut().for_each(|v| *v = stream.normal());
        (field.blurred(1.2), factor)
    };
    let (wide, wide_factor) = clouds(14.0, stream);
    let (fine, fine_factor) = clouds(4.0, stream);
    let (mut a, mut b) = (vec![0.0; grid.width], vec![0.0; grid.width]);
    for j in 0..grid.height {
        wide.enlarged_row(j, wide_factor, &mut a);
        fine.enlarged_row(j, fine_factor, &mut b);
        let row = &mut body.data[j * grid.width..(j + 1) * grid.width];
        let organs = &maps.layer(Layer::Soft)[j * grid.width..];
        for (i, cell) in row.iter_mut().enumerate() {
            let outline = *cell;
            *cell = (outline * (1.0 + 0.030 * a[i] + 0.010 * b[i]) + organs[i]).clamp(0.04 * outline, 600.0);
        }
    }
    body
}

// Multiplies what lies outside the field, with a penumbra of a few cells.
fn collimate(intensity: &mut Raster, field: [f32; 4], leakage: f32) {
    let soft = 3.0;
    let edge = |x: f32, low: f32, high: f32| ((x - low).min(high - x) / soft + 0.5).clamp(0.0, 1.0);
    let (w, h) = (intensity.width, intensity.height);
    let (inner_x, inner_y) =
        (field[0] <= -soft && field[2] >= w as f32 + soft, field[1] <= -soft && field[3] >= h as f32 + soft);
    if inner_x && inner_y {
        return;
    }
    let columns: Vec<f32> = (0..w).map(|i| edge(i as f32 + 0.5, field[0], field[2])).collect();
    for (j, row) in intensity.data.chunks_exact_mut(w).enumerate() {
        let y = edge(j as f32 + 0.5, field[1], field[3]);
        for (cell, x) in row.iter_mut().zip(&columns) {
            *cell *= leakage + (1.0 - leakage) * (x * y);
        }
    }
}

// A three-point filter in both directions with the given standard deviation in cells (at most 0.8).
fn blur3(raster: &mut Raster, sigma: f32) {
    let k = (0.5 * sigma * sigma).min(0.32);
    let (w, h) = (raster.width, raster.height);
    let mut previous = raster.row(0).to_vec();
    let mut current = vec![0.0; w];
    for j in 0..h {
        current.copy_from_slice(raster.row(j));
        let (head, tail) = raster.data.split_at_mut((j + 1) * w);
        let next: &[f32] = if j + 1 < h { &tail[..w] } else { &current };
        let out = &mut head[j * w..];
        for i in 0..w {
            out[i] = current[i] + k * (previous[i] - 2.0 * current[i] + next[i]);
        }
        std::mem::swap(&mut previous, &mut current);
        let mut left = out[0];
        for i in 0..w {
            let (here, right) = (out[i], out[(i + 1).min(w - 1)]);
            out[i] = here + k * (left - 2.0 * here + right);
            left = here;
        }
    }
}

// Adds the wide haze of scattered radiation and returns minus the logarithm of the sum.
fn add_scatter(intensity: &mut Raster, cell_mm: f32, technique: &Technique) -> Raster {
    let factor = (3.0 / cell_mm).round().max(1.0) as usize;
    let haze = intensity.shrunk(factor).blurred(technique.scatter_mm / (cell_mm * factor as f32));
    let (w, h) = (intensity.width, intensity.height);
    let mut density = Raster::filled(w, h, 0.0);
    let mut row = vec![0.0; w];
    for j in 0..h {
        haze.enlarged_row(j, factor, &mut row);
        let cells = &mut intensity.data[j * w..(j + 1) * w];
        let out = &mut density.data[j * w..(j + 1) * w];
        for i in 0..w {
            cells[i] += technique.scatter * row[i];
            out[i] = -cells[i].max(1e-7).ln();
        }
    }
    density
}

// A tile of uneven numbers, longer up and down than across, as trabeculae are.
struct Texture {
    tile: Raster,
}

impl Texture {
    const SIZE: usize = 256;

    fn new(cell_mm: f32, technique: &Technique, stream: &mut Stream) -> Self {
        let mut sum = Raster::filled(Self::SIZE, Self::SIZE, 0.0);
        for (across_mm, along_mm, share) in [(0.45, 1.3, 0.75), (1.1, 2.4, 0.6)] {
            let mut tile = Raster::filled(Self::SIZE, Self::SIZE, 0.0);
            for v in &mut tile.data {
                let bits = stream.bits();
                let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
                *v = sum as f32 / 65536.0 - 2.0;
            }
            let smooth = |mm: f32| ((mm * technique.coarseness / cell_mm) * 0.5).round() as usize;
            wrap_blur(&mut tile, smooth(across_mm), smooth(along_mm));
            let power = tile.data.iter().map(|v| v * v).sum::<f32>() / tile.data.len() as f32;
            let scale = technique.texture * share / power.sqrt().max(1e-6);
            sum.data.iter_mut().zip(&tile.data).for_each(|(s, v)| *s += scale * v);
        }
        sum.data.iter_mut().for_each(|v| *v = v.max(-0.8));
        Self { tile: sum }
    }

    fn row(&self, j: usize) -> &[f32] {
        self.tile.row(j % Self::SIZE)
    }
}

// Two box filters each way on a tile that repeats.
fn wrap_blur(tile: &mut Raster, across: usize, along: usize) {
    let n = Texture::SIZE;
    let mut line = vec![0.0f32; n];
    let mut filter = |data: &mut [f32], start: usize, stride: usize, r: usize| {
        for (k, v) in line.iter_mut().enumerate() {
            *v = data[start + k * stride];
        }
        let mut sum: f32 = (0..2 * r + 1).map(|k| line[(k + n - r) % n]).sum();
        let scale = 1.0 / (2 * r + 1) as f32;
        for k in 0..n {
            data[start + k * stride] = sum * scale;
            sum += line[(k + r + 1) % n] - line[(k + n - r) % n];
        }
    };
    for _ in 0..2 {
        for k in 0..n {
            if across > 0 {
                filter(&mut tile.data, k * n, 1, across);
            }
            if along > 0 {
                filter(&mut tile.data, k, n, along);
            }
        }
    }
}

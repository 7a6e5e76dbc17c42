//! From intensity to stored values: tone, quantum noise, 12 bits.
//!
//! A digital system shows the logarithm of the exposure, evens out the very bright and the very dark
//! (dynamic range compression) and stretches what is inside the field over its range. Noise follows the
//! number of quanta: its share of the signal grows as one over the root of the intensity.

use crate::exposure::Exposure;
use crate::random::{Stream, mix};
use crate::raster::Raster;

/// Largest stored value.
pub const MAX_VALUE: u16 = 4095;

/// How the image is processed and how noisy it is.
#[derive(Debug, Clone, Copy)]
pub struct Processing {
    /// Share of the widest structures that is taken out, 0 to 1.
    pub compression: f32,
    /// Enhancement of edges of some millimetres, 0 for none.
    pub edge_gain: f32,
    /// Contrast; 1 stretches the field's inside over the range.
    pub contrast: f32,
    /// Brightness of the middle, share of the range.
    pub level: f32,
    /// Noise of a 0.15 mm pixel at a thousandth of the beam, in natural logarithms.
    pub noise: f32,
    /// True where the shutter blackens what lies outside the field.
    pub shutter: bool,
    /// Detector mm per film px.
    pub pixel_mm: f32,
}

/// Stored values, bone bright, row-major `[height_px, width_px]`, each at most [`MAX_VALUE`].
///
/// `factor` film pixels make a cell of the exposure; `field` is in cells.
pub fn develop(
    exposure: &Exposure,
    factor: usize,
    (height_px, width_px): (usize, usize),
    field: [f32; 4],
    processing: &Processing,
    stream: &mut Stream,
) -> Vec<u16> {
    let tone = toned(exposure, factor, field, processing);
    let mut pixels = vec![0u16; width_px * height_px];
    let (mut value, mut spread) = (vec![0.0; width_px], vec![0.0; width_px]);
    let mut noise = vec![0.0; width_px];
    let seed = stream.bits();
    let [x1, y1, x2, y2] = field.map(|v| v * factor as f32);
    for (j, row) in pixels.chunks_exact_mut(width_px).enumerate() {
        tone.value.enlarged_row(j, factor, &mut value);
        tone.spread.enlarged_row(j, factor, &mut spread);
        fill_noise(&mut noise, mix(seed ^ (j as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        for i in 0..width_px {
            let v = value[i] + spread[i] * noise[i];
            row[i] = (v + 0.5).clamp(0.0, f32::from(MAX_VALUE)) as u16;
        }
        if processing.shutter {
            let y = j as f32 + 0.5;
            if y < y1 || y >= y2 {
                row.fill(0);
            } else {
                let left = (x1.max(0.0) as usize).min(width_px);
                let right = (x2.max(0.0) as usize).min(width_px);
                row[..left].fill(0);
                row[right..].fill(0);
            }
        }
    }
    pixels
}

/// Least attenuation of a patient, natural logarithm.
const BODY: f32 = 1.2;

struct Tone {
    /// Stored value before noise.
    value: Raster,
    /// Standard deviation of noise, in stored values.
    spread: Raster,
}

fn toned(exposure: &Exposure, factor: usize, field: [f32; 4], p: &Processing) -> Tone {
    let density = &exposure.density;
    let (w, h) = (density.width, density.height);
    let cell_mm = p.pixel_mm * factor as f32;
    let shrink = (2.4 / cell_mm).round().max(1.0) as usize;
    let small = density.shrunk(shrink);
    let small_mm = cell_mm * shrink as f32;
    let wide = small.clone().blurred(22.0 / small_mm);
    let near = small.blurred(4.0 / small_mm);

    let mut out = Raster::filled(w, h, 0.0);
    let (mut wide_row, mut near_row) = (vec![0.0; w], vec![0.0; w]);
    for j in 0..h {
        wide.enlarged_row(j, shrink, &mut wide_row);
        near.enlarged_row(j, shrink, &mut near_row);
        let source = density.row(j);
        let row = &mut out.data[j * w..(j + 1) * w];
        for i in 0..w {
            let d = source[i];
            row[i] = d - p.compression * wide_row[i] + p.edge_gain * (d - near_row[i]);
        }
    }

    // Stretch between the 1st and the 99th percentile of the field.
    let mut sample: Vec<f32> = Vec::new();
    let inside = |v: f32, n: usize| (v.max(0.0) as usize).min(n);
    let (i1, i2) = (inside(field[0] + 6.0, w), inside(field[2] - 6.0, w));
    let (j1, j2) = (inside(field[1] + 6.0, h), inside(field[3] - 6.0, h));
    for j in (j1..j2).step_by(7) {
        let cells = out.row(j)[i1..i2].iter().zip(&density.row(j)[i1..i2]);
        // Where the beam missed the patient the image is black anyway.
        sample.extend(cells.step_by(7).filter(|(_, d)| **d > BODY).map(|(v, _)| v));
    }
    sample.sort_by(f32::total_cmp);
    let at = |q: f32| sample.get((q * sample.len() as f32) as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(0.01), at(0.99));
    let range = f32::from(MAX_VALUE);
    let gain = p.contrast * 0.86 * range / (high - low).max(0.3);
    let middle = 0.5 * (low + high);
    let level = p.level * range;

    let scale = gain * p.noise * (0.15 / p.pixel_mm);
    let mut spread = Raster::filled(w, h, 0.0);
    for (s, i) in spread.data.iter_mut().zip(&exposure.intensity.data) {
        *s = scale * (1e-3 / i.max(1e-5)).sqrt().min(6.0);
    }
    let knee = 0.5 * range;
    for v in &mut out.data {
        // Both ends bend gently, as film and its digital heirs do (a rational form of tanh).
        let x = (1.2 * (gain * (*v - middle) + level - knee) / knee).clamp(-3.0, 3.0);
        *v = knee + knee * x * (27.0 + x * x) / (27.0 + 9.0 * x * x);
    }
    Tone { value: out, spread }
}

// Nearly normal noise with standard deviation 1, slightly correlated between neighbours, as a detector's is.
// Eight xorshift generators run side by side so that the loop becomes vector instructions.
fn fill_noise(row: &mut [f32], seed: u64) {
    const LANES: usize = 8;
    let mut state: [u32; LANES] = std::array::from_fn(|lane| (mix(seed ^ lane as u64) as u32) | 1);
    for chunk in row.chunks_mut(LANES) {
        let mut out = [0.0f32; LANES];
        for lane in 0..LANES {
            let mut sum = 0u32;
            for _ in 0..2 {
                let mut x = state[lane];
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                state[lane] = x;
                sum += (x & 0xFFFF) + (x >> 16);
            }
            // Four uniforms: mean 2 · 65536, variance 4/12 · 65536².
            out[lane] = (sum as i32 - 131_070) as f32 * (1.732_050_8 / 65536.0);
        }
        chunk.copy_from_slice(&out[..chunk.len()]);
    }
    let mut previous = 0.0;
    for v in row {
        let raw = *v;
        *v = 0.943 * raw + 0.333 * previous;
        previous = raw;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_unit_spread() {
        let mut row = vec![0.0; 60_000];
        fill_noise(&mut row, 99);
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / row.len() as f32;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03, "{mean} {var}");
    }
}

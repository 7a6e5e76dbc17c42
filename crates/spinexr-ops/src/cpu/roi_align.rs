//! RoIAlign over planes.
//!
//! The mean of a bin's samples is separable: a sample's four weights are products of one for its rows and one for its
//! columns, and so is the rule that a sample outside counts as 0. A bin is then a sum over rows of a sum over
//! columns, each pixel read once, however many samples there are.

use rayon::prelude::*;

use super::conv::Films;
use crate::roi_align::{Roi, RoiAlignOptions};

/// The weights along one axis of a box.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// First pixel that any bin looks at.
    pub first: usize,
    /// Pixels from there to the last one.
    pub len: usize,
    /// For each bin, the pixels from `first` and their weights.
    pub bins: Vec<Vec<(usize, f32)>>,
}

impl Axis {
    /// The weights of the bins between `low` and `high` on an axis of `pixels`; `None` when a bound is not finite.
    ///
    /// Positions are computed in f32 in the reference's order, so that samples fall between the same pixels.
    fn new(low: f32, high: f32, bins: usize, pixels: usize, options: &RoiAlignOptions) -> Option<Self> {
        let offset = if options.aligned { 0.5 } else { 0.0 };
        let start = low * options.spatial_scale - offset;
        let size = high * options.spatial_scale - offset - start;
        let size = if options.aligned { size } else { size.max(1.0) };
        if !start.is_finite() || !size.is_finite() || !high.is_finite() {
            return None;
        }
        let bin = size / bins as f32;
        let samples = match options.sampling_ratio {
            0 => bin.ceil().max(0.0),
            ratio => ratio as f32,
        };
        let mut bins: Vec<Vec<(usize, f32)>> = (0..bins)
            .map(|index| {
                let from = start + index as f32 * bin;
                let mut taps = Vec::new();
                for sample in samples_inside(from, bin, samples, pixels, options.sampling_ratio) {
                    add_sample(from + (sample as f32 + 0.5) * bin / samples, pixels, &mut taps);
                }
                taps.iter_mut().for_each(|(_, weight)| *weight /= samples);
                taps
            })
            .collect();
        let first = bins.iter().flatten().map(|tap| tap.0).min().unwrap_or(0);
        let end = bins.iter().flatten().map(|tap| tap.0 + 1).max().unwrap_or(first);
        bins.iter_mut().flatten().for_each(|tap| tap.0 -= first);
        Some(Self { first, len: end - first, bins })
    }

    /// Add the weights to a row-major matrix of bins by `pixels`.
    fn write_dense(&self, pixels: usize, matrix: &mut [f32]) {
        for (bin, row) in self.bins.iter().zip(matrix.chunks_exact_mut(pixels)) {
            for &(pixel, weight) in bin {
                row[self.first + pixel] += weight;
            }
        }
    }
}

/// The samples of a bin that may lie on the map: a huge box has too many others to walk through.
fn samples_inside(
    from: f32,
    bin: f32,
    samples: f32,
    pixels: usize,
    sampling_ratio: usize,
) -> core::ops::Range<u64> {
    if sampling_ratio > 0 {
        return 0..sampling_ratio as u64;
    }
    // Adaptive samples are half a pixel to a pixel apart. Two to spare on either side are for rounding.
    let step = f64::from(bin) / f64::from(samples);
    let index_at = |position: f64| (position - f64::from(from)) / step;
    let first = (index_at(-1.0) - 3.0).max(0.0);
    let end = (index_at(pixels as f64) + 3.0).min(f64::from(samples));
    // Casts of floats saturate, and 0/0, a bin without samples, is 0.
    first as u64..(end.max(0.0) as u64).min(first as u64 + 2 * pixels as u64 + 16)
}

/// Add the two weights of a sample at `position` to a bin's.
fn add_sample(position: f32, pixels: usize, taps: &mut Vec<(usize, f32)>) {
    if position < -1.0 || position > pixels as f32 {
        return;
    }
    let position = position.max(0.0);
    let low = position as usize;
    if low + 1 >= pixels {
        add_tap(pixels - 1, 1.0, taps);
        return;
    }
    let upper = position - low as f32;
    add_tap(low, 1.0 - upper, taps);
    add_tap(low + 1, upper, taps);
}

/// Samples come in order, upwards or, in an inverted box, downwards: a pixel that has a weight already is one of the
/// last three.
fn add_tap(pixel: usize, weight: f32, taps: &mut Vec<(usize, f32)>) {
    match taps.iter_mut().rev().take(3).find(|tap| tap.0 == pixel) {
        Some(tap) => tap.1 += weight,
        None => taps.push((pixel, weight)),
    }
}

/// A box as weights on a map.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub film: usize,
    /// Rows and columns; `None` for a box that is not finite.
    pub axes: Option<[Axis; 2]>,
}

impl Region {
    /// The boxes on a map of `height` by `width` pixels, both positive.
    pub(crate) fn all(rois: &[Roi], [height, width]: [usize; 2], options: &RoiAlignOptions) -> Vec<Self> {
        let [rows, cols] = options.output_size;
        rois.iter()
            .map(|roi| {
                let [x1, y1, x2, y2] = roi.xyxy;
                let rows = Axis::new(y1, y2, rows, height, options);
                let cols = Axis::new(x1, x2, cols, width, options);
                Self { film: roi.film, axes: rows.zip(cols).map(|(rows, cols)| [rows, cols]) }
            })
            .collect()
    }

    /// Add the weights of rows and columns to matrices of bins by pixels, all zero. A box that is not finite has
    /// `not_finite` everywhere.
    pub(crate) fn write_dense(&self, not_finite: f32, size: [usize; 2], matrices: [&mut [f32]; 2]) {
        for (d, (matrix, pixels)) in matrices.into_iter().zip(size).enumerate() {
            match &self.axes {
                Some(axes) => axes[d].write_dense(pixels, matrix),
                None => matrix.fill(not_finite),
            }
        }
    }
}

/// Sizes of the map and of the grid of bins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub channels: usize,
    pub map: [usize; 2],
    pub bins: [usize; 2],
}

impl Grid {
    fn pixels(&self) -> usize {
        self.map[0] * self.map[1]
    }

    fn outputs(&self) -> usize {
        self.bins[0] * self.bins[1]
    }
}

/// `out`: `[R, C, bins]`, overwritten.
pub(crate) fn forward(grid: Grid, regions: &[Region], x: Films<'_>, out: &mut [f32]) {
    let [_, width] = grid.map;
    out.par_chunks_mut(grid.channels * grid.outputs()).zip(regions).for_each(|(out, region)| {
        let Some([rows, cols]) = &region.axes else { return out.fill(f32::NAN) };
        let mut line = vec![0.0f32; cols.len];
        for (channel, out) in out.chunks_exact_mut(grid.outputs()).enumerate() {
            let plane = x.part(region.film, channel * grid.pixels(), grid.pixels());
            for (row_taps, out) in rows.bins.iter().zip(out.chunks_exact_mut(grid.bins[1])) {
                line.fill(0.0);
                for &(row, weight) in row_taps {
                    let pixels = &plane[(rows.first + row) * width + cols.first..][..cols.len];
                    line.iter_mut().zip(pixels).for_each(|(sum, pixel)| *sum += weight * pixel);
                }
                for (out, col_taps) in out.iter_mut().zip(&cols.bins) {
                    *out = col_taps.iter().map(|&(col, weight)| weight * line[col]).sum();
                }
            }
        }
    });
}

/// Gradient of [`forward`] for the map: `dx`, all zero, is added to. Tasks are planes, and each takes its boxes in
/// order. `dy`: `[R, C, bins]`.
pub(crate) fn map_grad(grid: Grid, films: usize, regions: &[Region], dy: &[f32], dx: &mut [f32]) {
    let [_, width] = grid.map;
    let mut of_film: Vec<Vec<(usize, &[Axis; 2])>> = vec![Vec::new(); films];
    for (index, region) in regions.iter().enumerate() {
        if let Some(axes) = &region.axes {
            of_film[region.film].push((index, axes));
        }
    }
    dx.par_chunks_mut(grid.pixels()).enumerate().for_each(|(plane, dx)| {
        let (film, channel) = (plane / grid.channels, plane % grid.channels);
        let mut line = Vec::new();
        for &(index, [rows, cols]) in &of_film[film] {
            let dy = &dy[(index * grid.channels + channel) * grid.outputs()..][..grid.outputs()];
            for (row_taps, dy) in rows.bins.iter().zip(dy.chunks_exact(grid.bins[1])) {
                line.clear();
                line.resize(cols.len, 0.0f32);
                for (dy, col_taps) in dy.iter().zip(&cols.bins) {
                    col_taps.iter().for_each(|&(col, weight)| line[col] += weight * dy);
                }
                for &(row, weight) in row_taps {
                    let pixels = &mut dx[(rows.first + row) * width + cols.first..][..cols.len];
                    pixels.iter_mut().zip(&line).for_each(|(pixel, grad)| *pixel += weight * grad);
                }
            }
        }
    });
}

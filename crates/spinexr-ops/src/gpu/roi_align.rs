//! RoIAlign on a GPU.
//!
//! The weights of a box are separable and few (see [`crate::cpu::roi_align`]): the host computes them, so that samples
//! fall between the same pixels as on the CPU, and the GPU sums. Forward, a unit has one value of the output;
//! backward, one pixel of the map, which looks at the boxes of its film in order: nothing is scattered, hence the
//! same sums on every run.

use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cpu::roi_align::{Axis, Region};
use crate::roi_align::{Roi, RoiAlignOptions};

/// Words of a box before the ranges of its bins: film, whether it is finite, and for rows and columns the first pixel,
/// the number of pixels and the place of the first weight.
const HEADER: usize = 8;

/// The boxes' weights as the kernels read them.
struct Table {
    /// For each box [`HEADER`] words, then for each bin of the rows, and each of the columns, the range of pixels
    /// with a weight, from the first of the box.
    words: Vec<u32>,
    /// A NaN, then for each box a matrix of row bins by pixels and one of column bins by pixels.
    weights: Vec<f32>,
}

impl Table {
    fn new(regions: &[Region], bins: [usize; 2]) -> Self {
        let mut table = Self { words: Vec::new(), weights: vec![f32::NAN] };
        for region in regions {
            let header = table.words.len();
            table.words.resize(header + words_of_a_box(bins), 0);
            table.words[header] = region.film as u32;
            let Some(axes) = &region.axes else { continue };
            table.words[header + 1] = 1;
            let mut ranges = header + HEADER;
            for (d, axis) in axes.iter().enumerate() {
                let place = table.weights.len();
                let start = header + 2 + 3 * d;
                table.words[start..start + 3].copy_from_slice(&[
                    axis.first as u32,
                    axis.len as u32,
                    place as u32,
                ]);
                table.add_axis(axis, ranges);
                ranges += 2 * axis.bins.len();
            }
        }
        table
    }

    fn add_axis(&mut self, axis: &Axis, ranges: usize) {
        for (bin, taps) in axis.bins.iter().enumerate() {
            let row = self.weights.len();
            self.weights.resize(row + axis.len, 0.0);
            for &(pixel, weight) in taps {
                self.weights[row + pixel] += weight;
            }
            let low = taps.iter().map(|tap| tap.0).min().unwrap_or(0);
            let high = taps.iter().map(|tap| tap.0 + 1).max().unwrap_or(0);
            self.words[ranges + 2 * bin..][..2].copy_from_slice(&[low as u32, high as u32]);
        }
    }
}

fn words_of_a_box([row_bins, col_bins]: [usize; 2]) -> usize {
    HEADER + 2 * (row_bins + col_bins)
}

/// For each film the range of its boxes in the list that follows; boxes that are not finite are left out.
fn boxes_by_film(regions: &[Region], films: usize) -> Vec<u32> {
    let mut offsets = vec![0u32; films + 1];
    let mut order: Vec<u32> = Vec::with_capacity(regions.len());
    for film in 0..films {
        let of_film = regions.iter().enumerate().filter(|(_, r)| r.film == film && r.axes.is_some());
        order.extend(of_film.map(|(index, _)| index as u32));
        offsets[film + 1] = order.len() as u32;
    }
    offsets.extend(order);
    offsets
}

#[cube(launch)]
fn forward_kernel(
    x: &[f32],       // [N, C, H, W]
    words: &[u32],   // Table::words
    weights: &[f32], // Table::weights
    out: &mut [f32], // [R, C, row_bins, col_bins]
    channels: usize,
    height: usize,
    width: usize,
    row_bins: usize,
    col_bins: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let col_bin = ABSOLUTE_POS % col_bins;
    let row_bin = ABSOLUTE_POS / col_bins % row_bins;
    let channel = ABSOLUTE_POS / (col_bins * row_bins) % channels;
    let roi = ABSOLUTE_POS / (col_bins * row_bins * channels) * (8 + 2 * (row_bins + col_bins));
    if words[roi + 1] == 0 {
        out[ABSOLUTE_POS] = weights[0];
        terminate!();
    }
    let film = words[roi] as usize;
    let row_first = words[roi + 2] as usize;
    let row_weights = words[roi + 4] as usize + row_bin * words[roi + 3] as usize;
    let col_first = words[roi + 5] as usize;
    let col_weights = words[roi + 7] as usize + col_bin * words[roi + 6] as usize;
    let row_range = roi + 8 + 2 * row_bin;
    let col_range = roi + 8 + 2 * (row_bins + col_bin);
    let plane = (film * channels + channel) * height * width;
    let mut sum = 0.0f32;
    for row in words[row_range] as usize..words[row_range + 1] as usize {
        let line = plane + (row_first + row) * width + col_first;
        let mut of_row = 0.0f32;
        for col in words[col_range] as usize..words[col_range + 1] as usize {
            of_row += weights[col_weights + col] * x[line + col];
        }
        sum += weights[row_weights + row] * of_row;
    }
    out[ABSOLUTE_POS] = sum;
}

#[cube(launch)]
fn map_grad_kernel(
    grad: &[f32],    // [R, C, row_bins, col_bins]
    words: &[u32],   // Table::words
    weights: &[f32], // Table::weights
    by_film: &[u32], // boxes_by_film
    out: &mut [f32], // [N, C, H, W]
    films: usize,
    channels: usize,
    height: usize,
    width: usize,
    row_bins: usize,
    col_bins: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let x = ABSOLUTE_POS % width;
    let y = ABSOLUTE_POS / width % height;
    let channel = ABSOLUTE_POS / (width * height) % channels;
    let film = ABSOLUTE_POS / (width * height * channels);
    let mut sum = 0.0f32;
    for place in by_film[film] as usize..by_film[film + 1] as usize {
        let index = by_film[films + 1 + place] as usize;
        let roi = index * (8 + 2 * (row_bins + col_bins));
        let row_first = words[roi + 2] as usize;
        let row_len = words[roi + 3] as usize;
        let col_first = words[roi + 5] as usize;
        let col_len = words[roi + 6] as usize;
        if y >= row_first && y < row_first + row_len && x >= col_first && x < col_first + col_len {
            let row_weights = words[roi + 4] as usize + y - row_first;
            let col_weights = words[roi + 7] as usize + x - col_first;
            for row_bin in 0..row_bins {
                let row_weight = weights[row_weights + row_bin * row_len];
                if row_weight != 0.0 {
                    let of_row = ((index * channels + channel) * row_bins + row_bin) * col_bins;
                    let mut of_cols = 0.0f32;
                    for col_bin in 0..col_bins {
                        of_cols += weights[col_weights + col_bin * col_len] * grad[of_row + col_bin];
                    }
                    sum += row_weight * of_cols;
                }
            }
        }
    }
    out[ABSOLUTE_POS] = sum;
}

/// A buffer of the client with these values.
fn words_arg(client: &Client, values: &[u32]) -> BufferArg {
    let handle = client.create_from_slice(u32::as_bytes(values));
    // SAFETY: the handle was made from exactly these values.
    unsafe { BufferArg::from_raw_parts(handle, values.len()) }
}

/// A buffer of the client with these values.
fn weights_arg(client: &Client, values: &[f32]) -> BufferArg {
    let handle = client.create_from_slice(f32::as_bytes(values));
    // SAFETY: the handle was made from exactly these values.
    unsafe { BufferArg::from_raw_parts(handle, values.len()) }
}

fn empty_like(x: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, x.dtype)
}

/// `x`: `[N, C, H, W]`, f32, not empty; at least one box. Gives `[R, C, bins]`.
pub(crate) fn forward(x: CubeTensor, rois: &[Roi], options: &RoiAlignOptions) -> CubeTensor {
    let [_, channels, height, width] = x.meta.shape().dims();
    let [row_bins, col_bins] = options.output_size;
    let regions = Region::all(rois, [height, width], options);
    let table = Table::new(&regions, options.output_size);
    let x = into_contiguous(x);
    let out = empty_like(&x, Shape::from([rois.len(), channels, row_bins, col_bins]));
    let client = x.client.clone();
    let units = rois.len() * channels * row_bins * col_bins;
    let cube_dim = CubeDim::new(&client, units);
    forward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, units, cube_dim),
        cube_dim,
        x.into_buffer_arg(),
        words_arg(&client, &table.words),
        weights_arg(&client, &table.weights),
        out.clone().into_buffer_arg(),
        channels,
        height,
        width,
        row_bins,
        col_bins,
    );
    out
}

/// Gradient of [`forward`] for the map; `grad`: `[R, C, bins]`, f32.
pub(crate) fn map_grad(
    x: CubeTensor,
    rois: &[Roi],
    options: &RoiAlignOptions,
    grad: CubeTensor,
) -> CubeTensor {
    let [films, channels, height, width] = x.meta.shape().dims();
    let [row_bins, col_bins] = options.output_size;
    let regions = Region::all(rois, [height, width], options);
    let table = Table::new(&regions, options.output_size);
    let by_film = boxes_by_film(&regions, films);
    let grad = into_contiguous(grad);
    let out = empty_like(&x, Shape::from([films, channels, height, width]));
    let client = x.client.clone();
    let units = films * channels * height * width;
    let cube_dim = CubeDim::new(&client, units);
    map_grad_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, units, cube_dim),
        cube_dim,
        grad.into_buffer_arg(),
        words_arg(&client, &table.words),
        weights_arg(&client, &table.weights),
        words_arg(&client, &by_film),
        out.clone().into_buffer_arg(),
        films,
        channels,
        height,
        width,
        row_bins,
        col_bins,
    );
    out
}

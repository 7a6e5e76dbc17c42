//! Poolings and the nearest upsampling, without what only training needs.

use rayon::prelude::*;

use super::{Affine, Maps, MapsMut, MapsRef};
use crate::cpu::elementwise::sum;
use crate::cpu::planes::SharedOut;
use crate::cpu::pool::{Windows, largest, nearest_sources};
use crate::cpu::row::affine_relu;
use crate::cpu::simd::Isa;
use crate::pool::MaxPool2dOptions;

/// Call `work` with film, channel and the plane to write, for every plane, on all threads.
pub(super) fn for_each_plane(mut out: MapsMut<'_>, work: impl Fn(usize, usize, &mut [f32]) + Sync) {
    let [n, c, h, w] = out.shape();
    let (out, stride): (SharedOut, usize) = out.shared();
    (0..n * c).into_par_iter().for_each(|plane| {
        let (film, channel) = (plane / c, plane % c);
        // SAFETY: `out` borrows the maps until all tasks are done; each task has its own plane, and its values
        // were set when the maps were made.
        let values = unsafe { out.part(film * stride + channel * h * w, h * w).assume_init_mut() };
        work(film, channel, values);
    });
}

/// Largest value of each window.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; `out`: `[N, C, H', W']`, see [`MaxPool2dOptions::output_size`]
///
/// # Panics
/// When the shapes do not agree.
pub fn max_pool(x: MapsRef<'_>, options: MaxPool2dOptions, out: MapsMut<'_>) {
    let [n, c, h, w] = x.shape();
    let output = options.output_size([h, w]);
    assert_eq!(out.shape(), [n, c, output[0], output[1]], "max pooling of {:?}", x.shape());
    let MaxPool2dOptions { kernel, stride, padding } = options;
    let windows = Windows { input: [h, w], output, kernel, stride, padding };
    for_each_plane(out, |film, channel, plane| largest(&windows, x.plane(film, channel), plane));
}

/// [`max_pool`] of windows of `kernel` pixels every `stride` pixels with TensorFlow's `SAME` padding, whose pixels never
/// win.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; `out`: `[N, C, ceil(H / stride), ceil(W / stride)]`
///
/// # Panics
/// When the shapes do not agree.
pub fn max_pool_same(x: MapsRef<'_>, kernel: usize, stride: usize, out: MapsMut<'_>) {
    let [n, c, h, w] = x.shape();
    let output = [h, w].map(|size| size.div_ceil(stride));
    assert_eq!(out.shape(), [n, c, output[0], output[1]], "max pooling of {:?}", x.shape());
    let before = |size: usize, output: usize| (((output - 1) * stride + kernel).saturating_sub(size)) / 2;
    let padding = [before(h, output[0]), before(w, output[1])];
    let windows = Windows { input: [h, w], output, kernel: [kernel; 2], stride: [stride; 2], padding };
    for_each_plane(out, |film, channel, plane| largest(&windows, x.plane(film, channel), plane));
}

/// `max(x * scale + shift, 0)` by channel, then the mean of 2×2 pixels; an odd last row or column is left out.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; `out`: `[N, C, H/2, W/2]`, rounded down
///
/// # Panics
/// When the shapes do not agree.
pub fn avg_pool_2x2(x: MapsRef<'_>, norm: &Affine, out: MapsMut<'_>) {
    let [n, c, h, w] = x.shape();
    assert_eq!(out.shape(), [n, c, h / 2, w / 2], "average pooling of {:?}", x.shape());
    assert_eq!(norm.scale.len(), c, "the norm of {c} channels");
    if h < 2 || w < 2 {
        return;
    }
    let isa = Isa::best();
    for_each_plane(out, |film, channel, plane| {
        let (scale, shift) = (norm.scale[channel], norm.shift[channel]);
        let mut rows = vec![0.0; 2 * w];
        let pairs = x.plane(film, channel).chunks_exact(2 * w);
        for (out, pair) in plane.chunks_exact_mut(w / 2).zip(pairs) {
            affine_relu(isa, pair, scale, shift, &mut rows);
            let (upper, lower) = rows.split_at(w);
            let pixels = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
            for (out, ([a, b], [c, d])) in out.iter_mut().zip(pixels) {
                *out = (a + b + c + d) * 0.25;
            }
        }
    });
}

/// Mean and maximum of each channel after its norm and, if asked for, a ReLU.
///
/// # Shapes
/// - `x`: `[N, C, H, W]` → two of `[N, C]`, row by row
///
/// # Panics
/// When the norm has another number of channels, or there is no pixel.
pub fn global_pools(x: MapsRef<'_>, norm: &Affine, relu: bool) -> (Vec<f32>, Vec<f32>) {
    let [n, c, h, w] = x.shape();
    assert_eq!(norm.scale.len(), c, "the norm of {c} channels");
    assert!(h * w > 0, "global pooling of {:?}", x.shape());
    (0..n * c)
        .into_par_iter()
        .with_min_len(16)
        .map(|plane| {
            let (film, channel) = (plane / c, plane % c);
            let (scale, shift) = (norm.scale[channel], norm.shift[channel]);
            let normed = x.plane(film, channel).iter().map(|x| x * scale + shift);
            let values: Vec<f32> = if relu {
                normed.map(|y| if y <= 0.0 { 0.0 } else { y }).collect()
            } else {
                normed.collect()
            };
            let mean = (sum(&values) / values.len() as f64) as f32;
            let max = values.iter().fold(f32::NEG_INFINITY, |max, &y| if y <= max { max } else { y });
            (mean, max)
        })
        .unzip()
}

/// `maps += above`, resized to their size by [`crate::upsample_nearest`]'s rule.
///
/// # Shapes
/// - `maps`: `[N, C, H, W]`; `above`: `[N, C, h, w]`
///
/// # Panics
/// When films or channels do not agree, or `above` has no pixel.
pub fn add_upsampled(maps: &mut Maps, above: MapsRef<'_>) {
    let ([n, c, h, w], [above_n, above_c, above_h, above_w]) = (maps.shape(), above.shape());
    assert_eq!([n, c], [above_n, above_c], "films and channels of a sum");
    let (rows, cols) = (nearest_sources(above_h, h), nearest_sources(above_w, w));
    for_each_plane(maps.view_mut(), |film, channel, plane| {
        let source = above.plane(film, channel);
        for (line, &row) in plane.chunks_exact_mut(w).zip(&rows) {
            let source = &source[row * above_w..][..above_w];
            for (value, &col) in line.iter_mut().zip(&cols) {
                *value += source[col];
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{max_pool2d, upsample_nearest};
    use burn::tensor::{Device, Tensor, TensorData};

    fn maps(shape: [usize; 4], seed: u32) -> Maps {
        let len = shape.iter().product::<usize>() as u32;
        let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8e6 - 1.0;
        Maps::new((0..len).map(value).collect(), shape)
    }

    fn tensor(maps: &Maps) -> Tensor<4> {
        Tensor::from_data(TensorData::new(maps.values().to_vec(), maps.shape()), &Device::flex())
    }

    #[test]
    fn the_largest_values_are_the_tensor_operations() {
        for (shape, kernel, stride, padding) in
            [([2, 3, 9, 13], 3, 2, 1), ([1, 2, 8, 40], 3, 2, 1), ([1, 2, 7, 5], 1, 2, 0)]
        {
            let x = maps(shape, 1);
            let options =
                MaxPool2dOptions { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
            let [oh, ow] = options.output_size([shape[2], shape[3]]);
            let mut out = Maps::default();
            out.reshape([shape[0], shape[1], oh, ow]);
            max_pool(x.view(), options, out.view_mut());
            let expected = max_pool2d(tensor(&x), [kernel; 2], [stride; 2], [padding; 2]);
            assert_eq!(out.values(), expected.try_into_vec_as::<f32>().unwrap());
        }
    }

    #[test]
    fn the_padding_of_tensorflow_never_wins() {
        for size in 1..9usize {
            let x = maps([2, 3, size, size + 1], 5);
            // By hand: of an even size one pixel more at the end, of an odd size one on each side.
            let before = [size % 2, (size + 1) % 2];
            let padded = tensor(&x)
                .pad((before[1], 1, before[0], 1), burn::tensor::ops::PadMode::Constant(f32::NEG_INFINITY));
            let expected = max_pool2d(padded, [3, 3], [2, 2], [0, 0]);
            let mut out = Maps::default();
            out.reshape(expected.dims());
            max_pool_same(x.view(), 3, 2, out.view_mut());
            assert_eq!(out.values(), expected.try_into_vec_as::<f32>().unwrap(), "{size}");
        }
    }

    #[test]
    fn an_odd_last_row_and_column_are_left_out() {
        let x = Maps::new((0..15).map(|v| v as f32).collect(), [1, 1, 3, 5]);
        let mut out = Maps::default();
        out.reshape([1, 1, 1, 2]);
        avg_pool_2x2(x.view(), &Affine { scale: vec![2.0], shift: vec![-1.0] }, out.view_mut());
        // (0, 1, 5, 6) -> (0, 1, 9, 11); (2, 3, 7, 8) -> (3, 5, 13, 15)
        assert_eq!(out.values(), [5.25, 9.0]);
    }

    #[test]
    fn global_pools_take_norm_and_relu_first() {
        let x = Maps::new(vec![-3.0, 1.0, 2.0, 4.0, -1.0, -2.0, -5.0, -4.0], [1, 2, 2, 2]);
        let norm = Affine { scale: vec![1.0, 2.0], shift: vec![0.0, 1.0] };
        assert_eq!(global_pools(x.view(), &norm, true), (vec![1.75, 0.0], vec![4.0, 0.0]));
        assert_eq!(global_pools(x.view(), &norm, false), (vec![1.0, -5.0], vec![4.0, -1.0]));
    }

    #[test]
    fn the_upsampled_map_is_the_tensor_operation() {
        for (size, above) in [([6, 8], [3, 4]), ([13, 19], [7, 10])] {
            let (mut x, above) = (maps([2, 3, size[0], size[1]], 2), maps([2, 3, above[0], above[1]], 3));
            let expected = tensor(&x) + upsample_nearest(tensor(&above), size);
            add_upsampled(&mut x, above.view());
            assert_eq!(x.values(), expected.try_into_vec_as::<f32>().unwrap());
        }
    }
}

//! RoIAlign out of the engine's matrix products, for backends without a kernel of their own.
//!
//! The weights of a box are separable (see [`crate::cpu::roi_align`]), so a box is `rows · map · columnsᵀ` for each
//! channel, and its gradient `rowsᵀ · grad · columns`: no scatter, hence the same sums on every run.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Shape, Slice, TensorData};

use crate::cpu::roi_align::Region;
use crate::roi_align::{Roi, RoiAlignOptions};

/// Boxes taken at a time: bounds the memory for their rows at full width.
const BOXES_AT_ONCE: usize = 32;

/// Boxes of one film, with their weights as matrices.
struct Batch<B: Backend> {
    film: usize,
    /// Places in the caller's order.
    places: Vec<usize>,
    /// `[R * bins, H]`
    rows: FloatTensor<B>,
    /// `[R, bins, W]`
    cols: FloatTensor<B>,
}

/// The boxes by film. A box that is not finite has `not_finite` for every weight.
fn batches<B: Backend>(
    x: &FloatTensor<B>,
    rois: &[Roi],
    options: &RoiAlignOptions,
    not_finite: f32,
) -> Vec<Batch<B>> {
    let shape = x.shape();
    let size = [shape[2], shape[3]];
    let regions = Region::all(rois, size, options);
    let mut places: Vec<usize> = (0..regions.len()).collect();
    places.sort_by_key(|&place| regions[place].film);
    places
        .chunk_by(|&a, &b| regions[a].film == regions[b].film)
        .flat_map(|of_film| of_film.chunks(BOXES_AT_ONCE))
        .map(|places| {
            let lens: [usize; 2] = core::array::from_fn(|d| options.output_size[d] * size[d]);
            let mut rows = vec![0.0; places.len() * lens[0]];
            let mut cols = vec![0.0; places.len() * lens[1]];
            let matrices = rows.chunks_exact_mut(lens[0]).zip(cols.chunks_exact_mut(lens[1]));
            for (&place, (rows, cols)) in places.iter().zip(matrices) {
                regions[place].write_dense(not_finite, size, [rows, cols]);
            }
            let tensor = |values: Vec<f32>, shape: Shape| {
                let tensor = B::float_from_data(TensorData::new(values, shape), &x.device());
                B::float_cast(tensor, FloatDType::from(x.dtype()))
            };
            let [row_bins, col_bins] = options.output_size;
            Batch {
                film: regions[places[0]].film,
                places: places.to_vec(),
                rows: tensor(rows, Shape::from([places.len() * row_bins, size[0]])),
                cols: tensor(cols, Shape::from([places.len(), col_bins, size[1]])),
            }
        })
        .collect()
}

fn zeros<B: Backend>(like: &FloatTensor<B>, shape: Shape) -> FloatTensor<B> {
    B::float_zeros(shape, &like.device(), FloatDType::from(like.dtype()))
}

fn part<B: Backend>(tensor: FloatTensor<B>, at: usize, count: usize) -> FloatTensor<B> {
    let shape = tensor.shape();
    let mut slices: Vec<Slice> = (0..shape.num_dims()).map(|d| (0..shape[d]).into()).collect();
    slices[0] = (at..at + count).into();
    B::float_slice(tensor, &slices)
}

/// The same matrix for each of `count` products.
fn repeated<B: Backend>(matrix: FloatTensor<B>, count: usize) -> FloatTensor<B> {
    let shape = matrix.shape();
    let (height, width) = (shape[0], shape[1]);
    let one = B::float_reshape(matrix, Shape::from([1, height, width]));
    B::float_expand(one, Shape::from([count, height, width]))
}

/// See [`super::kernels::Kernels::roi_align`].
pub(super) fn engine_roi_align<B: Backend>(
    x: FloatTensor<B>,
    rois: &[Roi],
    options: RoiAlignOptions,
) -> FloatTensor<B> {
    let shape = x.shape();
    let [c, h, w] = [shape[1], shape[2], shape[3]];
    let [row_bins, col_bins] = options.output_size;
    let mut of_place: Vec<Option<FloatTensor<B>>> = vec![None; rois.len()];
    for Batch { film, places, rows, cols } in batches::<B>(&x, rois, &options, f32::NAN) {
        let count = places.len();
        let map = B::float_reshape(part::<B>(x.clone(), film, 1), Shape::from([c, h, w]));
        let rows = B::float_matmul(repeated::<B>(rows, c), map); // [C, R * bins, W]
        let rows = B::float_reshape(rows, Shape::from([c, count, row_bins, w]));
        let rows = B::float_permute(rows, &[1, 0, 2, 3]); // [R, C, bins, W]
        let rows = B::float_reshape(rows, Shape::from([count, c * row_bins, w]));
        let bins = B::float_matmul(rows, B::float_swap_dims(cols, 1, 2)); // [R, C * bins, bins]
        let bins = B::float_reshape(bins, Shape::from([count, c, row_bins, col_bins]));
        for (index, place) in places.into_iter().enumerate() {
            of_place[place] = Some(part::<B>(bins.clone(), index, 1));
        }
    }
    let parts: Vec<_> = of_place.into_iter().flatten().collect();
    if parts.is_empty() {
        return zeros::<B>(&x, Shape::from([0, c, row_bins, col_bins]));
    }
    B::float_cat(parts, 0)
}

/// See [`super::kernels::Kernels::roi_align_backward`].
pub(super) fn engine_roi_align_backward<B: Backend>(
    x: FloatTensor<B>,
    rois: &[Roi],
    options: RoiAlignOptions,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let shape = x.shape();
    let [n, c, h, w] = [shape[0], shape[1], shape[2], shape[3]];
    if n == 0 {
        return x;
    }
    let [row_bins, col_bins] = options.output_size;
    let mut of_film: Vec<FloatTensor<B>> =
        (0..n).map(|_| zeros::<B>(&x, Shape::from([1, c, h, w]))).collect();
    for Batch { film, places, rows, cols } in batches::<B>(&x, rois, &options, 0.0) {
        let count = places.len();
        let parts = places.into_iter().map(|place| part::<B>(grad.clone(), place, 1)).collect();
        let bins = B::float_reshape(B::float_cat(parts, 0), Shape::from([count, c * row_bins, col_bins]));
        let rows_grad = B::float_matmul(bins, cols); // [R, C * bins, W]
        let rows_grad = B::float_reshape(rows_grad, Shape::from([count, c, row_bins, w]));
        let rows_grad = B::float_permute(rows_grad, &[1, 0, 2, 3]); // [C, R, bins, W]
        let rows_grad = B::float_reshape(rows_grad, Shape::from([c, count * row_bins, w]));
        let map = B::float_matmul(repeated::<B>(B::float_transpose(rows), c), rows_grad); // [C, H, W]
        let map = B::float_reshape(map, Shape::from([1, c, h, w]));
        of_film[film] = B::float_add(of_film[film].clone(), map);
    }
    B::float_cat(of_film, 0)
}

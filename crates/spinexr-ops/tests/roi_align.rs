//! RoIAlign against torchvision's numbers, a direct loop and finite differences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use safetensors::SafeTensors;
use spinexr_ops::{Roi, RoiAlignOptions, roi_align};
use support::{assert_close, leaf, signed, tensor, values};

/// Gradient of `sum(y * g)` for the map.
fn map_grad(x: &Tensor<4>, y: Tensor<4>, g: &[f32]) -> Vec<f32> {
    let g = tensor(g, y.dims(), &Device::flex().autodiff());
    values(x.grad(&(y * g).sum().backward()).unwrap())
}

#[test]
fn torchvisions_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ops/tensors.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |name: &str| -> Vec<f32> {
        file.tensor(name)
            .unwrap()
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    let check = |name: &str, got: &[f32]| {
        let expected = stored(name);
        let largest = expected.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("| ops | {name} | {worst:.2e} | {:.2e} |", 1e-5 * largest);
        assert_eq!(got.len(), expected.len(), "{name}");
        assert!(got.iter().all(|v| v.is_finite()) && worst <= 1e-5 * largest, "{name}: {worst:e}");
    };
    // A row is the film and the corners; among them are boxes outside, empty and inverted.
    let rois: Vec<Roi> = stored("in/rois")
        .as_chunks::<5>()
        .0
        .iter()
        .map(|&[film, x1, y1, x2, y2]| Roi { film: film as usize, xyxy: [x1, y1, x2, y2] })
        .collect();
    let weights = stored("in/roi_grad_output");
    for aligned in [false, true] {
        for sampling_ratio in [0, 2] {
            let name = format!("roi_align_aligned{}_sampling{sampling_ratio}", u8::from(aligned));
            let options =
                RoiAlignOptions { output_size: [7, 5], spatial_scale: 0.25, sampling_ratio, aligned };
            let x = leaf(&stored("in/roi_feature"), [2, 3, 20, 24]);
            let y = roi_align(x.clone(), &rois, options);
            check(&name, &values(y.clone()));
            check(&format!("{name}_input_grad"), &map_grad(&x, y, &weights));
        }
    }
}

/// The definition, sample by sample, in f64 but for the positions: output and gradient for the map.
fn direct(
    x: &[f32],
    [n, c, h, w]: [usize; 4],
    rois: &[Roi],
    options: &RoiAlignOptions,
    g: &[f32],
) -> (Vec<f64>, Vec<f64>) {
    let [rows, cols] = options.output_size;
    let (mut y, mut dx) = (Vec::new(), vec![0.0f64; n * c * h * w]);
    for roi in rois {
        let offset = if options.aligned { 0.5 } else { 0.0 };
        let [x1, y1, x2, y2] = roi.xyxy.map(|v| v * options.spatial_scale - offset);
        let least = |v: f32| if options.aligned { v } else { v.max(1.0) };
        let (bin_h, bin_w) = (least(y2 - y1) / rows as f32, least(x2 - x1) / cols as f32);
        let count = |bin: f32| match options.sampling_ratio {
            0 => bin.ceil().max(0.0) as usize,
            ratio => ratio,
        };
        let (count_h, count_w) = (count(bin_h), count(bin_w));
        for (channel, row, col) in
            (0..c).flat_map(|k| (0..rows).flat_map(move |r| (0..cols).map(move |q| (k, r, q))))
        {
            let plane = (roi.film * c + channel) * h * w;
            let grad = f64::from(g[y.len()]);
            let mut sum = 0.0;
            for (i, j) in (0..count_h).flat_map(|i| (0..count_w).map(move |j| (i, j))) {
                let py = y1 + row as f32 * bin_h + (i as f32 + 0.5) * bin_h / count_h as f32;
                let px = x1 + col as f32 * bin_w + (j as f32 + 0.5) * bin_w / count_w as f32;
                if py < -1.0 || py > h as f32 || px < -1.0 || px > w as f32 {
                    continue;
                }
                let (py, px) = (py.clamp(0.0, (h - 1) as f32), px.clamp(0.0, (w - 1) as f32));
                let (top, left) = (py as usize, px as usize);
                let (low, right) = (f64::from(py) - top as f64, f64::from(px) - left as f64);
                for (row, weight_y) in [(top, 1.0 - low), (top + 1, low)] {
                    for (col, weight_x) in [(left, 1.0 - right), (left + 1, right)] {
                        let weight = weight_y * weight_x / (count_h * count_w) as f64;
                        if weight != 0.0 {
                            let at = plane + row * w + col;
                            sum += weight * f64::from(x[at]);
                            dx[at] += weight * grad;
                        }
                    }
                }
            }
            y.push(sum);
        }
    }
    (y, dx)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_definition(
        dims in [1..4usize, 1..4usize, 1..17usize, 1..17usize],
        output_size in [1..8usize, 1..8usize],
        corners in prop::collection::vec((0..3usize, -20.0..60.0f32, -20.0..60.0f32, -8.0..50.0f32, -8.0..50.0f32), 0..6),
        sampling_ratio in 0..4usize,
        aligned: bool,
        scale in prop::sample::select(vec![1.0f32, 0.5, 0.25, 0.3]),
        seed: u64,
    ) {
        let [n, c, _, _] = dims;
        let rois: Vec<Roi> = corners
            .into_iter()
            .map(|(film, x, y, w, h)| Roi { film: film % n, xyxy: [x, y, x + w, y + h] })
            .collect();
        let options = RoiAlignOptions { output_size, spatial_scale: scale, sampling_ratio, aligned };
        let x = signed(seed, dims.iter().product());
        let tx = leaf(&x, dims);
        let y = roi_align(tx.clone(), &rois, options);
        prop_assert_eq!(y.dims(), [rois.len(), c, output_size[0], output_size[1]]);
        let g = signed(seed ^ 1, rois.len() * c * output_size[0] * output_size[1]);
        let (ey, edx) = direct(&x, dims, &rois, &options, &g);
        assert_close("y", &values(y.clone()), &ey, 1e-5);
        if !rois.is_empty() {
            assert_close("dx", &map_grad(&tx, y, &g), &edx, 1e-5);
        }
    }
}

/// The output is linear in the map, so a difference quotient is exact but for rounding.
#[test]
fn the_gradient_is_that_of_finite_differences() {
    let dims = [2, 2, 5, 7];
    let rois = [
        Roi { film: 1, xyxy: [0.4, 1.3, 9.0, 8.2] },
        Roi { film: 0, xyxy: [-3.0, 2.0, 30.0, 4.0] },
        Roi { film: 1, xyxy: [8.0, 6.0, 3.0, 2.0] },
    ];
    for (aligned, sampling_ratio) in [(false, 0), (true, 0), (true, 2)] {
        let options = RoiAlignOptions { output_size: [2, 3], spatial_scale: 0.5, sampling_ratio, aligned };
        let x = signed(3, 140);
        let g = signed(4, 3 * 2 * 6);
        let total = |x: &[f32]| -> f64 {
            let y = roi_align(tensor(x, dims, &Device::flex()), &rois, options);
            values(y).iter().zip(&g).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum()
        };
        let leaf = leaf(&x, dims);
        let got = map_grad(&leaf, roi_align(leaf.clone(), &rois, options), &g);
        let quotients: Vec<f64> = (0..x.len())
            .map(|at| {
                let with = |value: f32| {
                    let mut x = x.clone();
                    x[at] = value;
                    total(&x)
                };
                let (low, high) = (x[at] - 0.5, x[at] + 0.5);
                (with(high) - with(low)) / f64::from(high - low)
            })
            .collect();
        assert!(quotients.iter().any(|q| q.abs() > 0.1), "{quotients:?}");
        assert_close("dx", &got, &quotients, 2e-6);
    }
}

const FOUR: RoiAlignOptions =
    RoiAlignOptions { output_size: [2, 2], spatial_scale: 1.0, sampling_ratio: 0, aligned: true };

#[test]
fn a_film_without_boxes_has_no_features() {
    let x = leaf(&signed(1, 2 * 3 * 4 * 4), [2, 3, 4, 4]);
    let y = roi_align(x.clone(), &[], FOUR);
    assert_eq!(y.dims(), [0, 3, 2, 2]);
    let grads = (y.sum() + x.clone().sum()).backward();
    assert_eq!(values(x.grad(&grads).unwrap()), vec![1.0; 96]);
}

/// A box of a diverged network must neither pass for a number nor spoil the gradients of others, and a huge one must
/// not be walked through sample by sample.
#[test]
fn boxes_beyond_reason() {
    let x = leaf(&[1.0; 16], [1, 1, 4, 4]);
    let everything = Roi { film: 0, xyxy: [-1e9, -1e9, 1e9, 1e9] };
    let far = Roi { film: 0, xyxy: [1e30, 1e30, 3e38, 3e38] };
    let wider_than_f32 = Roi { film: 0, xyxy: [-3e38, 0.0, 3e38, 4.0] };
    let nan = Roi { film: 0, xyxy: [0.0, f32::NAN, 4.0, 4.0] };
    let whole = Roi { film: 0, xyxy: [0.0, 0.0, 4.0, 4.0] };
    for aligned in [false, true] {
        let options = RoiAlignOptions { aligned, ..FOUR };
        let y = roi_align(x.clone(), &[everything, far, wider_than_f32, nan, whole], options);
        let got = values(y.clone());
        assert!(got[..4].iter().all(|v| (0.0..1e-6).contains(v)), "{got:?}");
        assert_eq!(got[4..8], [0.0; 4]);
        assert!(got[8..16].iter().all(|v| v.is_nan()), "{got:?}");
        assert_eq!(got[16..], [1.0; 4]);
        let dx = map_grad(
            &x,
            y,
            &[
                0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
                1.0, 1.0,
            ],
        );
        assert!((dx.iter().sum::<f32>() - 4.0).abs() < 1e-5, "{dx:?}");
    }
}

#[test]
#[should_panic(expected = "in a batch of 1 films")]
fn a_box_on_a_film_that_is_not_there_is_refused() {
    let x = tensor(&[1.0; 16], [1, 1, 4, 4], &Device::flex());
    roi_align(x, &[Roi { film: 1, xyxy: [0.0, 0.0, 4.0, 4.0] }], FOUR);
}

/// A slice of films and channels is read in place, and a permuted map is not taken for another.
#[test]
fn views_are_read_as_they_are() {
    let device = Device::flex();
    let x = tensor(&signed(1, 3 * 4 * 5 * 6), [3, 4, 5, 6], &device);
    let rois = [Roi { film: 1, xyxy: [0.3, 0.2, 4.0, 3.7] }];
    let copy = |x: &Tensor<4>| tensor(&values(x.clone()), x.dims(), &device);
    for view in [x.clone().slice([1..3, 1..3, 0..5, 0..6]), x.swap_dims(2, 3)] {
        let copied = copy(&view);
        assert_eq!(values(roi_align(view, &rois, FOUR)), values(roi_align(copied, &rois, FOUR)));
    }
}

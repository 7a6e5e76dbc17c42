//! Gradient clipping over the whole model, as PyTorch's `clip_grad_norm_` and `clip_grad_value_`.
//!
//! The engine's own clipping works tensor by tensor, which is another thing: the direction of the step
//! changes.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How gradients are bounded before a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Not at all.
    None,
    /// All gradients times one factor, so that their common L2 norm is at most this.
    GlobalNorm(f64),
    /// Each element cut to `[-value, value]`, as the paper's recipe does at 1.0.
    Value(f64),
}

/// L2 norm over all gradients, or the name of a parameter whose gradient holds a NaN or an infinity.
///
/// One pass over the gradients and one read-back from the device. The squares are summed in f32 within a
/// parameter, in pieces small enough that the engine adds them in a fixed order, and in f64 across them;
/// a gradient beyond 1e19 overflows the square and counts as infinite.
///
/// # Errors
/// The name of the first parameter (in order of names) without a finite gradient.
pub fn global_norm(gradients: &BTreeMap<String, Tensor<1>>) -> Result<f64, String> {
    // Above 4 Mi elements the CPU engine sums in an order that depends on its threads.
    const PIECE: usize = 1 << 20;
    let mut names = Vec::new();
    let mut sums = Vec::new();
    for (name, gradient) in gradients {
        let [numel] = gradient.dims();
        for start in (0..numel).step_by(PIECE) {
            let piece = if numel <= PIECE {
                gradient.clone()
            } else {
                gradient.clone().narrow(0, start, PIECE.min(numel - start))
            };
            names.push(name);
            sums.push(piece.clone().mul(piece).sum());
        }
    }
    if sums.is_empty() {
        return Ok(0.0);
    }
    let squares: Vec<f32> = Tensor::cat(sums, 0).into_data().iter::<f32>().collect();
    match squares.iter().position(|s| !s.is_finite()) {
        Some(i) => Err(names[i].clone()),
        None => Ok(squares.iter().map(|&s| f64::from(s)).sum::<f64>().sqrt()),
    }
}

/// Bounds `gradients` in place, given their global norm from [`global_norm`].
pub fn clip(gradients: &mut BTreeMap<String, Tensor<1>>, norm: f64, clip: Clip) {
    match clip {
        Clip::None => {}
        Clip::GlobalNorm(max_norm) => {
            let factor = max_norm / (norm + 1e-6); // PyTorch's epsilon
            if factor < 1.0 {
                for_each(gradients, |g| g.mul_scalar(factor as f32));
            }
        }
        Clip::Value(max) => for_each(gradients, |g| g.clamp(-max as f32, max as f32)),
    }
}

/// Replaces every gradient by a function of it.
pub(crate) fn for_each(gradients: &mut BTreeMap<String, Tensor<1>>, f: impl Fn(Tensor<1>) -> Tensor<1>) {
    *gradients = std::mem::take(gradients).into_iter().map(|(name, g)| (name, f(g))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn gradients(values: &[(&str, &[f32])]) -> BTreeMap<String, Tensor<1>> {
        let device = Device::flex();
        values.iter().map(|(n, v)| ((*n).to_owned(), Tensor::from_data(*v, &device))).collect()
    }

    fn values(gradients: &BTreeMap<String, Tensor<1>>, name: &str) -> Vec<f32> {
        gradients[name].to_data().iter::<f32>().collect()
    }

    #[test]
    fn the_norm_spans_all_parameters() {
        let mut g = gradients(&[("a", &[3.0]), ("b", &[0.0, 4.0])]);
        let norm = global_norm(&g).unwrap();
        assert_eq!(norm, 5.0);
        clip(&mut g, norm, Clip::GlobalNorm(10.0));
        assert_eq!(values(&g, "a"), [3.0], "a short gradient is left alone");
        clip(&mut g, norm, Clip::GlobalNorm(1.0));
        assert!((values(&g, "a")[0] - 0.6).abs() < 1e-6 && (values(&g, "b")[1] - 0.8).abs() < 1e-6);
        assert!((global_norm(&g).unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn value_clipping_is_element_wise() {
        let mut g = gradients(&[("a", &[3.0, -0.5, -7.0])]);
        clip(&mut g, 0.0, Clip::Value(1.0));
        assert_eq!(values(&g, "a"), [1.0, -0.5, -1.0]);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named() {
        let g = gradients(&[("a", &[1.0]), ("b", &[1.0, f32::NAN]), ("c", &[f32::INFINITY])]);
        assert_eq!(global_norm(&g), Err("b".to_owned()));
    }

    #[test]
    fn a_large_gradient_is_summed_in_pieces() {
        let device = Device::flex();
        let n = (1 << 20) + 7;
        let g = BTreeMap::from([("a".to_owned(), Tensor::<1>::full([n], 2.0, &device))]);
        let norm = global_norm(&g).unwrap();
        assert!((norm - 2.0 * (n as f64).sqrt()).abs() < 1e-2 * norm, "{norm}");
    }
}

//! Sets of IoU thresholds, to the last bit those of pycocotools.

use crate::error::EvalError;

/// `count` values from `first` to `last` inclusive, rounded as `numpy.linspace` rounds them.
pub fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    if count < 2 {
        return vec![first; count];
    }
    let step = (last - first) / (count - 1) as f64;
    (0..count).map(|i| if i + 1 == count { last } else { i as f64 * step + first }).collect()
}

/// COCO's thresholds: 0.50:0.05:0.95.
pub fn iou_coco() -> Vec<f64> {
    linspace(0.5, 0.95, 10)
}

/// The paper's thresholds: 0.20:0.05:0.50. Its mAP@0.5 is the last of them.
pub fn iou_paper() -> Vec<f64> {
    linspace(0.2, 0.5, 7)
}

/// Reads `0.5` or `first:step:last` such as `0.2:0.05:0.5`.
///
/// # Errors
/// [`EvalError::IouSet`] for anything else, or a threshold outside `(0, 1]`.
pub fn parse_iou_set(text: &str) -> Result<Vec<f64>, EvalError> {
    let refuse = || EvalError::IouSet { text: text.to_owned() };
    let numbers: Vec<f64> = text
        .split(':')
        .map(|part| part.trim().parse::<f64>().map_err(|_| refuse()))
        .collect::<Result<_, _>>()?;
    let set = match *numbers.as_slice() {
        [value] => vec![value],
        [first, step, last] if step > 0.0 && last >= first => {
            let steps = ((last - first) / step).round();
            // The step must lead to the last value, and to no more thresholds than anyone can mean.
            if (first + steps * step - last).abs() > 1e-6 || steps > 1000.0 {
                return Err(refuse());
            }
            linspace(first, last, steps as usize + 1)
        }
        _ => return Err(refuse()),
    };
    if set.iter().all(|t| *t > 0.0 && *t <= 1.0) { Ok(set) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_sets() {
        assert_eq!(parse_iou_set("0.5").unwrap(), [0.5]);
        assert_eq!(parse_iou_set("0.2:0.05:0.5").unwrap(), iou_paper());
        assert_eq!(parse_iou_set("0.5:0.05:0.95").unwrap(), iou_coco());
        assert_eq!(iou_paper()[5], 0.44999999999999996); // as numpy has it
        for wrong in ["", "a", "0", "1.2", "0.5:0.2", "0.2:0.05:0.51", "0.5:-0.1:0.2", "0.5:1e-9:0.9", "NaN"]
        {
            assert!(parse_iou_set(wrong).is_err(), "{wrong}");
        }
    }
}

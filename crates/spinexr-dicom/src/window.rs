//! VOI windows (PS3.3 C.11.2.1.2, C.11.2.1.3).

use crate::attributes::number;
use crate::dataset::DataSet;
use crate::film::VoiFunction;
use dicom_dictionary_std::tags;

/// A window that can be applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    pub center: f64,
    pub width: f64,
    pub function: VoiFunction,
    /// A number was understood although it is not a valid decimal string.
    pub repaired: bool,
}

impl Window {
    /// Output for `x`, 0 to 1.
    pub fn map(&self, x: f64) -> f64 {
        let (c, w) = match self.function {
            VoiFunction::Sigmoid => return 1.0 / (1.0 + (-4.0 * (x - self.center) / self.width).exp()),
            VoiFunction::LinearExact => (self.center, self.width),
            VoiFunction::Linear => (self.center - 0.5, self.width - 1.0),
        };
        if x <= c - w / 2.0 {
            0.0
        } else if x > c + w / 2.0 {
            1.0
        } else {
            (x - c) / w + 0.5
        }
    }

    /// Output for `x` on the scale `low..=high`, in pydicom's order of operations, which decides single pixels
    /// where the result is truncated.
    pub fn map_to(&self, x: f64, low: f64, high: f64) -> f64 {
        let range = high - low;
        let (c, w) = match self.function {
            VoiFunction::Sigmoid => {
                return range / (1.0 + (-4.0 * (x - self.center) / self.width).exp()) + low;
            }
            VoiFunction::LinearExact => (self.center, self.width),
            VoiFunction::Linear => (self.center - 0.5, self.width - 1.0),
        };
        if x <= c - w / 2.0 {
            low
        } else if x > c + w / 2.0 {
            high
        } else {
            ((x - c) / w + 0.5) * range + low
        }
    }
}

/// VOI LUT Function (0028,1056); an unknown one is taken as LINEAR, with a note.
fn function(data_set: &DataSet, notes: &mut Vec<String>) -> VoiFunction {
    match data_set.text(tags::VOILUT_FUNCTION).map(|text| text.to_uppercase()).as_deref() {
        None | Some("LINEAR") => VoiFunction::Linear,
        Some("LINEAR_EXACT") => VoiFunction::LinearExact,
        Some("SIGMOID") => VoiFunction::Sigmoid,
        Some(other) => {
            notes.push(format!("VOI LUT Function (0028,1056) {other:?} unknown: LINEAR used"));
            VoiFunction::Linear
        }
    }
}

/// The first window, if the file has a usable one. Whatever keeps it from use leaves a note.
pub(crate) fn first_window(data_set: &DataSet, notes: &mut Vec<String>) -> Option<Window> {
    let centers = data_set.raw_text(tags::WINDOW_CENTER)?;
    let widths = data_set.raw_text(tags::WINDOW_WIDTH)?;
    let (center_text, width_text) = (centers.split('\\').next()?, widths.split('\\').next()?);
    let (count, other) = (centers.split('\\').count(), widths.split('\\').count());
    if count > 1 || other > 1 {
        notes.push(format!("{count} window centers and {other} widths: the first of each used"));
    }
    if center_text.is_empty() || width_text.is_empty() {
        notes.push("window empty: not used".into());
        return None;
    }
    let mut repaired = false;
    let mut value = |name: &str, text: &str| match number(text) {
        Some(value) => Some(value),
        None => {
            let found = repair(text);
            match found {
                Some(value) => {
                    repaired = true;
                    notes.push(format!("{name} {text:?} is not a decimal string: read as {value}"));
                }
                None => notes.push(format!("{name} {text:?} is not a number: window not used")),
            }
            found
        }
    };
    let center = value("Window Center (0028,1050)", center_text)?;
    let width = value("Window Width (0028,1051)", width_text)?;
    let function = function(data_set, notes);
    let wide_enough = if function == VoiFunction::Linear { width >= 1.0 } else { width > 0.0 };
    if !center.is_finite() || !width.is_finite() || !wide_enough {
        notes.push(format!("window of center {center} and width {width} is not valid: not used"));
        return None;
    }
    Some(Window { center, width, function, repaired })
}

/// What a number spoilt by commas was meant to be: `32688,` is 32688 and `2000,5` is 2000.5.
fn repair(text: &str) -> Option<f64> {
    let text = text.trim_matches([' ', '\0']).trim_end_matches([',', ';']);
    if text.matches(',').count() > 1 {
        return None;
    }
    number(&text.replace(',', "."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_linear_window_of_width_one_is_a_threshold() {
        let window = Window { center: 10.0, width: 1.0, function: VoiFunction::Linear, repaired: false };
        assert_eq!([9.0, 9.5, 9.6, 10.0].map(|x| window.map(x)), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_standards_examples() {
        // PS3.3 C.11.2.1.2.1: c = 2048, w = 4096 maps 0 and 4095 to the ends.
        let window = Window { center: 2048.0, width: 4096.0, function: VoiFunction::Linear, repaired: false };
        assert_eq!([window.map(0.0), window.map(4095.0)], [0.0, 1.0]);
        // C.11.2.1.3.2: exact, c = 127.5, w = 255.
        let window =
            Window { center: 127.5, width: 255.0, function: VoiFunction::LinearExact, repaired: false };
        assert_eq!([window.map(0.0), window.map(127.5), window.map(255.0)], [0.0, 0.5, 1.0]);
    }

    #[test]
    fn spoilt_numbers() {
        assert_eq!(repair("32688,          "), Some(32_688.0));
        assert_eq!(repair("2000,5"), Some(2000.5));
        assert_eq!(repair("1,2,3"), None);
        assert_eq!(repair("AUTO"), None);
        assert_eq!(repair("  "), None);
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let function = prop_oneof![
            Just(VoiFunction::Linear),
            Just(VoiFunction::LinearExact),
            Just(VoiFunction::Sigmoid)
        ];
        (-5000.0..5000.0, 1.0..9000.0, function).prop_map(|(center, width, function)| Window {
            center,
            width,
            function,
            repaired: false,
        })
    }

    proptest! {
        #[test]
        fn windows_rise_and_stay_in_range(window in any_window(), a in -1e4..1e4, step in 0.0..1e3) {
            let (low, high) = (window.map(a), window.map(a + step));
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            prop_assert!(high >= low - 1e-12);
        }

        #[test]
        fn both_scales_agree(window in any_window(), x in -1e4..1e4, low in -100.0..0.0, high in 1.0..70_000.0) {
            let expected = low + window.map(x) * (high - low);
            prop_assert!((window.map_to(x, low, high) - expected).abs() < 1e-6);
        }

        #[test]
        fn a_sigmoid_is_half_at_its_center(center in -5000.0..5000.0, width in 1.0..9000.0) {
            let window = Window { center, width, function: VoiFunction::Sigmoid, repaired: false };
            prop_assert_eq!(window.map(center), 0.5);
        }
    }
}

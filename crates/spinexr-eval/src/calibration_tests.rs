use super::*;
use crate::golden_sets;
use proptest::prelude::*;

fn data(films: &[(bool, f64)]) -> LabelledScores {
    let (labels, scores): (Vec<_>, Vec<_>) = films.iter().copied().unzip();
    LabelledScores::new(&labels, &scores).unwrap()
}

fn logits(data: &LabelledScores) -> LabelledScores {
    let logits: Vec<f64> = data.scores().iter().map(|p| p.ln() - (-p).ln_1p()).collect();
    LabelledScores::new(data.positive(), &logits).unwrap()
}

fn near(what: &str, got: f64, expected: &serde_json::Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance, "{what}: {got}, expected {expected}");
}

#[test]
fn equal_to_scikit_learn_and_statsmodels() {
    for set in ["plain", "rare"] {
        let data = golden_sets::scores(set);
        let wanted = golden_sets::results("metrics_calibration");
        let calibration = &wanted[set]["calibration"];
        let binary = &golden_sets::results("metrics_binary")[set];
        let line = calibration_line(&logits(&data)).unwrap();
        near("intercept", line.intercept, &calibration["intercept"], 1e-9);
        near("slope", line.slope, &calibration["slope"], 1e-9);
        near("in the large", line.in_the_large, &calibration["in_the_large"], 1e-9);
        // The reference minimises without derivatives, to half the digits.
        let fitted = fit_temperature(&logits(&data)).unwrap();
        near("temperature", fitted.temperature, &calibration["temperature"], 1e-6);
        let isotonic = fit_isotonic(&data).unwrap();
        let (at, values) =
            (calibration["isotonic_at"].as_array().unwrap(), calibration["isotonic"].as_array().unwrap());
        for (at, value) in at.iter().zip(values) {
            near(&format!("isotonic at {at}"), isotonic.probability(at.as_f64().unwrap()), value, 1e-9);
        }
        for (bins, key) in [(15, "ece15"), (10, "ece10")] {
            near(key, expected_calibration_error(&data, bins).unwrap(), &binary[key], 1e-12);
        }
    }
}

#[test]
fn a_temperature_lowers_the_loss_and_keeps_the_order() {
    let data = golden_sets::scores("plain");
    let wanted = golden_sets::results("metrics_calibration");
    let logits = logits(&data);
    let fitted = fit_temperature(&logits).unwrap();
    let calibrated: Vec<f64> = logits.scores().iter().map(|z| fitted.probability(*z)).collect();
    assert!(calibrated.windows(2).all(|w| w[0] >= w[1]));
    let after = LabelledScores::new(logits.positive(), &calibrated).unwrap();
    let loss = crate::binary::log_loss(&after).unwrap();
    near("log loss", loss, &wanted["plain"]["calibration"]["log_loss_after"], 1e-9);
    assert!(loss < crate::binary::log_loss(&data).unwrap());
}

#[test]
fn what_has_no_best_fit_is_none() {
    let separated = data(&[(true, 2.0), (true, 1.0), (false, -1.0), (false, -2.0)]);
    assert_eq!(calibration_line(&separated), None);
    assert_eq!(fit_temperature(&separated), None);
    let level = data(&[(true, 0.5), (false, 0.5), (true, 0.5)]);
    assert_eq!(calibration_line(&level), None);
    let one_class = data(&[(true, 0.5), (true, 1.5)]);
    assert_eq!(calibration_line(&one_class), None);
    assert_eq!(fit_temperature(&one_class), None);
    assert_eq!(fit_isotonic(&data(&[])), None);
    assert_eq!(reliability(&data(&[(true, 1.5)]), 10), None);
    assert_eq!(expected_calibration_error(&data(&[]), 10), None);
    // Worse than chance: no positive temperature is best.
    let inverted = data(&[(true, -2.0), (true, 1.0), (false, 2.0), (false, -1.0)]);
    assert_eq!(fit_temperature(&inverted), None);
}

#[test]
fn the_ends_of_the_range_have_bins() {
    let curve = reliability(&data(&[(true, 1.0), (false, 0.0), (true, 0.5)]), 2).unwrap();
    assert_eq!(curve[0].films, 1);
    assert_eq!((curve[1].films, curve[1].share_positive), (2, Some(1.0)));
    assert_eq!(reliability(&data(&[(true, 0.9)]), 2).unwrap()[0].mean_probability, None);
}

proptest! {
    #[test]
    fn an_isotonic_map_rises_and_keeps_the_mean(
        films in prop::collection::vec((any::<bool>(), (0u8..=20).prop_map(|s| f64::from(s) / 20.0)), 1..80),
    ) {
        let data = data(&films);
        let map = fit_isotonic(&data).unwrap();
        prop_assert!(map.corners.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
        let mean = films.iter().map(|f| map.probability(f.1)).sum::<f64>() / films.len() as f64;
        let share = data.positives() as f64 / films.len() as f64;
        prop_assert!((mean - share).abs() < 1e-9, "{} {}", mean, share);
    }
}

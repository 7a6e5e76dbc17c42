use super::*;

#[test]
fn default_thresholds_are_those_of_the_standard() {
    // T.87 table C.3: 8 bits, lossless: 3, 7, 21.
    assert!(Coding::new(8, 0, &Presets::default()).is_ok());
}

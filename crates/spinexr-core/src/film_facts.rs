//! What a film's header says of it that points to no person: bands and coded values, for figures by subgroup and for the
//! comparison of batches.
//!
//! No date, no identifier, no exact age: ages are bands of twenty years, the oldest open, and texts are codes or a maker's
//! name. What a header does not carry, or carries in a form that is no code, is `None`.

use serde::{Deserialize, Serialize};

/// Coded facts of one film. Absent ones are left out of files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FilmFacts {
    /// Patient's Sex (0010,0040): `F`, `M` or `O`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sex: Option<String>,
    /// Band of Patient's Age (0010,1010), see [`age_band`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// View Position (0018,5101).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Body Part Examined (0018,0015).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_part: Option<String>,
    /// Manufacturer (0008,0070), in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Band of the film's longer side, see [`size_band`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub film_size: Option<String>,
    /// Band of the Deviation Index (0018,1413), see [`exposure_band`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<String>,
    /// `lossy`, or `lossless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Bits Stored (0028,0101), such as `12 bits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<String>,
}

impl FilmFacts {
    /// Name and value of every fact, always in this order.
    pub fn named(&self) -> [(&'static str, Option<&str>); 9] {
        [
            ("sex", self.sex.as_deref()),
            ("age, years", self.age.as_deref()),
            ("view", self.view.as_deref()),
            ("body part", self.body_part.as_deref()),
            ("manufacturer", self.manufacturer.as_deref()),
            ("film size", self.film_size.as_deref()),
            ("exposure", self.exposure.as_deref()),
            ("compression", self.compression.as_deref()),
            ("depth", self.depth.as_deref()),
        ]
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `0-17`, `18-39`, `40-59`, `60-79`, or `80 and over`; `None` for what is no age.
pub fn age_band(years: f32) -> Option<String> {
    let band = match years {
        y if !(0.0..150.0).contains(&y) => return None,
        y if y < 18.0 => "0-17",
        y if y < 40.0 => "18-39",
        y if y < 60.0 => "40-59",
        y if y < 80.0 => "60-79",
        _ => "80 and over",
    };
    Some(band.to_owned())
}

/// Band of a film's longer side, which tells a cervical film from one of the whole spine.
pub fn size_band(longer_side_mm: f64) -> Option<String> {
    let band = match longer_side_mm {
        mm if !(mm > 0.0 && mm.is_finite()) => return None,
        mm if mm < 250.0 => "under 250 mm",
        mm if mm < 350.0 => "250-349 mm",
        mm if mm < 450.0 => "350-449 mm",
        _ => "450 mm and over",
    };
    Some(band.to_owned())
}

/// Band of a Deviation Index (IEC 62494-1): ten times the decimal logarithm of the exposure over the one aimed at. Within
/// ±1 an exposure is as it should be; beyond 3 it is half, or twice, what was wanted (AAPM report 116).
pub fn exposure_band(deviation_index: f64) -> Option<String> {
    let band = match deviation_index {
        di if !di.is_finite() => return None,
        di if di < -3.0 => "far under target",
        di if di < -1.0 => "under target",
        di if di <= 1.0 => "on target",
        di if di <= 3.0 => "over target",
        _ => "far over target",
    };
    Some(band.to_owned())
}

/// A coded value (PS3.5 6.2, VR CS): at most 16 capitals, digits, blanks and underscores; `None` for anything else, since a
/// field of free text may hold a name.
pub fn code(value: &str) -> Option<String> {
    let value = value.trim().to_ascii_uppercase();
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ' || c == '_';
    (!value.is_empty() && value.len() <= 16 && value.chars().all(legal)).then_some(value)
}

/// A maker's name in capitals, blanks run together; `None` for one that is empty, or longer than the standard's 64 characters.
pub fn maker(value: &str) -> Option<String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let name = words.join(" ").to_uppercase();
    let sound = !name.is_empty() && name.chars().count() <= 64 && !name.chars().any(char::is_control);
    sound.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_bands_and_the_oldest_stand_together() {
        let bands = [(0.5, "0-17"), (17.99, "0-17"), (18.0, "18-39"), (59.0, "40-59"), (79.9, "60-79")];
        for (years, band) in bands {
            assert_eq!(age_band(years).as_deref(), Some(band));
        }
        assert_eq!(age_band(80.0), age_band(104.0));
        for none in [-1.0, 999.0, f32::NAN] {
            assert_eq!(age_band(none), None);
        }
    }

    #[test]
    fn only_codes_pass_as_codes() {
        assert_eq!(code(" ap ").as_deref(), Some("AP"));
        assert_eq!(code("LSPINE").as_deref(), Some("LSPINE"));
        for none in ["", "Nguyen^Van A", "a text that is longer than a code", "L-SPINE"] {
            assert_eq!(code(none), None, "{none}");
        }
        assert_eq!(maker("  Siemens   Healthineers "), Some("SIEMENS HEALTHINEERS".to_owned()));
        assert_eq!(maker(&"x".repeat(65)), None);
    }

    #[test]
    fn sizes_and_exposures_have_an_end_at_both_sides() {
        assert_eq!(size_band(180.0).as_deref(), Some("under 250 mm"));
        assert_eq!(size_band(430.0).as_deref(), Some("350-449 mm"));
        assert_eq!(size_band(900.0).as_deref(), Some("450 mm and over"));
        assert_eq!((size_band(0.0), size_band(f64::INFINITY)), (None, None));
        assert_eq!(exposure_band(-1.0).as_deref(), Some("on target"));
        assert_eq!(exposure_band(-4.0).as_deref(), Some("far under target"));
        assert_eq!(exposure_band(3.1).as_deref(), Some("far over target"));
        assert_eq!(exposure_band(f64::NAN), None);
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let facts = FilmFacts { sex: Some("F".into()), ..FilmFacts::default() };
        assert_eq!(serde_json::to_string(&facts).unwrap(), r#"{"sex":"F"}"#);
        assert_eq!(serde_json::from_str::<FilmFacts>("{}").unwrap(), FilmFacts::default());
        assert!(FilmFacts::default().is_empty() && !facts.is_empty());
        assert_eq!(facts.named()[0], ("sex", Some("F")));
    }
}

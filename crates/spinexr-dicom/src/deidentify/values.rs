//! Values that take the place of others.

use dicom_core::VR;
use spinexr_core::calendar::{civil_from_days, days_from_civil};

/// A value of the VR that says nothing (action `D`). A UID is remapped instead, and a sequence emptied.
pub(super) fn dummy(vr: VR, old_length: usize) -> Vec<u8> {
    match vr {
        VR::PN | VR::LO | VR::SH | VR::LT | VR::ST | VR::UC | VR::UT | VR::CS | VR::AE => {
            b"DEIDENTIFIED".to_vec()
        }
        VR::DA => b"19000101".to_vec(),
        VR::DT => b"19000101000000".to_vec(),
        VR::TM => b"000000".to_vec(),
        VR::AS => b"000Y".to_vec(),
        VR::IS | VR::DS => b"0".to_vec(),
        // One number of the VR's width: how many there were may say something too.
        VR::US | VR::SS => vec![0; 2.min(old_length)],
        VR::UL | VR::SL | VR::FL | VR::AT => vec![0; 4.min(old_length)],
        VR::FD | VR::SV | VR::UV => vec![0; 8.min(old_length)],
        _ => Vec::new(),
    }
}

/// Dates (DA) or date-times (DT) of a value, `days` earlier; times (TM) as they are. `None` when any of them cannot
/// be understood to the day: half a date cannot be shifted.
pub(super) fn shifted(vr: VR, value: &[u8], days: i64) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    match vr {
        // Only what looks like a time: a free text under this VR is none.
        VR::TM => {
            text.bytes().all(|b| b.is_ascii_digit() || b":.\\ \0-".contains(&b)).then(|| value.to_vec())
        }
        VR::DA | VR::DT => {
            let parts: Option<Vec<String>> =
                text.split('\\').map(|part| shifted_one(part.trim_matches([' ', '\0']), vr, days)).collect();
            Some(parts?.join("\\").into_bytes())
        }
        _ => None,
    }
}

fn shifted_one(text: &str, vr: VR, days: i64) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    // `YYYY.MM.DD` of the time before 1993 (PS3.5 6.2, note to DA).
    let text = if vr == VR::DA && text.len() == 10 { text.replace('.', "") } else { text.to_owned() };
    let (date, rest) = text.split_at_checked(8)?;
    let sound_rest = rest.bytes().all(|b| b.is_ascii_digit() || b".+-".contains(&b));
    if !date.bytes().all(|b| b.is_ascii_digit()) || !sound_rest || (vr == VR::DA && !rest.is_empty()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| date[range].parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = days_from_civil(year, month, day) - days;
    // 30 February and the like come out as a day of March: not the day that was meant, but as far from the others.
    let (year, month, day) = civil_from_days(shifted);
    (0..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shift(vr: VR, text: &str, days: i64) -> Option<String> {
        shifted(vr, text.as_bytes(), days).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn dates_go_back_over_months_and_leap_years() {
        assert_eq!(shift(VR::DA, "20240301", 1).as_deref(), Some("20240229"));
        assert_eq!(shift(VR::DA, "20230301", 1).as_deref(), Some("20230228"));
        assert_eq!(shift(VR::DA, "2000.01.01", 1).as_deref(), Some("19991231"));
        assert_eq!(shift(VR::DA, "20200110\\20200111 ", 365).as_deref(), Some("20190110\\20190111"));
        assert_eq!(shift(VR::DT, "20200101123000.5+0700", 1).as_deref(), Some("20191231123000.5+0700"));
        assert_eq!(shift(VR::TM, "123000.25", 9).as_deref(), Some("123000.25"));
        assert_eq!(shift(VR::DA, "", 9).as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_day_is_not_shifted() {
        for (vr, text) in [
            (VR::DA, "2020"),
            (VR::DT, "202001"),
            (VR::DA, "Hansen01"),
            (VR::DA, "20201301"),
            (VR::DA, "20200101Hansen"),
            (VR::DT, "20200101Hansen"),
            (VR::TM, "Hansen"),
            (VR::LO, "20200101"),
            (VR::DA, "00000101"),
        ] {
            assert_eq!(shift(vr, text, 400), None, "{text}");
        }
    }
}

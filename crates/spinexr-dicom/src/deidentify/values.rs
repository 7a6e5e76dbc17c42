//! Values that take the place of others.

use dicom_core::VR;

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

/// Days from 1970-01-01 of a date of the Gregorian calendar, by counting years from March (H. Hinnant, "chrono-
/// Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shift(vr: VR, text: &str, days: i64) -> Option<String> {
        shifted(vr, text.as_bytes(), days).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn days_and_dates_are_inverse() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 3, 1), 11_017);
        for day in (-800_000..800_000).step_by(37) {
            let (year, month, of_month) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, of_month), day);
        }
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

//! What a check wants to know of a film: whose it is, whether it decodes, and what had to be excused in it.

use crate::attributes::number;
use crate::dataset::DataSet;
use crate::error::ReadError;
use crate::film::{FilmHeader, Provenance};
use crate::options::{Limits, ReadOptions};
use crate::read::{Head, Source};
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};
use std::path::Path;

/// A film's header, with what is only of use when films are told apart. Patient ID is in here and nowhere else, so
/// that it does not get into results by accident; there is no `Debug` for the same reason.
#[derive(Clone, PartialEq, Default)]
pub struct Examined {
    /// Height, px.
    pub height_px: u32,
    /// Width, px.
    pub width_px: u32,
    /// What the header says.
    pub header: FilmHeader,
    /// Patient ID (0010,0020), with its issuer (0010,0021) where there is one. Never to be printed.
    pub patient: Option<String>,
    /// Faults of the header that reading does not hang on, in words, without values of the patient.
    pub faults: Vec<String>,
}

/// The pixels of a film, as far as a check goes.
#[derive(Debug, Clone, PartialEq)]
pub struct ExaminedPixels {
    /// SHA-256 over height, width and the stored values of frame 0: the same for the same pixels, whatever their
    /// lossless coding and header.
    pub sha256: [u8; 32],
    /// What was done to the pixels, with what had to be excused.
    pub provenance: Provenance,
}

/// Reads a film's header. PNG and JPEG files have no more than a size.
///
/// # Errors
/// As [`crate::read_size`].
pub fn examine_header(path: &Path, limits: &Limits) -> Result<Examined, ReadError> {
    match Head::open(path, limits)?.dicom(path, limits)? {
        Some(data_set) if data_set.pixels.is_none() => Err(ReadError::NoPixelData { path: path.into() }),
        Some(data_set) => {
            let (rows, columns) = crate::pixel_format::size(path, &data_set)?;
            let header = of_header(path, &data_set);
            Ok(Examined { height_px: rows.into(), width_px: columns.into(), ..header })
        }
        None => {
            let (height_px, width_px) = crate::read_size(path, limits)?;
            let header = FilmHeader { image_id: crate::read::image_id(path), ..FilmHeader::default() };
            Ok(Examined { height_px, width_px, header, ..Examined::default() })
        }
    }
}

/// Reads a film from its bytes and decodes frame 0; `path` only names it.
///
/// # Errors
/// Any [`ReadError`] of [`crate::read_film`].
pub fn examine_film(
    path: &Path,
    bytes: Vec<u8>,
    options: &ReadOptions,
) -> Result<(Examined, ExaminedPixels), ReadError> {
    let source = Source::of_bytes(path, bytes, options)?;
    let examined = match &source {
        Source::Dicom { data_set, .. } => of_header(path, data_set),
        Source::Raster { .. } => Examined { header: source.film_header(), ..Examined::default() },
    };
    let mut hash = Sha256::new();
    let image = source.display(options, |stored| {
        hash.update((stored.height as u32).to_le_bytes());
        hash.update((stored.width as u32).to_le_bytes());
        // Row by row: one update a value would cost more than the hash.
        let mut row = Vec::with_capacity(4 * stored.width);
        for values in stored.values.chunks(stored.width.max(1)) {
            row.clear();
            row.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            hash.update(&row);
        }
    })?;
    let examined = Examined { height_px: image.height as u32, width_px: image.width as u32, ..examined };
    Ok((examined, ExaminedPixels { sha256: hash.finalize().into(), provenance: image.provenance }))
}

fn of_header(path: &Path, data_set: &DataSet) -> Examined {
    let issuer = data_set.charset_text(tags::ISSUER_OF_PATIENT_ID).unwrap_or_default();
    let patient = data_set.charset_text(tags::PATIENT_ID).map(|id| format!("{issuer}\0{id}"));
    Examined {
        height_px: 0,
        width_px: 0,
        header: data_set.film_header(crate::read::image_id(path)),
        patient,
        faults: header_faults(data_set),
    }
}

/// What the DX and CR modules demand and the file lacks. Faults that reading must get over are in the provenance's
/// notes.
fn header_faults(data_set: &DataSet) -> Vec<String> {
    let mut faults = Vec::new();
    let uids = [
        (tags::SOP_INSTANCE_UID, "SOP Instance UID (0008,0018)"),
        (tags::STUDY_INSTANCE_UID, "Study Instance UID (0020,000D)"),
        (tags::SERIES_INSTANCE_UID, "Series Instance UID (0020,000E)"),
    ];
    for (tag, name) in uids {
        match data_set.text(tag) {
            None => faults.push(format!("{name} is missing")),
            Some(uid) if !is_uid(&uid) => faults.push(format!("{name} is not a UID")),
            Some(_) => {}
        }
    }
    match data_set.text(tags::MODALITY) {
        None => faults.push("Modality (0008,0060) is missing".to_owned()),
        Some(modality) if !matches!(&*modality, "DX" | "CR" | "DR" | "RG" | "XR") => {
            // A code string of at most 16 characters of the standard's set is no patient's name.
            let known = modality.len() <= 4 && modality.bytes().all(|b| b.is_ascii_uppercase());
            let found = if known { modality.as_str() } else { "something else" };
            faults.push(format!("Modality (0008,0060) is {found}, expected DX or CR"));
        }
        Some(_) => {}
    }
    if let Some(sex) = data_set.text(tags::PATIENT_SEX)
        && !matches!(&*sex, "M" | "F" | "O")
    {
        faults.push("Patient's Sex (0010,0040) is none of M, F, O".to_owned());
    }
    if data_set.text(tags::PATIENT_AGE).is_some() && data_set.film_header(String::new()).age_years.is_none() {
        faults.push("Patient's Age (0010,1010) is not an age".to_owned());
    }
    for (tag, name) in [
        (tags::PIXEL_SPACING, "Pixel Spacing (0028,0030)"),
        (tags::IMAGER_PIXEL_SPACING, "Imager Pixel Spacing (0018,1164)"),
    ] {
        if let Some(text) = data_set.text(tag) {
            let sound =
                text.split('\\').filter(|part| number(part).is_some_and(|mm| mm > 0.0 && mm.is_finite()));
            if sound.count() != 2 {
                faults.push(format!("{name} is not two positive numbers"));
            }
        }
    }
    faults
}

/// PS3.5 9.1: at most 64 characters, components of digits without a leading zero.
fn is_uid(text: &str) -> bool {
    let component = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    text.len() <= 64 && text.split('.').all(component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DxFilm, DxSyntax, encode_dx};

    fn film(change: impl FnOnce(&mut DxFilm)) -> Vec<u8> {
        let mut film = DxFilm::new(6, 5, (0..30).collect());
        change(&mut film);
        encode_dx(&film)
    }

    fn examined(bytes: Vec<u8>) -> (Examined, ExaminedPixels) {
        examine_film(Path::new("a.dcm"), bytes, &ReadOptions::default()).unwrap()
    }

    #[test]
    fn the_same_pixels_have_one_hash_whatever_their_coding_and_header() {
        let hashes: Vec<_> = DxSyntax::ALL
            .into_iter()
            .map(|syntax| {
                let bytes = film(|f| {
                    f.transfer_syntax = syntax;
                    f.sex = 'M';
                    f.study_uid = "1.2.3".into();
                });
                examined(bytes).1.sha256
            })
            .collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]));
        assert_ne!(examined(film(|f| f.pixels[7] += 1)).1.sha256, hashes[0]);
        // The same values in another shape are another film.
        assert_ne!(examined(film(|f| (f.height_px, f.width_px) = (5, 6))).1.sha256, hashes[0]);
    }

    #[test]
    fn header_and_whole_file_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.dcm");
        let bytes = film(|f| f.patient_id = "P1".into());
        std::fs::write(&path, &bytes).unwrap();
        let whole = examine_film(&path, bytes, &ReadOptions::default()).unwrap().0;
        let head = examine_header(&path, &Limits::default()).unwrap();
        assert!(whole == head);
        assert_eq!((head.height_px, head.width_px), (6, 5));
        assert_eq!(head.patient.as_deref(), Some("\0P1"));
        assert!(head.faults.is_empty());
    }

    #[test]
    fn a_uid_is_told_from_other_text() {
        assert!(is_uid("1.2.840.0.10008"));
        for wrong in ["", "1..2", "1.02", "1.2a", "1.2.", &"1.".repeat(40)] {
            assert!(!is_uid(wrong), "{wrong}");
        }
    }
}

//! DX images (Digital X-Ray Image Storage – For Presentation, PS3.3 A.26) as DICOM files.

pub(crate) mod element;
pub(crate) mod header;
mod jpeg_lossless;
mod rle;

use crate::error::WriteError;
use element::{Encoding, encapsulated, native};
use sha2::{Digest, Sha256};
use spinexr_core::whole_file;
use std::io::Write;
use std::path::Path;

/// How the data set and the pixels of a written film are coded. None of them loses anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DxSyntax {
    /// Explicit VR Little Endian, 1.2.840.10008.1.2.1.
    ExplicitLe,
    /// Implicit VR Little Endian, 1.2.840.10008.1.2.
    ImplicitLe,
    /// Deflated Explicit VR Little Endian, 1.2.840.10008.1.2.1.99.
    Deflated,
    /// RLE Lossless, 1.2.840.10008.1.2.5.
    RleLossless,
    /// JPEG Lossless, process 14, selection value 1, 1.2.840.10008.1.2.4.70.
    JpegLossless,
}

impl DxSyntax {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ExplicitLe, Self::ImplicitLe, Self::Deflated, Self::RleLossless, Self::JpegLossless];

    /// Transfer Syntax UID.
    pub const fn uid(self) -> &'static str {
        match self {
            Self::ExplicitLe => "1.2.840.10008.1.2.1",
            Self::ImplicitLe => "1.2.840.10008.1.2",
            Self::Deflated => "1.2.840.10008.1.2.1.99",
            Self::RleLossless => "1.2.840.10008.1.2.5",
            Self::JpegLossless => "1.2.840.10008.1.2.4.70",
        }
    }
}

/// Most pixels of a written film: the lengths in a file are 32 bits wide, and no coding here doubles the size.
const MAX_PIXELS: u64 = 1 << 30;
/// Most windows of a written film.
const MAX_WINDOWS: usize = 64;

/// A radiograph to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct DxFilm {
    /// Height, px: 1 to 65535.
    pub height_px: u32,
    /// Width, px: 1 to 65535.
    pub width_px: u32,
    /// Stored values, row-major `[H, W]`, each below `2^bits_stored`.
    pub pixels: Vec<u16>,
    /// Bits Stored (0028,0101), 9 to 16.
    pub bits_stored: u8,
    /// MONOCHROME1 (high values are dark) instead of MONOCHROME2.
    pub monochrome1: bool,
    /// Windows as (center, width), in units of the modality step's output. At least one.
    pub windows: Vec<(f64, f64)>,
    /// Text of Window Center (0028,1050) as it is to stand in the file, in place of the windows' centers.
    /// For files with the faults of real ones, such as `32688,`.
    pub window_center_raw: Option<String>,
    /// Rescale as (slope, intercept). `None` writes 1 and 0, which PS3.3 C.8.11.3 demands of DX.
    pub rescale: Option<(f64, f64)>,
    /// Coding of the data set and the pixels.
    pub transfer_syntax: DxSyntax,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// Study Instance UID (0020,000D).
    pub study_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_uid: String,
    /// Instance Number (0020,0013).
    pub instance_number: u32,
    /// Patient ID (0010,0020), also written as the name.
    pub patient_id: String,
    /// Patient's Sex (0010,0040): `M`, `F` or `O`.
    pub sex: char,
    /// Patient's Age (0010,1010), years, at most 999.
    pub age_years: u32,
    /// View Position (0018,5101): `AP`, `PA`, `LL`, `RL` …
    pub view_position: String,
    /// Body Part Examined (0018,0015): `LSPINE`, `CSPINE` …
    pub body_part: String,
    /// Row and column spacing, mm.
    pub pixel_spacing_mm: [f64; 2],
    /// Manufacturer (0008,0070).
    pub manufacturer: String,
    /// Manufacturer's Model Name (0008,1090).
    pub model_name: String,
    /// Study Date (0008,0020), `YYYYMMDD`, or empty.
    pub study_date: String,
    /// De-identification Method (0012,0063).
    pub deidentification_method: String,
}

impl DxFilm {
    /// A 12-bit MONOCHROME2 film of `pixels`, row-major `[height_px, width_px]`, with one window over the
    /// full range and UIDs derived from the pixels. Meant to be changed field by field.
    pub fn new(height_px: u32, width_px: u32, pixels: Vec<u16>) -> Self {
        let mut hash = Sha256::new();
        for value in &pixels {
            hash.update(value.to_le_bytes());
        }
        let seed = hash.finalize();
        let uid = |role: &str| derived_uid(&[role.as_bytes(), &seed[..]].concat());
        Self {
            height_px,
            width_px,
            pixels,
            bits_stored: 12,
            monochrome1: false,
            windows: vec![(2048.0, 4096.0)],
            window_center_raw: None,
            rescale: None,
            transfer_syntax: DxSyntax::ExplicitLe,
            sop_instance_uid: uid("instance"),
            study_uid: uid("study"),
            series_uid: uid("series"),
            instance_number: 1,
            patient_id: "SYNTHETIC".into(),
            sex: 'O',
            age_years: 50,
            view_position: "AP".into(),
            body_part: "LSPINE".into(),
            pixel_spacing_mm: [0.14, 0.14],
            manufacturer: "spinexr".into(),
            model_name: "spinexr synth".into(),
            study_date: String::new(),
            deidentification_method: "Generated image of no real patient".into(),
        }
    }

    /// Whether the film can be written.
    ///
    /// # Errors
    /// [`WriteError::Film`] names the first field that a DX image cannot hold.
    pub fn check(&self) -> Result<(), WriteError> {
        let fail = |field: &'static str, expected: &str, found: String| {
            Err(WriteError::Film { field, expected: expected.into(), found })
        };
        for (field, size) in [("height_px", self.height_px), ("width_px", self.width_px)] {
            if size == 0 || size > 65_535 {
                return fail(field, "1 to 65535", size.to_string());
            }
        }
        let count = u64::from(self.height_px) * u64::from(self.width_px);
        if count > MAX_PIXELS {
            return fail("height_px, width_px", &format!("at most {MAX_PIXELS} pixels"), count.to_string());
        }
        if self.pixels.len() as u64 != count {
            return fail("pixels", &format!("{count} values"), self.pixels.len().to_string());
        }
        if !(9..=16).contains(&self.bits_stored) {
            return fail("bits_stored", "9 to 16", self.bits_stored.to_string());
        }
        let max = u16::MAX >> (16 - self.bits_stored);
        if let Some(value) = self.pixels.iter().find(|&&v| v > max) {
            return fail("pixels", &format!("values up to {max}"), value.to_string());
        }
        if self.windows.is_empty() || self.windows.len() > MAX_WINDOWS {
            return fail("windows", &format!("1 to {MAX_WINDOWS} windows"), self.windows.len().to_string());
        }
        if let Some(raw) = self.window_center_raw.as_ref().filter(|raw| raw.len() > 1024) {
            return fail("window_center_raw", "at most 1024 bytes", raw.len().to_string());
        }
        if !matches!(self.sex, 'M' | 'F' | 'O') {
            return fail("sex", "M, F or O", format!("{:?}", self.sex));
        }
        let numbers = self.windows.iter().flat_map(|&(center, width)| [center, width]);
        let numbers = numbers.chain(self.rescale.iter().flat_map(|&(slope, intercept)| [slope, intercept]));
        if let Some(v) = numbers.chain(self.pixel_spacing_mm).find(|v| !v.is_finite()) {
            return fail("windows, rescale, pixel_spacing_mm", "finite numbers", v.to_string());
        }
        for (field, uid) in [
            ("sop_instance_uid", &self.sop_instance_uid),
            ("study_uid", &self.study_uid),
            ("series_uid", &self.series_uid),
        ] {
            let of_digits = uid.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if uid.is_empty() || uid.len() > 64 || !of_digits {
                return fail(field, "a UID of at most 64 digits and dots", format!("{uid:?}"));
            }
        }
        if self.age_years > 999 {
            return fail("age_years", "at most 999", self.age_years.to_string());
        }
        for (field, text) in [
            ("patient_id", &self.patient_id),
            ("manufacturer", &self.manufacturer),
            ("model_name", &self.model_name),
            ("deidentification_method", &self.deidentification_method),
        ] {
            if text.chars().count() > 64 || text.contains(['\\', '\0']) {
                return fail(field, "at most 64 characters without a backslash", format!("{text:?}"));
            }
        }
        for (field, code) in [("view_position", &self.view_position), ("body_part", &self.body_part)] {
            let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b' ';
            if code.len() > 16 || !code.bytes().all(allowed) {
                return fail(field, "at most 16 of A-Z, 0-9, _ and space", format!("{code:?}"));
            }
        }
        if !(self.study_date.is_empty()
            || self.study_date.len() == 8 && self.study_date.bytes().all(|b| b.is_ascii_digit()))
        {
            return fail("study_date", "YYYYMMDD or nothing", format!("{:?}", self.study_date));
        }
        Ok(())
    }
}

/// A UID under 2.25 (PS3.5 B.2) from the SHA-256 of `seed`: the same seed gives the same UID.
pub fn derived_uid(seed: &[u8]) -> String {
    uuid_uid(&Sha256::digest(seed).into())
}

/// A UID under 2.25 from the first 16 bytes of a hash.
pub(crate) fn uuid_uid(hash: &[u8; 32]) -> String {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    // The root stands for UUIDs: mark these bits as version 8 (custom), variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// Implementation Class UID (0002,0012) of all files that this crate writes.
pub(crate) fn implementation_class_uid() -> String {
    derived_uid(b"spinexr implementation class")
}

/// The film as the bytes of a DICOM file. The same film gives the same bytes.
///
/// # Panics
/// When [`DxFilm::check`] would return an error.
pub fn encode_dx(film: &DxFilm) -> Vec<u8> {
    if let Err(error) = film.check() {
        panic!("encode_dx needs a film that passes DxFilm::check: {error}");
    }
    let encoding = match film.transfer_syntax {
        DxSyntax::ImplicitLe => Encoding::Implicit,
        _ => Encoding::Explicit,
    };
    let mut body = Vec::with_capacity(2 * film.pixels.len() + 4096);
    header::write(film, encoding, &mut body);
    let (height, width) = (film.height_px as usize, film.width_px as usize);
    match film.transfer_syntax {
        DxSyntax::ExplicitLe | DxSyntax::ImplicitLe | DxSyntax::Deflated => {
            native(&film.pixels, encoding, &mut body);
        }
        DxSyntax::RleLossless => encapsulated(&rle::encode(&film.pixels, width), &mut body),
        DxSyntax::JpegLossless => {
            encapsulated(&jpeg_lossless::encode(&film.pixels, height, width, film.bits_stored), &mut body);
        }
    }
    let mut file = header::preamble_and_meta(
        header::DX_FOR_PRESENTATION,
        &film.sop_instance_uid,
        film.transfer_syntax.uid(),
    );
    if film.transfer_syntax == DxSyntax::Deflated {
        deflate(&body, &mut file);
    } else {
        file.append(&mut body);
    }
    file
}

/// Appends the raw deflate stream of `body`, padded to even length (PS3.5 A.5).
fn deflate(body: &[u8], file: &mut Vec<u8>) {
    let mut encoder = flate2::write::DeflateEncoder::new(&mut *file, flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.try_finish()).expect("a vector takes every write");
    drop(encoder);
    if !file.len().is_multiple_of(2) {
        file.push(0);
    }
}

/// Writes the film to `path`, whole or not at all.
///
/// # Errors
/// [`WriteError::Film`] when the film cannot be a DX image, [`WriteError::Io`] when the file system refuses.
pub fn write_dx(path: &Path, film: &DxFilm) -> Result<(), WriteError> {
    film.check()?;
    whole_file::write(path, &encode_dx(film)).map_err(|source| WriteError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_uids_are_valid_and_repeatable() {
        let uid = derived_uid(b"film 1");
        assert!(uid.starts_with("2.25.") && uid.len() <= 64);
        assert_eq!(uid, derived_uid(b"film 1"));
        assert_ne!(uid, derived_uid(b"film 2"));
    }

    #[test]
    fn a_film_that_dx_cannot_hold_is_refused_by_field() {
        let good = DxFilm::new(2, 3, vec![0, 1, 2, 3, 4, 4095]);
        assert!(good.check().is_ok());
        let cases: [(&str, DxFilm); 7] = [
            ("sex", DxFilm { sex: 'x', ..good.clone() }),
            ("pixels", DxFilm { width_px: 4, ..good.clone() }),
            ("pixels", DxFilm { bits_stored: 10, ..good.clone() }),
            ("height_px", DxFilm { height_px: 0, ..good.clone() }),
            ("windows", DxFilm { windows: vec![], ..good.clone() }),
            ("study_uid", DxFilm { study_uid: "abc".into(), ..good.clone() }),
            ("view_position", DxFilm { view_position: "ap".into(), ..good.clone() }),
        ];
        for (expected, film) in cases {
            match film.check() {
                Err(WriteError::Film { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}

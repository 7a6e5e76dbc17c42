//! A small film in every compressed transfer syntax that is read and not written, with the values it must give.
//!
//! `spinexr doctor` decodes them, and so do the tests. The picture is synthetic; `samples/make_samples.py` wrote the
//! files with reference encoders.

/// A film and its stored values.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Coding, in a few words.
    pub name: &'static str,
    /// Transfer Syntax UID.
    pub transfer_syntax: &'static str,
    /// The DICOM file.
    pub file: &'static [u8],
    /// Largest difference to a stored value that rounding may make; 0 when decoding is exact.
    pub tolerance: i32,
    stored: &'static [u8],
}

impl Sample {
    /// The stored values, row-major `[H, W]`.
    pub fn stored(&self) -> Vec<i32> {
        self.stored.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()
    }

    /// Largest difference of decoded values to [`Self::stored`]; `None` when their number differs.
    pub fn largest_difference(&self, decoded: &[i32]) -> Option<i32> {
        let stored = self.stored();
        let differences = stored.iter().zip(decoded).map(|(a, b)| (a - b).abs());
        (stored.len() == decoded.len()).then(|| differences.max().unwrap_or(0))
    }
}

macro_rules! sample {
    ($name:literal, $syntax:literal, $file:literal, $stored:literal, $tolerance:literal) => {
        Sample {
            name: $name,
            transfer_syntax: concat!("1.2.840.10008.1.2.4.", $syntax),
            file: include_bytes!(concat!("../samples/", $file, ".dcm")),
            tolerance: $tolerance,
            stored: include_bytes!(concat!("../samples/", $stored, ".raw")),
        }
    };
}

/// All samples.
pub const SAMPLES: &[Sample] = &[
    sample!("JPEG baseline", "50", "baseline", "baseline", 2),
    sample!("JPEG extended 12-bit", "51", "extended_12_bit", "extended_12_bit", 2),
    sample!("JPEG lossless, any predictor", "57", "lossless", "picture", 0),
    sample!("JPEG-LS lossless", "80", "jpeg_ls", "picture", 0),
    sample!("JPEG-LS with restarts", "80", "jpeg_ls_restarts", "picture", 0),
    sample!("JPEG-LS signed 16-bit", "80", "jpeg_ls_signed", "picture_signed", 0),
    sample!("JPEG-LS near-lossless", "81", "jpeg_ls_near", "jpeg_ls_near", 0),
    sample!("JPEG 2000 lossless", "90", "jpeg_2000", "picture", 0),
    sample!("JPEG 2000 signed 16-bit", "90", "jpeg_2000_signed", "picture_signed", 0),
    sample!("JPEG 2000", "91", "jpeg_2000_lossy", "jpeg_2000_lossy", 1),
    sample!("HTJ2K lossless", "201", "htj2k", "picture", 0),
    sample!("HTJ2K signed 16-bit", "201", "htj2k_signed", "picture_signed", 0),
    sample!("HTJ2K lossless RPCL, tiled", "202", "htj2k_rpcl", "picture", 0),
    sample!("HTJ2K", "203", "htj2k_lossy", "htj2k_lossy", 1),
];

//! JPEG baseline and lossless colour through dicom-rs' decoder, 12-bit DCT and lossless grey through our own, fenced in: the frame header is compared with the data
//! set before anything is decoded, and a panic of the decoder is an error of the file.

use super::{Colour, Samples, jpeg_dct, jpeg_lossless};
use crate::pixel_format::PixelFormat;
use dicom_core::smallvec::smallvec;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

const BASELINE: &str = "1.2.840.10008.1.2.4.50";
const EXTENDED: &str = "1.2.840.10008.1.2.4.51";
const PROGRESSIVE_SPECTRAL: &str = "1.2.840.10008.1.2.4.53";
const PROGRESSIVE_FULL: &str = "1.2.840.10008.1.2.4.55";
const LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
const LOSSLESS_SV1: &str = "1.2.840.10008.1.2.4.70";

/// Whether [`decode`] knows the transfer syntax.
pub(super) fn decodes(uid: &str) -> bool {
    matches!(uid, BASELINE | EXTENDED | PROGRESSIVE_SPECTRAL | PROGRESSIVE_FULL | LOSSLESS | LOSSLESS_SV1)
}

/// What the frame header (T.81 B.2.2) says.
#[derive(Debug, PartialEq, Eq)]
struct FrameHeader {
    /// Number of the SOF marker: 0 baseline, 1 extended, 2 progressive, 3 lossless.
    process: u8,
    precision: u32,
    height: usize,
    width: usize,
    components: usize,
}

pub(super) fn decode(stream: &[u8], format: &PixelFormat, uid: &str) -> Result<Samples, String> {
    let header = frame_header(stream)?;
    let lossless = header.process == 3;
    let expected: &[u8] = match uid {
        LOSSLESS | LOSSLESS_SV1 => &[3],
        PROGRESSIVE_SPECTRAL | PROGRESSIVE_FULL => &[2],
        _ => &[0, 1],
    };
    if !expected.contains(&header.process) {
        return Err(format!("frame header SOF{} does not belong to this transfer syntax", header.process));
    }
    if (header.height, header.width) != (format.height, format.width) {
        return Err(format!(
            "expected {} x {} pixels (rows x columns), the JPEG holds {} x {}",
            format.height, format.width, header.height, header.width
        ));
    }
    if header.components != format.samples_per_pixel {
        return Err(format!(
            "expected {} samples per pixel, the JPEG holds {}",
            format.samples_per_pixel, header.components
        ));
    }
    if header.precision > format.bits_allocated || header.precision < 2 {
        let allocated = format.bits_allocated;
        return Err(format!("JPEG of {} bits for Bits Allocated {allocated}", header.precision));
    }
    // Every lossless sample takes a bit at least, and every block of 64 as much.
    let least_bits = format.frame_samples() / if lossless { 1 } else { 64 * format.samples_per_pixel };
    if stream.len().saturating_mul(8) < least_bits {
        return Err(format!("{} bytes cannot hold {} samples", stream.len(), format.frame_samples()));
    }

    if !lossless && header.precision == 12 {
        if header.process == 0 || header.components != 1 {
            return Err("12-bit DCT is decoded for one grey component (SOF1 and SOF2) only".into());
        }
        let values = jpeg_dct::decode_12_bit(stream, format.height, format.width)?;
        return Ok(Samples { values, colour: Colour::AsDeclared, precision: Some(12) });
    }

    if lossless && header.components == 1 {
        let (height, width, precision) = (format.height, format.width, header.precision);
        let values = jpeg_lossless::decode(stream, height, width, precision)?;
        return Ok(Samples { values, colour: Colour::AsDeclared, precision: Some(precision) });
    }

    // dicom-rs does not list the retired syntaxes; their streams of 8 bits go where the extended ones go.
    let uid = if header.process == 2 { EXTENDED } else { uid };
    let one_frame = OneFrame { stream, header: &header, uid };
    let bytes = match catch_unwind(AssertUnwindSafe(|| run_codec(&one_frame))) {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(reason)) => return Err(reason),
        Err(_) => return Err("the decoder gave up on a corrupt stream".into()),
    };
    let wide = header.precision > 8;
    let expected = format.frame_samples() * if wide { 2 } else { 1 };
    if bytes.len() != expected {
        return Err(format!("expected {expected} decoded bytes, found {}", bytes.len()));
    }
    let values = if wide {
        bytes.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect()
    } else {
        bytes.iter().map(|&b| u16::from(b)).collect()
    };
    let colour = if header.components == 3 { Colour::Rgb } else { Colour::AsDeclared };
    Ok(Samples { values, colour, precision: Some(header.precision) })
}

fn run_codec(frame: &OneFrame) -> Result<Vec<u8>, String> {
    let syntax = TransferSyntaxRegistry.get(frame.uid).ok_or("no such transfer syntax")?;
    let Codec::EncapsulatedPixelData(Some(reader), _) = syntax.codec() else {
        return Err("this build has no JPEG decoder".into());
    };
    let mut bytes = Vec::new();
    reader.decode_frame(frame, 0, &mut bytes).map_err(|e| crate::dataset::chain(&e))?;
    Ok(bytes)
}

/// The first frame header of a JPEG stream.
fn frame_header(stream: &[u8]) -> Result<FrameHeader, &'static str> {
    if !stream.starts_with(&[0xFF, 0xD8]) {
        return Err("expected a JPEG stream (FF D8)");
    }
    let mut at = 2;
    loop {
        let Some(&[0xFF, marker]) = stream.get(at..at + 2) else {
            return Err("expected a JPEG marker before the frame header");
        };
        match marker {
            0xFF => at += 1, // fill byte
            0x01 | 0xD0..=0xD8 => at += 2,
            0xD9 | 0xDA => return Err("the JPEG has no frame header before its scan"),
            _ => {
                let Some(&[high, low]) = stream.get(at + 2..at + 4) else {
                    return Err("the JPEG ends inside a marker segment");
                };
                let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
                if !is_frame {
                    at += 2 + usize::from(u16::from_be_bytes([high, low]));
                    continue;
                }
                let Some(&[precision, h0, h1, w0, w1, components]) = stream.get(at + 4..at + 10) else {
                    return Err("the JPEG ends inside its frame header");
                };
                return Ok(FrameHeader {
                    process: marker - 0xC0,
                    precision: u32::from(precision),
                    height: usize::from(u16::from_be_bytes([h0, h1])),
                    width: usize::from(u16::from_be_bytes([w0, w1])),
                    components: usize::from(components),
                });
            }
        }
    }
}

/// One frame in the form dicom-rs' codecs take. It shows them the JPEG's own geometry, which has been checked.
struct OneFrame<'a> {
    stream: &'a [u8],
    header: &'a FrameHeader,
    uid: &'a str,
}

impl PixelDataObject for OneFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.uid
    }
    fn rows(&self) -> Option<u16> {
        u16::try_from(self.header.height).ok()
    }
    fn cols(&self) -> Option<u16> {
        u16::try_from(self.header.width).ok()
    }
    fn samples_per_pixel(&self) -> Option<u16> {
        u16::try_from(self.header.components).ok()
    }
    fn bits_allocated(&self) -> Option<u16> {
        Some(if self.header.precision > 8 { 16 } else { 8 })
    }
    fn bits_stored(&self) -> Option<u16> {
        u16::try_from(self.header.precision).ok()
    }
    fn photometric_interpretation(&self) -> Option<&str> {
        Some(if self.header.components == 3 { "RGB" } else { "MONOCHROME2" })
    }
    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }
    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }
    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.stream))
    }
    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }
    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: smallvec![self.stream.to_vec()], offset_table: smallvec![] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_header_is_found_behind_other_segments() {
        let stream =
            [0xFF, 0xD8, 0xFF, 0xFE, 0, 4, 1, 2, 0xFF, 0xFF, 0xC3, 0, 11, 12, 0, 5, 0, 7, 1, 1, 0x11, 0];
        let expected = FrameHeader { process: 3, precision: 12, height: 5, width: 7, components: 1 };
        assert_eq!(frame_header(&stream), Ok(expected));
        for cut in 0..stream.len() - 4 {
            assert!(frame_header(&stream[..cut]).is_err(), "{cut}");
        }
    }
}

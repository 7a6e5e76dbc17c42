//! One frame of Pixel Data (7FE0,0010) as samples.

mod jpeg;
mod jpeg2000;
mod jpeg_dct;
mod jpeg_entropy;
mod jpeg_lossless;
mod jpeg_ls;
mod native;
mod rle;

use crate::dataset::{DataSet, PixelLocation};
use crate::error::ReadError;
use crate::pixel_format::{Photometric, PixelFormat};
use crate::syntax::unsupported;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

/// Colour of decoded samples, where decoding changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// As Photometric Interpretation (0028,0004) says.
    AsDeclared,
    /// RGB, converted by the codec.
    Rgb,
}

/// Samples of one frame as the file codes them: unused bits not yet dropped, signs not yet extended.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Row-major; the samples of a pixel lie together.
    pub values: Vec<u16>,
    pub colour: Colour,
    /// Bits the codec itself declares, when that is a JPEG.
    pub precision: Option<u32>,
}

/// Decodes `frame`, which must be below `format.frames`.
pub(crate) fn decode_frame(
    path: &Path,
    data_set: &DataSet,
    format: &PixelFormat,
    frame: u32,
    notes: &mut Vec<String>,
) -> Result<Samples, ReadError> {
    let syntax = &data_set.syntax;
    let fail = |reason: String| ReadError::Pixels { path: path.into(), syntax: syntax.name.clone(), reason };
    let encapsulating = syntax.parsed_as.is_encapsulated_pixel_data();
    match &data_set.pixels {
        None | Some(PixelLocation::Present) => Err(ReadError::NoPixelData { path: path.into() }),
        Some(PixelLocation::Native(_)) if format.photometric == Photometric::YbrWavelet => {
            Err(fail("YBR_RCT and YBR_ICT exist in JPEG 2000 only".into()))
        }
        Some(PixelLocation::Native(element)) if !encapsulating => {
            native::decode(data_set, element, format, frame, notes).map_err(fail)
        }
        Some(PixelLocation::Native(_)) => Err(fail("expected fragments, found one native value".into())),
        Some(PixelLocation::Encapsulated { .. }) if !encapsulating => {
            Err(fail("expected one native value, found fragments".into()))
        }
        Some(PixelLocation::Encapsulated { offsets, fragments }) => {
            let coding = Coding::of(&syntax.uid).ok_or_else(|| unsupported(path, &syntax.uid))?;
            if format.photometric == Photometric::YbrWavelet && coding != Coding::Jpeg2000 {
                return Err(fail("YBR_RCT and YBR_ICT exist in JPEG 2000 only".into()));
            }
            let stream =
                frame_stream(&data_set.bytes, offsets, fragments, format.frames, frame).map_err(fail)?;
            match coding {
                Coding::Rle => rle::decode(&stream, format),
                Coding::Jpeg => jpeg::decode(&stream, format, &syntax.uid),
                Coding::JpegLs => jpeg_ls::decode(&stream, format),
                Coding::Jpeg2000 => jpeg2000::decode(&stream, format, &syntax.uid),
            }
            .map_err(fail)
        }
    }
}

/// Families of codings that come in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Rle,
    /// Baseline, extended and lossless.
    Jpeg,
    JpegLs,
    /// High-Throughput included.
    Jpeg2000,
}

impl Coding {
    /// The family of a transfer syntax; `None` when it is not decoded here.
    fn of(uid: &str) -> Option<Self> {
        match uid {
            "1.2.840.10008.1.2.5" => Some(Self::Rle),
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Some(Self::JpegLs),
            _ if jpeg::decodes(uid) => Some(Self::Jpeg),
            _ if jpeg2000::decodes(uid) => Some(Self::Jpeg2000),
            _ => None,
        }
    }
}

/// The coded bytes of one frame: its fragment, or several put together (PS3.5 A.4).
fn frame_stream<'a>(
    bytes: &'a [u8],
    offsets: &[u32],
    fragments: &[Range<usize>],
    frames: u32,
    frame: u32,
) -> Result<Cow<'a, [u8]>, String> {
    let (frames, frame) = (frames as usize, frame as usize);
    let wanted = if fragments.is_empty() {
        return Err("there is no fragment after the offset table".into());
    } else if frames == 1 {
        fragments
    } else if fragments.len() == frames {
        &fragments[frame..=frame]
    } else if offsets.len() == frames {
        // Offsets count from the first fragment's item header, which takes 8 bytes before the fragment.
        let origin = fragments[0].start;
        let begin = origin + offsets[frame] as usize;
        let end = offsets.get(frame + 1).map_or(usize::MAX, |&next| origin + next as usize);
        let first = fragments.partition_point(|f| f.start < begin);
        let last = fragments.partition_point(|f| f.start < end);
        fragments.get(first..last).unwrap_or_default()
    } else {
        return Err(format!("{} fragments for {frames} frames, and no offset table", fragments.len()));
    };
    match wanted {
        [] => Err(format!("no fragment belongs to frame {frame}")),
        [one] => Ok(Cow::Borrowed(&bytes[one.clone()])),
        many => Ok(Cow::Owned(many.iter().flat_map(|f| &bytes[f.clone()]).copied().collect())),
    }
}

//! Films from files: the format is told by content, and every step is recorded.

use crate::dataset::{DataSet, Extent, parse};
use crate::error::ReadError;
use crate::film::{Display, FilmHeader, Format, Provenance, Radiograph, StageData, StageImage};
use crate::options::{Limits, Policy, ReadOptions, Stage};
use crate::pixel_format::{Photometric, PixelFormat};
use crate::standard::{Applied, display_table, modality_table, voi_table};
use crate::stored::{Stored, read_stored};
use crate::viewer::ViewerPixels;
use crate::{pixel_format, raster, syntax, vindr};
use dicom_dictionary_std::tags;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read of a file when only its header is wanted. Headers are mostly a few kB.
pub(crate) const HEAD_BYTES: u64 = 1 << 16;

/// A film ready for a model or a viewer.
///
/// # Errors
/// Any [`ReadError`]; the film's file is named in it.
pub fn read_film(path: &Path, options: &ReadOptions) -> Result<Radiograph, ReadError> {
    let source = Source::open(path, options)?;
    let header = source.film_header();
    let image = source.stage(Stage::Display, options)?;
    let display = match image.data {
        StageData::U8(pixels) => Display::U8(pixels),
        StageData::F32(pixels) => Display::F32(pixels),
        StageData::I32(_) | StageData::F64(_) => unreachable!("the display stage is u8 or f32"),
    };
    Ok(Radiograph {
        height_px: image.height as u32,
        width_px: image.width as u32,
        display,
        header,
        provenance: image.provenance,
    })
}

/// The pixels of one stage, in the stage's own type.
///
/// Modality and VOI are those of the standard under either policy; they differ in the display stage.
///
/// # Errors
/// Any [`ReadError`]; the film's file is named in it.
pub fn read_stage(path: &Path, stage: Stage, options: &ReadOptions) -> Result<StageImage, ReadError> {
    Source::open(path, options)?.stage(stage, options)
}

/// The pixels of a film for a viewer whose user moves the window; decoded once.
///
/// # Errors
/// Any [`ReadError`]; the film's file is named in it.
pub fn read_viewer_pixels(path: &Path, options: &ReadOptions) -> Result<ViewerPixels, ReadError> {
    let source = Source::open(path, options)?;
    let (stored, mut notes) = source.stored(options)?;
    Ok(match &source {
        Source::Dicom { data_set, .. } => ViewerPixels::of(data_set, &stored, &mut notes),
        Source::Raster { .. } => ViewerPixels::of(&DataSet::empty(), &stored, &mut notes),
    })
}

/// As [`read_stage`], of a file that is already in memory; `path` only names it, in errors and by its extension.
///
/// # Errors
/// Any [`ReadError`]; `path` is named in it.
pub fn read_stage_from(
    path: &Path,
    bytes: Vec<u8>,
    stage: Stage,
    options: &ReadOptions,
) -> Result<StageImage, ReadError> {
    Source::of_bytes(path, bytes, options)?.stage(stage, options)
}

/// Height and width in px, without decoding.
///
/// # Errors
/// Any [`ReadError`]; a file without an image is one.
pub fn read_size(path: &Path, limits: &Limits) -> Result<(u32, u32), ReadError> {
    let head = Head::open(path, limits)?;
    match head.format {
        Format::Dicom => {
            let data_set = head.data_set(path, limits)?;
            if data_set.pixels.is_none() {
                return Err(ReadError::NoPixelData { path: path.into() });
            }
            let (rows, columns) = pixel_format::size(path, &data_set)?;
            Ok((rows.into(), columns.into()))
        }
        format => match raster::size(path, &head.bytes, format, limits) {
            Err(_) if !head.complete => {
                raster::size(path, &read_bytes(path, u64::MAX, limits)?.0, format, limits)
            }
            size => size,
        },
    }
}

/// What the header says, without decoding pixels. PNG and JPEG files have no header beyond their name.
///
/// # Errors
/// Any [`ReadError`].
pub fn read_header(path: &Path, limits: &Limits) -> Result<FilmHeader, ReadError> {
    let head = Head::open(path, limits)?;
    match head.format {
        Format::Dicom => Ok(head.data_set(path, limits)?.film_header(image_id(path))),
        _ => Ok(FilmHeader { image_id: image_id(path), ..FilmHeader::default() }),
    }
}

/// The header of a DICOM file, as far as Pixel Data.
pub(crate) fn read_data_set(path: &Path, limits: &Limits) -> Result<DataSet, ReadError> {
    let head = Head::open(path, limits)?;
    no_raster(path, head.format)?;
    head.data_set(path, limits)
}

/// As [`read_data_set`], of a file that is already in memory.
pub(crate) fn data_set_of_bytes(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<DataSet, ReadError> {
    within_limit(path, bytes.len() as u64, limits)?;
    no_raster(path, sniff(path, &bytes)?)?;
    parse(path, bytes, true, Extent::Header, limits)
}

fn no_raster(path: &Path, format: Format) -> Result<(), ReadError> {
    let format = match format {
        Format::Dicom => return Ok(()),
        Format::Png => "PNG",
        Format::Jpeg => "JPEG",
    };
    Err(ReadError::NoDicomHeader { path: path.into(), format })
}

/// Refuses a file of more bytes than the limit.
fn within_limit(path: &Path, found: u64, limits: &Limits) -> Result<(), ReadError> {
    let limit = limits.max_file_bytes;
    if found > limit {
        return Err(ReadError::TooLarge { path: path.into(), what: "the file in bytes", found, limit });
    }
    Ok(())
}

/// File stem. Only a film's extension is cut: the last part of a bare UID is not one.
pub(crate) fn image_id(path: &Path) -> String {
    let has_extension = path.extension().and_then(|e| e.to_str()).is_some_and(|extension| {
        ["dcm", "dicom", "png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    });
    let name = if has_extension { path.file_stem() } else { path.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Up to `most` bytes of a file, and whether that is all of it.
pub(crate) fn read_bytes(path: &Path, most: u64, limits: &Limits) -> Result<(Vec<u8>, bool), ReadError> {
    let io = |source| ReadError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(ReadError::NoFilm { path: path.into() });
    }
    within_limit(path, metadata.len(), limits)?;
    let most = most.min(limits.max_file_bytes.saturating_add(1));
    let mut bytes = Vec::with_capacity(metadata.len().min(most) as usize + 1);
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    // What is no regular file has no length beforehand.
    within_limit(path, bytes.len() as u64, limits)?;
    let complete = (bytes.len() as u64) < most;
    Ok((bytes, complete))
}

/// Format by content. A file that is named like DICOM but holds something else is refused: it has lost the
/// header its name promises.
fn sniff(path: &Path, bytes: &[u8]) -> Result<Format, ReadError> {
    let raster = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some((Format::Png, "PNG"))
    } else if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        Some((Format::Jpeg, "JPEG"))
    } else {
        None
    };
    let named_dicom =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("dcm") || e.eq_ignore_ascii_case("dicom"));
    match raster {
        Some((_, found)) if named_dicom => Err(ReadError::NameDiffers { path: path.into(), found }),
        Some((format, _)) => Ok(format),
        None if syntax::looks_like_dicom(bytes) => Ok(Format::Dicom),
        None => Err(syntax::unknown_format(path, bytes)),
    }
}

/// The first part of a file.
pub(crate) struct Head {
    bytes: Vec<u8>,
    complete: bool,
    format: Format,
}

impl Head {
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Self, ReadError> {
        let (bytes, complete) = read_bytes(path, HEAD_BYTES, limits)?;
        let format = sniff(path, &bytes)?;
        Ok(Self { bytes, complete, format })
    }

    /// The header of a DICOM file; `None` for a PNG or JPEG file.
    pub(crate) fn dicom(self, path: &Path, limits: &Limits) -> Result<Option<DataSet>, ReadError> {
        match self.format {
            Format::Dicom => self.data_set(path, limits).map(Some),
            Format::Png | Format::Jpeg => Ok(None),
        }
    }

    /// The header of a DICOM file: from the first part, or from all of it when that does not reach the pixels.
    fn data_set(self, path: &Path, limits: &Limits) -> Result<DataSet, ReadError> {
        if !self.complete {
            match parse(path, self.bytes, false, Extent::Header, limits) {
                Ok(data_set) if data_set.pixels.is_some() => return Ok(data_set),
                _ => {}
            }
            let (bytes, _) = read_bytes(path, u64::MAX, limits)?;
            return parse(path, bytes, true, Extent::Header, limits);
        }
        parse(path, self.bytes, true, Extent::Header, limits)
    }
}

/// A file in memory, not yet decoded.
pub(crate) enum Source<'a> {
    Dicom { path: &'a Path, data_set: Box<DataSet> },
    Raster { path: &'a Path, bytes: Vec<u8>, format: Format },
}

impl<'a> Source<'a> {
    fn open(path: &'a Path, options: &ReadOptions) -> Result<Self, ReadError> {
        let (bytes, _) = read_bytes(path, u64::MAX, &options.limits)?;
        Self::of_bytes(path, bytes, options)
    }

    pub(crate) fn of_bytes(path: &'a Path, bytes: Vec<u8>, options: &ReadOptions) -> Result<Self, ReadError> {
        within_limit(path, bytes.len() as u64, &options.limits)?;
        match sniff(path, &bytes)? {
            Format::Dicom => {
                let data_set = parse(path, bytes, true, Extent::Whole, &options.limits)?;
                Ok(Self::Dicom { path, data_set: Box::new(data_set) })
            }
            format => Ok(Self::Raster { path, bytes, format }),
        }
    }

    pub(crate) fn film_header(&self) -> FilmHeader {
        match self {
            Self::Dicom { path, data_set } => data_set.film_header(image_id(path)),
            Self::Raster { path, .. } => FilmHeader { image_id: image_id(path), ..FilmHeader::default() },
        }
    }

    fn stage(&self, stage: Stage, options: &ReadOptions) -> Result<StageImage, ReadError> {
        self.stage_seen(stage, options, |_| {})
    }

    /// The display stage; `see` is shown the stored values on the way.
    pub(crate) fn display(
        &self,
        options: &ReadOptions,
        see: impl FnOnce(&Stored),
    ) -> Result<StageImage, ReadError> {
        self.stage_seen(Stage::Display, options, see)
    }

    fn stage_seen(
        &self,
        stage: Stage,
        options: &ReadOptions,
        see: impl FnOnce(&Stored),
    ) -> Result<StageImage, ReadError> {
        let (stored, notes) = self.stored(options)?;
        see(&stored);
        match self {
            Self::Dicom { path, data_set } => {
                let mut image = stage_of(path, data_set, stored, stage, options, notes)?;
                image.provenance.transfer_syntax = Some(data_set.syntax.uid.clone());
                image.provenance.photometric = data_set.text(tags::PHOTOMETRIC_INTERPRETATION);
                Ok(image)
            }
            Self::Raster { path, format, .. } => {
                let mut image = stage_of(path, &DataSet::empty(), stored, stage, options, notes)?;
                image.provenance.format = *format;
                Ok(image)
            }
        }
    }

    /// The stored values, with what was odd about the file.
    fn stored(&self, options: &ReadOptions) -> Result<(Stored, Vec<String>), ReadError> {
        match self {
            Self::Dicom { path, data_set } => {
                let mut notes = data_set.notes.clone();
                let stored = read_stored(path, data_set, options, None, &mut notes)?;
                Ok((stored, notes))
            }
            Self::Raster { path, bytes, format } => {
                let mut notes = Vec::new();
                if options.frame > 0 {
                    let frame = options.frame;
                    return Err(ReadError::NoSuchFrame { path: (*path).into(), frame, frames: 1 });
                }
                let raster = raster::decode(path, bytes, *format, &options.limits, &mut notes)?;
                // A raster file goes the way of a colour DICOM image turned into grey: no step applies to it.
                let stored = Stored {
                    height: raster.height,
                    width: raster.width,
                    values: raster.values,
                    lowest: 0,
                    bits: raster.bits,
                    format: raster_format(raster.height, raster.width, raster.bits),
                    is_luma: true,
                };
                Ok((stored, notes))
            }
        }
    }
}

fn raster_format(height: usize, width: usize, bits: u32) -> PixelFormat {
    PixelFormat {
        height,
        width,
        frames: 1,
        samples_per_pixel: 1,
        photometric: Photometric::Monochrome2,
        planar: false,
        bits_allocated: bits,
        bits_stored: bits,
        high_bit: bits - 1,
        signed: false,
    }
}

/// The pixels of `stage`, from stored values on.
fn stage_of(
    path: &Path,
    data_set: &DataSet,
    stored: Stored,
    stage: Stage,
    options: &ReadOptions,
    mut notes: Vec<String>,
) -> Result<StageImage, ReadError> {
    let (height, width) = (stored.height, stored.width);
    let mut fallback = None;
    let (data, applied) = match stage {
        Stage::Stored => (StageData::I32(stored.values), Applied::NOTHING),
        Stage::Modality => {
            let (table, applied) = modality_table(data_set, &stored, &mut notes);
            (StageData::F64(stored.through(&table)), applied)
        }
        Stage::Voi => {
            let (table, applied) = voi_table(data_set, &stored, &mut notes);
            (StageData::F64(stored.through(&table)), applied)
        }
        Stage::Display => match options.policy {
            Policy::Standard => {
                let (table, applied) = display_table(data_set, &stored, &mut notes);
                (StageData::F32(stored.through(&table)), applied)
            }
            Policy::Vindr => {
                let image = vindr::display(path, data_set, &stored, options, &mut notes)?;
                fallback = image.fallback;
                (StageData::U8(image.pixels), image.applied)
            }
        },
    };
    let provenance = Provenance {
        format: Format::Dicom,
        transfer_syntax: None,
        photometric: None,
        policy: options.policy,
        stage,
        frame: options.frame,
        modality: applied.modality,
        voi: applied.voi,
        polarity: applied.polarity,
        fallback,
        notes,
    };
    Ok(StageImage { height, width, data, provenance })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_id_keeps_dots_of_a_uid() {
        assert_eq!(image_id(Path::new("a/1.2.840.dicom")), "1.2.840");
        assert_eq!(image_id(Path::new("a/1.2.840.113")), "1.2.840.113");
        assert_eq!(image_id(Path::new("film.PNG")), "film");
    }

    #[test]
    fn a_raster_file_named_dicom_is_refused() {
        let png = b"\x89PNG\r\n\x1a\n....";
        assert!(matches!(sniff(Path::new("a.dcm"), png), Err(ReadError::NameDiffers { .. })));
        assert_eq!(sniff(Path::new("a.png"), png).unwrap(), Format::Png);
        assert!(matches!(sniff(Path::new("a.txt"), b"text"), Err(ReadError::UnknownFormat { .. })));
    }
}

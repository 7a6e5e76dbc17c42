//! PNG and JPEG files as films: 8 or 16 bits of grey, or the luma of colour.

use crate::colour::luma_of;
use crate::dataset::chain;
use crate::error::ReadError;
use crate::film::Format;
use crate::options::Limits;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

/// Grey values of a raster file.
pub(crate) struct Raster {
    pub height: usize,
    pub width: usize,
    /// Row-major `[H, W]`, 0 to `2^bits - 1`.
    pub values: Vec<i32>,
    /// 8 or 16.
    pub bits: u32,
}

fn image_format(format: Format) -> ImageFormat {
    if format == Format::Png { ImageFormat::Png } else { ImageFormat::Jpeg }
}

fn broken(path: &Path, format: Format, reason: String) -> ReadError {
    let syntax = if format == Format::Png { "PNG" } else { "JPEG" };
    ReadError::Pixels { path: path.into(), syntax: syntax.into(), reason }
}

/// Height and width, px, from the file's head.
pub(crate) fn size(
    path: &Path,
    bytes: &[u8],
    format: Format,
    limits: &Limits,
) -> Result<(u32, u32), ReadError> {
    let (width, height) =
        catch_unwind(|| ImageReader::with_format(Cursor::new(bytes), image_format(format)).into_dimensions())
            .map_err(|_| broken(path, format, "the decoder gave up on a corrupt header".into()))?
            .map_err(|e| broken(path, format, chain(&e)))?;
    if height == 0 || width == 0 {
        return Err(broken(path, format, format!("{height} x {width} pixels")));
    }
    let found = u64::from(height) * u64::from(width);
    if found > limits.max_pixels {
        let what = "height x width";
        return Err(ReadError::TooLarge { path: path.into(), what, found, limit: limits.max_pixels });
    }
    Ok((height, width))
}

/// Decodes a raster file.
pub(crate) fn decode(
    path: &Path,
    bytes: &[u8],
    format: Format,
    limits: &Limits,
    notes: &mut Vec<String>,
) -> Result<Raster, ReadError> {
    let (height, width) = size(path, bytes, format, limits)?;
    let decoded = catch_unwind(|| {
        let mut decoder =
            ImageReader::with_format(Cursor::new(bytes), image_format(format)).into_decoder()?;
        let mut image_limits = image::Limits::default();
        // 16-bit RGBA, once as decoded and once in the decoder's hands.
        image_limits.max_alloc = Some(limits.max_pixels.saturating_mul(16));
        decoder.set_limits(image_limits)?;
        DynamicImage::from_decoder(decoder)
    });
    let image = decoded
        .map_err(|_| broken(path, format, "the decoder gave up on a corrupt stream".into()))?
        .map_err(|e| broken(path, format, chain(&e)))?;
    if image.color().has_alpha() {
        notes.push("alpha channel ignored".into());
    }
    if image.color().has_color() {
        notes.push("colour turned into grey (luma)".into());
    }
    let wide = image.color().bytes_per_pixel() / image.color().channel_count() > 1;
    let values = match image {
        DynamicImage::ImageLuma8(grey) => grey.into_raw().into_iter().map(i32::from).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().map(|p| i32::from(p.0[0])).collect(),
        DynamicImage::ImageLuma16(grey) => grey.into_raw().into_iter().map(i32::from).collect(),
        DynamicImage::ImageLumaA16(grey) => grey.pixels().map(|p| i32::from(p.0[0])).collect(),
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
            image.into_rgb16().pixels().map(|p| i32::from(luma_of(p.0))).collect()
        }
        other => other.into_rgb8().pixels().map(|p| i32::from(luma_of(p.0.map(u16::from)))).collect(),
    };
    let bits = if wide { 16 } else { 8 };
    Ok(Raster { height: height as usize, width: width as usize, values, bits })
}

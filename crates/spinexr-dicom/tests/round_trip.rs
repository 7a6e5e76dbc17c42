//! What the writer writes, the reader reads, and so does dicom-rs.
#![allow(clippy::unwrap_used)] // in a helper, as in a test, it fails the test

use dicom_pixeldata::PixelDecoder;
use spinexr_dicom::{
    Display, DxFilm, DxSyntax, ModalityApplied, PolarityApplied, Policy, ReadOptions, Stage, StageData,
    VoiApplied, WriteError, encode_dx, npy, read_film, read_header, read_size, read_stage, write_dx,
};
use std::path::PathBuf;

/// A film with flat parts, ramps, noise and both ends of the range.
fn film(height: u32, width: u32, bits: u8) -> DxFilm {
    let max = u32::from(u16::MAX >> (16 - bits));
    let mut noise = 12_345u32;
    let pixels = (0..height * width)
        .map(|i| {
            let (row, column) = (i / width, i % width);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = match row % 5 {
                0 => 0,
                1 => max,
                2 => column * max / width,
                3 => noise >> 16,
                _ => max / 2 + (noise >> 28),
            };
            (value & max) as u16
        })
        .collect();
    DxFilm { bits_stored: bits, ..DxFilm::new(height, width, pixels) }
}

fn written(film: &DxFilm) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.dicom");
    write_dx(&path, film).unwrap();
    (folder, path)
}

fn options(policy: Policy) -> ReadOptions {
    ReadOptions { policy, ..ReadOptions::default() }
}

#[test]
fn stored_values_survive_every_syntax_and_depth() {
    for transfer_syntax in DxSyntax::ALL {
        for bits in [9, 10, 12, 14, 16] {
            for (height, width) in [(1, 1), (37, 53), (64, 300)] {
                let film = DxFilm { transfer_syntax, ..film(height, width, bits) };
                let (_folder, path) = written(&film);
                let stored = read_stage(&path, Stage::Stored, &ReadOptions::default()).unwrap();
                let expected: Vec<i32> = film.pixels.iter().map(|&v| i32::from(v)).collect();
                assert_eq!((stored.height, stored.width), (height as usize, width as usize));
                assert!(
                    stored.data == StageData::I32(expected),
                    "{transfer_syntax:?} {bits} bits {height}x{width}"
                );
                assert_eq!(stored.provenance.transfer_syntax.as_deref(), Some(transfer_syntax.uid()));
                assert_eq!(stored.provenance.notes, Vec::<String>::new());
            }
        }
    }
}

#[test]
fn dicom_rs_reads_the_same_values() {
    for transfer_syntax in DxSyntax::ALL {
        let film = DxFilm { transfer_syntax, ..film(37, 53, 12) };
        let (_folder, path) = written(&film);
        let object = dicom_object::open_file(&path).unwrap();
        assert_eq!(object.element_by_name("Modality").unwrap().to_str().unwrap(), "DX");
        assert_eq!(object.element_by_name("PatientIdentityRemoved").unwrap().to_str().unwrap(), "YES");
        let decoded = object.decode_pixel_data().unwrap();
        let values: Vec<u16> = decoded
            .to_vec_with_options(
                &dicom_pixeldata::ConvertOptions::new()
                    .with_modality_lut(dicom_pixeldata::ModalityLutOption::None)
                    .with_voi_lut(dicom_pixeldata::VoiLutOption::Identity),
            )
            .unwrap();
        assert!(values == film.pixels, "{transfer_syntax:?}");
    }
}

#[test]
fn the_same_film_gives_the_same_bytes() {
    for transfer_syntax in DxSyntax::ALL {
        let film = DxFilm { transfer_syntax, ..film(40, 30, 12) };
        assert_eq!(encode_dx(&film), encode_dx(&film.clone()));
    }
}

#[test]
fn the_header_comes_back() {
    let film = DxFilm {
        sex: 'F',
        age_years: 7,
        view_position: "LL".into(),
        body_part: "CSPINE".into(),
        manufacturer: "Müller & Söhne".into(),
        pixel_spacing_mm: [0.139, 0.143],
        ..film(12, 8, 12)
    };
    let (_folder, path) = written(&film);
    let limits = ReadOptions::default().limits;
    let header = read_header(&path, &limits).unwrap();
    assert_eq!(header.image_id, "film");
    assert_eq!(header.study_uid.as_deref(), Some(film.study_uid.as_str()));
    assert_eq!(header.series_uid.as_deref(), Some(film.series_uid.as_str()));
    assert_eq!(header.sop_instance_uid.as_deref(), Some(film.sop_instance_uid.as_str()));
    assert_eq!(header.sex.as_deref(), Some("F"));
    assert_eq!(header.age_years, Some(7.0));
    assert_eq!(header.view_position.as_deref(), Some("LL"));
    assert_eq!(header.body_part.as_deref(), Some("CSPINE"));
    assert_eq!(header.laterality.as_deref(), Some("U"));
    assert_eq!(header.manufacturer.as_deref(), Some("Müller & Söhne"));
    assert_eq!(header.modality.as_deref(), Some("DX"));
    assert_eq!(header.pixel_spacing_mm, Some([0.139, 0.143]));
    assert_eq!(read_size(&path, &limits).unwrap(), (12, 8));
    assert_eq!(read_film(&path, &ReadOptions::default()).unwrap().header, header);
}

#[test]
fn size_and_header_need_no_pixels() {
    for transfer_syntax in DxSyntax::ALL {
        let film = DxFilm { transfer_syntax, ..film(700, 400, 12) };
        let bytes = encode_dx(&film);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.dcm");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let limits = ReadOptions::default().limits;
        assert_eq!(read_size(&path, &limits).unwrap(), (700, 400), "{transfer_syntax:?}");
        assert_eq!(read_header(&path, &limits).unwrap().study_uid, Some(film.study_uid.clone()));
        assert!(read_film(&path, &ReadOptions::default()).is_err());
    }
}

#[test]
fn monochrome1_is_inverted_once() {
    let plain = film(20, 30, 12);
    let inverted = DxFilm {
        monochrome1: true,
        pixels: plain.pixels.iter().map(|v| 4095 - v).collect(),
        ..plain.clone()
    };
    let ((_a, plain), (_b, inverted)) = (written(&plain), written(&inverted));
    let (plain, inverted) = (
        read_film(&plain, &options(Policy::Standard)).unwrap(),
        read_film(&inverted, &options(Policy::Standard)).unwrap(),
    );
    assert_eq!(plain.provenance.polarity, PolarityApplied::Unchanged);
    assert_eq!(inverted.provenance.polarity, PolarityApplied::Inverted);
    let (Display::F32(a), Display::F32(b)) = (&plain.display, &inverted.display) else { panic!("not f32") };
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
    assert_eq!(a.iter().copied().fold(f32::NAN, f32::max), 1.0);
}

#[test]
fn the_first_window_and_the_rescale_are_used() {
    let film = DxFilm {
        windows: vec![(3000.0, 2000.0), (10.0, 20.0)],
        rescale: Some((2.0, -100.0)),
        ..film(20, 30, 12)
    };
    let (_folder, path) = written(&film);
    let read = read_film(&path, &ReadOptions::default()).unwrap();
    assert_eq!(read.provenance.modality, ModalityApplied::Rescale { slope: 2.0, intercept: -100.0 });
    assert!(matches!(read.provenance.voi, VoiApplied::Window { center: 3000.0, width: 2000.0, .. }));
    assert!(read.provenance.notes.iter().any(|note| note.contains("the first of each")));
    let Display::F32(pixels) = read.display else { panic!("not f32") };
    for (&stored, shown) in film.pixels.iter().zip(pixels) {
        let x = 2.0 * f64::from(stored) - 100.0;
        let expected = ((x - 2999.5) / 1999.0 + 0.5).clamp(0.0, 1.0);
        assert!((expected - f64::from(shown)).abs() < 1e-6);
    }
}

#[test]
fn a_window_center_spoilt_by_a_comma_is_understood_and_noted() {
    let film =
        DxFilm { window_center_raw: Some("2000,".into()), windows: vec![(0.0, 1000.0)], ..film(20, 30, 12) };
    let (_folder, path) = written(&film);
    let read = read_film(&path, &options(Policy::Standard)).unwrap();
    assert!(matches!(read.provenance.voi, VoiApplied::Window { center: 2000.0, width: 1000.0, .. }));
    assert!(read.provenance.notes.iter().any(|note| note.contains("2000,") && note.contains("read as 2000")));
    assert_eq!(read.provenance.fallback, None);

    // The published recipe fails on it, and falls back; the film is marked.
    let read = read_film(&path, &options(Policy::Vindr)).unwrap();
    assert!(read.provenance.fallback.unwrap().contains("Window Center"));
    let Display::U8(pixels) = read.display else { panic!("not u8") };
    assert_eq!((pixels.iter().min(), pixels.iter().max()), (Some(&0), Some(&255)));
}

#[test]
fn a_repaired_window_that_blanks_the_film_is_not_used() {
    let film = DxFilm { window_center_raw: Some("32688,".into()), ..film(20, 30, 12) };
    let (_folder, path) = written(&film);
    let read = read_film(&path, &options(Policy::Standard)).unwrap();
    assert_eq!(read.provenance.voi, VoiApplied::MinMax { min: 0.0, max: 4095.0 });
    assert!(read.provenance.notes.iter().any(|note| note.contains("leaves nothing")));
}

#[test]
fn the_vindr_recipe_by_hand() {
    let film = DxFilm {
        monochrome1: true,
        windows: vec![(2048.0, 4096.0)],
        ..DxFilm::new(1, 3, vec![0, 1000, 4095])
    };
    let (_folder, path) = written(&film);
    let read = read_film(&path, &options(Policy::Vindr)).unwrap();
    // (4095 - 1000) / 4095 * 255 = 192.7, truncated.
    assert_eq!(read.display, Display::U8(vec![255, 192, 0]));
    assert_eq!(read.provenance.fallback, None);
    assert_eq!(read.provenance.modality, ModalityApplied::None);
}

#[test]
fn provenance_survives_json() {
    let (_folder, path) = written(&film(5, 5, 12));
    let provenance = read_film(&path, &ReadOptions::default()).unwrap().provenance;
    let text = serde_json::to_string(&provenance).unwrap();
    assert!(text.contains(r#""policy":"standard""#) && text.contains(r#""kind":"window""#), "{text}");
    assert_eq!(serde_json::from_str::<spinexr_dicom::Provenance>(&text).unwrap(), provenance);
}

#[test]
fn npy_holds_type_shape_and_values() {
    let film = film(3, 5, 12);
    let (folder, path) = written(&film);
    for (stage, policy, kind, width) in [
        (Stage::Stored, Policy::Standard, "<i4", 4),
        (Stage::Modality, Policy::Standard, "<f8", 8),
        (Stage::Voi, Policy::Standard, "<f8", 8),
        (Stage::Display, Policy::Standard, "<f4", 4),
        (Stage::Display, Policy::Vindr, "|u1", 1),
    ] {
        let image = read_stage(&path, stage, &options(policy)).unwrap();
        let out = folder.path().join("film.npy");
        npy::write(&out, &image).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!(head % 64, 0);
        let text = std::str::from_utf8(&bytes[10..head]).unwrap();
        assert!(
            text.starts_with(&format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (3, 5), }}"))
        );
        assert!(text.ends_with('\n'));
        assert_eq!(bytes.len() - head, 15 * width);
        if stage == Stage::Stored {
            let value = i32::from_le_bytes(bytes[head + 28..head + 32].try_into().unwrap());
            assert_eq!(value, i32::from(film.pixels[7]));
        }
    }
}

#[test]
fn png_and_jpeg_are_films_too() {
    let folder = tempfile::tempdir().unwrap();
    let grey16 =
        image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 2, vec![0u16, 1000, 32_768, 65_535]).unwrap();
    let path = folder.path().join("a.png");
    grey16.save(&path).unwrap();
    let read = read_film(&path, &ReadOptions::default()).unwrap();
    let Display::F32(pixels) = &read.display else { panic!("not f32") };
    assert!((pixels[2] - 32_768.0 / 65_535.0).abs() < 1e-6 && pixels[3] == 1.0);
    assert_eq!(read_size(&path, &ReadOptions::default().limits).unwrap(), (2, 2));
    assert_eq!(read.header.image_id, "a");

    let rgba = image::RgbaImage::from_pixel(4, 3, image::Rgba([200, 100, 50, 10]));
    let path = folder.path().join("b.png");
    rgba.save(&path).unwrap();
    let read = read_film(&path, &ReadOptions::default()).unwrap();
    assert_eq!((read.height_px, read.width_px), (3, 4));
    assert!(read.provenance.notes.iter().any(|note| note.contains("alpha")));
    let Display::F32(pixels) = &read.display else { panic!("not f32") };
    assert!((pixels[0] - 124.0 / 255.0).abs() < 1e-6);

    let grey = image::GrayImage::from_fn(16, 8, |x, _| image::Luma([(x * 16) as u8]));
    let path = folder.path().join("c.jpg");
    grey.save(&path).unwrap();
    let read = read_film(&path, &options(Policy::Vindr)).unwrap();
    assert_eq!((read.height_px, read.width_px), (8, 16));
    assert!(matches!(read.display, Display::U8(_)));
}

#[test]
fn a_film_that_cannot_be_written_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dcm");
    let bad = DxFilm { width_px: 3, ..film(2, 2, 12) };
    assert!(matches!(write_dx(&path, &bad), Err(WriteError::Film { field: "pixels", .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

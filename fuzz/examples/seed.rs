//! Writes the seeds of every target to `corpus/`, from the samples and the writer of spinexr-dicom:
//! `cargo run --example seed` in this folder.

use spinexr_dicom::samples::SAMPLES;
use spinexr_dicom::{DxFilm, DxSyntax, encode_dx};
use std::io;
use std::path::Path;

/// Forms of JPEG 2000 beside the samples, with depth and form (see `spinexr_fuzz::film`).
const JPEG_2000: [(&str, &[u8], u8, u8); 6] = [
    ("styles", include_bytes!("../../crates/spinexr-dicom/samples/jpeg_2000_styles.dcm"), 12, 0),
    ("bypass", include_bytes!("../../crates/spinexr-dicom/samples/jpeg_2000_bypass.dcm"), 16, 1),
    ("changes", include_bytes!("../../crates/spinexr-dicom/samples/jpeg_2000_changes.dcm"), 8, 2),
    ("lossy_bypass", include_bytes!("../../crates/spinexr-dicom/samples/jpeg_2000_lossy_bypass.dcm"), 12, 0),
    ("ht_blocks", include_bytes!("../../crates/spinexr-dicom/samples/htj2k_blocks.dcm"), 12, 0),
    ("ht_refined", include_bytes!("../../crates/spinexr-dicom/samples/htj2k_refined.dcm"), 12, 0),
];

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name.replace([' ', ','], "_")), bytes)
    };
    for sample in SAMPLES {
        write("film", sample.name, sample.file)?;
        let target = match &sample.transfer_syntax[20..] {
            "80" | "81" => "jpeg_ls",
            "90" | "91" | "201" | "202" | "203" => "jpeg_2000",
            _ => "jpeg",
        };
        let depth = match sample.name {
            "JPEG baseline" => 8,
            name if name.contains("16-bit") => 16,
            _ => 12,
        };
        let signed = u8::from(sample.name.contains("signed"));
        write(target, sample.name, &[&[44, 36, depth - 1, signed], stream(sample.file)].concat())?;
    }
    for (name, file, depth, form) in JPEG_2000 {
        write("jpeg_2000", name, &[&[44, 36, depth - 1, form], stream(file)].concat())?;
    }
    let pixels: Vec<u16> = (0..24 * 20).map(|i| (i * 37) & 4095).collect();
    for transfer_syntax in DxSyntax::ALL {
        let film = DxFilm { transfer_syntax, ..DxFilm::new(24, 20, pixels.clone()) };
        let file = encode_dx(&film);
        write("film", &format!("{transfer_syntax:?}"), &file)?;
        let target = match transfer_syntax {
            DxSyntax::RleLossless => "rle",
            DxSyntax::JpegLossless => "jpeg",
            _ => continue,
        };
        write(target, &format!("{transfer_syntax:?}"), &[&[23, 19, 11, 0], stream(&file)].concat())?;
    }
    Ok(())
}

/// The one fragment of a file, behind the empty offset table or one of one entry.
fn stream(file: &[u8]) -> &[u8] {
    let pixels = file.windows(4).rposition(|w| w == [0xE0, 0x7F, 0x10, 0x00]).expect("the file has pixels");
    let table = usize::from(file[pixels + 16]);
    &file[pixels + 12 + 8 + table + 8..file.len() - 8]
}

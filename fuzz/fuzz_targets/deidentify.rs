//! De-identification of any file, with and without a mask, which decodes what is compressed.
#![no_main]

use spinexr_dicom::{DeidentifyOptions, Key, MaskRect, deidentify};
use std::path::Path;

libfuzzer_sys::fuzz_target!(init: spinexr_fuzz::allow_panics_of_other_crates(), |input: &[u8]| {
    let key = Key::new(&[7; 32]).expect("32 bytes are a key");
    for mask in [vec![], vec![MaskRect { x0: 1, y0: 2, x1: 9, y1: 7 }]] {
        let options = DeidentifyOptions { mask, limits: spinexr_fuzz::limits(), ..DeidentifyOptions::default() };
        let run = |file: Vec<u8>| deidentify(Path::new("fuzz.dcm"), file, &options, &key);
        if let Ok(film) = run(input.to_vec()) {
            // What was written can be read, and has nothing left that would have to go.
            let again = run(film.bytes).expect("what we write we read");
            assert_eq!((again.report.private, again.report.removed, again.report.graphics), (0, 0, 0));
        }
    }
});

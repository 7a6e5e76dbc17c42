//! JPEG 2000 and HTJ2K.
#![no_main]

libfuzzer_sys::fuzz_target!(init: spinexr_fuzz::allow_panics_of_other_crates(), |input: &[u8]| {
    spinexr_fuzz::read_stream(input, &["4.90", "4.201"]);
});

//! Files of weights as PyTorch and NumPy write them, and as an attacker or a broken disk would: see
//! tests/weights/make.py.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use std::path::PathBuf;

use proptest::prelude::*;
use spinexr_models::weights::file::{from_bytes, read_file};
use spinexr_models::weights::{Entry, StateDict, WeightsError};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/weights").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// What every sound file holds: (i - 3) / 8 at row-major index i.
fn expected(prefix: &str) -> StateDict {
    let shapes: [(&str, &[usize]); 8] = [
        ("conv.weight", &[2, 3, 2, 2]),
        ("norm.weight", &[5]),
        ("norm.bias", &[5]),
        ("norm.running_mean", &[5]),
        ("view.transposed", &[2, 3]),
        ("view.offset", &[3]),
        ("scalar", &[]),
        ("parameter", &[2, 2]),
    ];
    let entry = |shape: &[usize]| Entry {
        shape: shape.to_vec(),
        values: (0..shape.iter().product::<usize>()).map(|i| (i as f32 - 3.0) / 8.0).collect(),
    };
    shapes.iter().map(|(name, shape)| (format!("{prefix}{name}"), entry(shape))).collect()
}

#[test]
fn every_form_gives_the_same_tensors() {
    for name in ["plain.pth", "legacy.pth", "arrays2.pkl", "arrays4.pkl", "arrays5.pkl"] {
        assert_eq!(read_file(&path(name)).unwrap(), expected(""), "{name}");
    }
    assert_eq!(read_file(&path("wrapped.pt")).unwrap(), expected("module."));
}

#[test]
fn nothing_of_a_harmful_file_is_run() {
    for name in ["harm.pth", "harm.pkl"] {
        let error = read_file(&path(name)).unwrap_err();
        assert!(
            matches!(&error, WeightsError::Refused { name } if name == "posix.system"),
            "{name}: {error}"
        );
        assert!(error.to_string().contains("posix.system: refused"), "{error}");
    }
    assert!(!std::path::Path::new("/tmp/spinexr-was-harmed").exists());
    let error = read_file(&path("module.pth")).unwrap_err().to_string();
    assert!(error.contains("torch.nn.modules.linear.Linear") && error.contains("state_dict()"), "{error}");
}

#[test]
fn what_is_no_file_of_weights_says_so() {
    let error = read_file(&path("deflated.pth")).unwrap_err().to_string();
    assert!(error.contains("compressed"), "{error}");
    assert!(from_bytes(b"").unwrap_err().to_string().contains("expected safetensors"));
    assert!(from_bytes(b"\x80\x02N.").unwrap_err().to_string().contains("no dictionary"));
    let empty = from_bytes(b"\x80\x02}X\x01\x00\x00\x00aNs.").unwrap_err().to_string();
    assert!(empty.contains("keys are [\"a\"]"), "{empty}");
    assert!(matches!(read_file(&path("absent.pth")), Err(WeightsError::Io { .. })));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for name in ["plain.pth", "legacy.pth", "arrays4.pkl"] {
        let whole = bytes(name);
        for length in 0..whole.len() {
            assert!(from_bytes(&whole[..length]).is_err(), "{name} cut to {length} of {} bytes", whole.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever is changed, there is no panic, and what comes back is no larger than the file can hold.
    #[test]
    fn changed_bytes_never_panic(
        which in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut changed = bytes(["plain.pth", "wrapped.pt", "legacy.pth", "arrays4.pkl", "arrays5.pkl"][which]);
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        // A pickle without a checksum around it is mostly numbers: a change there is a change of a value.
        if let Ok(state) = from_bytes(&changed) {
            let values: usize = state.values().map(|e| e.values.len()).sum();
            prop_assert!(values <= 2 * changed.len());
            for entry in state.values() {
                prop_assert_eq!(entry.values.len(), entry.shape.iter().product::<usize>());
            }
        }
    }

    #[test]
    fn any_pickle_ends(program in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut pickle = b"\x80\x04".to_vec();
        pickle.extend(program);
        let _ = from_bytes(&pickle);
    }
}

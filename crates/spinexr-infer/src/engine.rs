//! `--engine`: what computes the networks.
//!
//! Our own engine is always there. ONNX Runtime is there when the program was built with the cargo feature `ort`; its
//! shared library is not linked but loaded when it is asked for, from the path in `ORT_DYLIB_PATH`.

use std::str::FromStr;

/// The variable that names ONNX Runtime's shared library.
pub const ORT_LIBRARY: &str = "ORT_DYLIB_PATH";

/// What computes the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// This program's own, on any device of this build.
    #[default]
    Native,
    /// ONNX Runtime on the processor.
    Ort,
}

/// An engine that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not the name of an engine.
    #[error("unknown engine {got:?}, expected native or ort")]
    Unknown {
        /// The word given.
        got: String,
    },
    /// The engine is not compiled in.
    #[error("engine ort is not in this build: build it with `--features ort`")]
    NotBuilt,
    /// The engine runs on the processor alone.
    #[error("engine ort runs on the cpu; leave out --device, or --engine")]
    OtherDevice,
    /// The shared library cannot be used.
    #[error(
        "ONNX Runtime cannot be used: {message}. {ORT_LIBRARY} names its shared library (libonnxruntime.so)"
    )]
    Library {
        /// The loader's reason.
        message: String,
    },
    /// The library refused a network.
    #[error("model {model:?}: ONNX Runtime cannot take the network: {message}")]
    Network {
        /// Model name.
        model: String,
        /// The library's reason.
        message: String,
    },
}

impl FromStr for Engine {
    type Err = EngineError;

    fn from_str(word: &str) -> Result<Self, EngineError> {
        match word {
            "native" => Ok(Self::Native),
            "ort" => Ok(Self::Ort),
            _ => Err(EngineError::Unknown { got: word.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_engines() {
        assert_eq!("native".parse(), Ok(Engine::Native));
        assert_eq!("ort".parse(), Ok(Engine::Ort));
        let error = "tpu".parse::<Engine>().unwrap_err().to_string();
        assert!(error.contains("\"tpu\"") && error.contains("native"), "{error}");
    }
}

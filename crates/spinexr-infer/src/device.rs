//! `--device`: from a word to the engine's device.
//!
//! The CPU is always there. A GPU is there when the program was built with the cargo feature of that
//! name; asking for another, or for one that this machine has not, is an error, never a silent fall back to the CPU.

use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
use burn::tensor::{DeviceKind, wgpu::WgpuBackend};
use std::fmt;
use std::str::FromStr;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
use std::sync::{Mutex, PoisonError};

/// Where tensors live and models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The processor, pure Rust: `cpu` (or `flex`, the engine's name for it).
    #[default]
    Cpu,
    /// NVIDIA card by number: `cuda`, `cuda:1`.
    Cuda(usize),
    /// AMD card by number: `rocm`, `rocm:1`.
    Rocm(usize),
    /// Any card through the graphics interface of the platform: `wgpu`, `wgpu:1`. `None`: the best one.
    Wgpu(Option<usize>),
    /// As [`DeviceChoice::Wgpu`], through Vulkan alone.
    Vulkan(Option<usize>),
    /// As [`DeviceChoice::Wgpu`], through Metal alone.
    Metal(Option<usize>),
}

/// A device that does not exist, or not in this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error(
        "unknown device {got:?}, expected one of cpu, cuda[:N], rocm[:N], wgpu[:N], vulkan[:N], metal[:N]"
    )]
    Unknown {
        /// The word given.
        got: String,
    },
    /// The part after the colon is not a number, or the device takes none.
    #[error("device {got:?}: expected {expected} after the colon")]
    Index {
        /// The word given.
        got: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// The device is not compiled in.
    #[error(
        "device {device} is not in this build: build it with `--features {feature}`; this build has {available}"
    )]
    NotBuilt {
        /// The device asked for.
        device: String,
        /// The cargo feature that brings it.
        feature: &'static str,
        /// Devices of this build.
        available: String,
    },
    /// The device is compiled in, but this machine has none that works.
    #[error("device {device}: {reason}")]
    Unavailable {
        /// The device asked for.
        device: String,
        /// What the driver or the engine says.
        reason: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        let (name, index) = match word.split_once(':') {
            Some((name, digits)) => {
                let index = digits
                    .parse::<usize>()
                    .map_err(|_| DeviceError::Index { got: word.to_owned(), expected: "a number from 0" })?;
                (name, Some(index))
            }
            None => (word, None),
        };
        match (name, index) {
            ("cpu" | "flex", None) => Ok(Self::Cpu),
            ("cpu" | "flex", Some(_)) => {
                Err(DeviceError::Index { got: word.to_owned(), expected: "nothing" })
            }
            ("cuda", n) => Ok(Self::Cuda(n.unwrap_or(0))),
            ("rocm", n) => Ok(Self::Rocm(n.unwrap_or(0))),
            ("wgpu", n) => Ok(Self::Wgpu(n)),
            ("vulkan", n) => Ok(Self::Vulkan(n)),
            ("metal", n) => Ok(Self::Metal(n)),
            _ => Err(DeviceError::Unknown { got: word.to_owned() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Rocm(n) => write!(f, "rocm:{n}"),
            Self::Wgpu(None) => f.write_str("wgpu"),
            Self::Wgpu(Some(n)) => write!(f, "wgpu:{n}"),
            Self::Vulkan(None) => f.write_str("vulkan"),
            Self::Vulkan(Some(n)) => write!(f, "vulkan:{n}"),
            Self::Metal(None) => f.write_str("metal"),
            Self::Metal(Some(n)) => write!(f, "metal:{n}"),
        }
    }
}

impl DeviceChoice {
    /// The cargo feature that brings the device; `None` for the CPU, which is always there.
    pub const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda(_) => Some("cuda"),
            Self::Rocm(_) => Some("rocm"),
            Self::Wgpu(_) => Some("wgpu"),
            Self::Vulkan(_) => Some("vulkan"),
            Self::Metal(_) => Some("metal"),
        }
    }

    /// The engine's word for the device kind, for its environment variable `BURN_DEVICE`, which decides
    /// what the engine's own default device is.
    pub const fn engine_name(self) -> &'static str {
        match self.feature() {
            None => "flex",
            Some(name) => name,
        }
    }

    /// Opens the device. With `wgpu`, `vulkan` and `metal` the GPU itself is opened too, once for the program; with
    /// `cuda` and `rocm` it is first touched by the first tensor on it.
    ///
    /// # Errors
    /// [`DeviceError::NotBuilt`] when the device is not compiled in, [`DeviceError::Unavailable`] when the machine
    /// has no such GPU or its driver refuses.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => Ok(Device::cuda(n)),
            #[cfg(feature = "rocm")]
            Self::Rocm(n) => Ok(Device::rocm(n)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(n) => self.open_graphics(n, WgpuBackend::Auto),
            #[cfg(feature = "vulkan")]
            Self::Vulkan(n) => self.open_graphics(n, WgpuBackend::Vulkan),
            #[cfg(feature = "metal")]
            Self::Metal(n) => self.open_graphics(n, WgpuBackend::Metal),
            #[allow(unreachable_patterns, reason = "with every device feature on, nothing is left")]
            other => Err(DeviceError::NotBuilt {
                device: other.to_string(),
                feature: other.feature().unwrap_or("flex"),
                available: available().join(", "),
            }),
        }
    }

    /// A GPU over a graphics interface. The engine opens each once; later calls get the same.
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    fn open_graphics(self, index: Option<usize>, api: WgpuBackend) -> Result<Device, DeviceError> {
        static OPENED: Mutex<Vec<(DeviceChoice, Device)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = opened.iter().find(|(choice, _)| *choice == self) {
            return Ok(device.clone());
        }
        let kind = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
        let device = Device::wgpu_options().device_kind(kind).graphics_api(api).init();
        let device = device.map_err(|error| DeviceError::Unavailable {
            device: self.to_string(),
            reason: error.to_string(),
        })?;
        opened.push((self, device.clone()));
        Ok(device)
    }
}

/// The device kinds of this build, the CPU first.
pub fn available() -> Vec<&'static str> {
    let mut names = vec!["cpu"];
    for (name, built) in [
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
    ] {
        if built {
            names.push(name);
        }
    }
    names
}

/// From the word of `--device` to the engine's device.
///
/// # Errors
/// An unknown word, a number that is none, or a device that is not compiled in.
pub fn parse_device(word: &str) -> Result<Device, DeviceError> {
    word.parse::<DeviceChoice>()?.open()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_devices_and_come_back() {
        for (word, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda:2", DeviceChoice::Cuda(2)),
            ("wgpu", DeviceChoice::Wgpu(None)),
            ("vulkan:1", DeviceChoice::Vulkan(Some(1))),
            ("metal", DeviceChoice::Metal(None)),
            ("rocm:0", DeviceChoice::Rocm(0)),
        ] {
            assert_eq!(word.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), word);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert_eq!("flex".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
    }

    #[test]
    fn nonsense_is_an_error_that_says_what_is_known() {
        assert!(matches!("cuda:x".parse::<DeviceChoice>(), Err(DeviceError::Index { .. })));
        assert!(matches!("cuda:".parse::<DeviceChoice>(), Err(DeviceError::Index { .. })));
        assert!(matches!("cpu:1".parse::<DeviceChoice>(), Err(DeviceError::Index { .. })));
        let error = "tpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("\"tpu\"") && error.contains("vulkan"), "{error}");
    }

    #[test]
    fn the_cpu_opens() {
        assert_eq!(parse_device("cpu").unwrap(), Device::flex());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_built_names_its_feature() {
        let error = parse_device("cuda:1").unwrap_err().to_string();
        assert!(error.contains("cuda:1") && error.contains("--features cuda"), "{error}");
    }
}

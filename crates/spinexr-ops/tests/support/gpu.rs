//! The GPU of this build, for tests that hold it to the CPU.

use std::sync::OnceLock;

use burn::tensor::Device;

/// Set where a missing GPU is a failure and not a reason to skip.
const REQUIRED: &str = "SPINEXR_REQUIRE_GPU";

/// The GPU; software Vulkan is one. Without any, `None` after a word on stderr, or a panic where one is required.
pub fn gpu() -> Option<Device> {
    static OPENED: OnceLock<Result<Device, String>> = OnceLock::new();
    match OPENED.get_or_init(open) {
        Ok(device) => Some(device.clone()),
        Err(reason) => {
            assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set: no GPU: {reason}");
            eprintln!("skipped: no GPU: {reason}");
            None
        }
    }
}

#[cfg(all(feature = "wgpu", not(feature = "vulkan")))]
fn open() -> Result<Device, String> {
    Device::wgpu_options().init().map_err(|error| error.to_string())
}

#[cfg(feature = "vulkan")]
fn open() -> Result<Device, String> {
    let options = Device::wgpu_options().graphics_api(burn::tensor::wgpu::WgpuBackend::Vulkan);
    options.init().map_err(|error| error.to_string())
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan")))]
fn open() -> Result<Device, String> {
    Err("these tests know the features wgpu and vulkan alone".to_owned())
}

//! Keeping memory between training steps.

/// Ask the C library to keep freed memory for the next step.
///
/// A training step allocates and frees hundreds of buffers of some megabytes. By default glibc gives such
/// memory back to the kernel and asks for it again, zeroed page by page: about a quarter of a small
/// DenseNet's step. Call this once, at the start of a program that trains or serves. Results do not
/// change; the process keeps its peak memory until it ends. Returns whether the settings were taken; on
/// other systems nothing happens and the answer is `false`.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest threshold glibc takes: half of its largest heap segment.
        const MMAP_THRESHOLD: i32 = 32 << 20;
        // SAFETY: `mallopt` only changes the allocator's settings; it may be called at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn glibc_takes_the_settings() {
        assert_eq!(super::keep_freed_memory(), cfg!(all(target_os = "linux", target_env = "gnu")));
    }
}

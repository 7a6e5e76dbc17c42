//! glibc's allocator in a process of many short-lived threads.

/// Lets all threads share few arenas. Left alone, glibc gives up to eight times as many as there are cores to threads that meet,
/// and each keeps what the largest film of its own has taken: a service with fifty senders then holds a gigabyte that nobody
/// uses. Whoever sets `MALLOC_ARENA_MAX` knows better, and other allocators have no such setting. Says whether it was done.
pub fn share_arenas() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: mallopt takes two numbers and changes settings of the allocator under its own lock. It takes and frees no
        // memory of ours, and is safe to call from any thread at any time (mallopt(3): MT-Unsafe only towards itself, and it is
        // called here alone, before the service has threads).
        return unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) } == 1;
    }
    false
}

/// Enough for two threads to allocate at the same time without waiting; in the load test more were no faster.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 2;

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn threads_share_arenas_and_go_on_allocating() {
        assert_eq!(share_arenas(), std::env::var_os("MALLOC_ARENA_MAX").is_none());
        let threads: Vec<_> = (0..32_usize)
            .map(|i| {
                std::thread::spawn(move || {
                    let sizes = [0, 1, 7, 4096, (1 << 20) + i];
                    sizes.map(|size| vec![i as u8; size].iter().map(|&v| usize::from(v)).sum::<usize>())
                })
            })
            .collect();
        for (i, thread) in threads.into_iter().enumerate() {
            let expected = [0, 1, 7, 4096, (1 << 20) + i].map(|size| size * i);
            assert_eq!(thread.join().unwrap(), expected);
        }
    }
}

//! Pauses before something is tried again.

use sha2::{Digest, Sha256};

/// The pause after the `attempt`th failure (counted from 1), ms: `first_ms` doubled each time up to `most_ms`, and of that
/// a share between half and all. Which share follows from `what` is tried and how often it was, so that many that failed
/// together do not come back together.
pub fn pause_ms(first_ms: u64, most_ms: u64, attempt: u32, what: &str) -> u64 {
    let doubled = first_ms.saturating_mul(1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX));
    let whole = doubled.min(most_ms);
    let hash = Sha256::digest(format!("{what} {attempt}").as_bytes());
    let share = u128::from(u16::from_be_bytes([hash[0], hash[1]]));
    let rest = u128::from(whole - whole / 2) * share / u128::from(u16::MAX);
    whole / 2 + rest as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        for attempt in 1..100 {
            let whole = 1000_u64.saturating_mul(1 << (attempt - 1).min(40)).min(60_000);
            for what in ["a", "b", "c"] {
                let pause = pause_ms(1000, 60_000, attempt, what);
                assert!((whole / 2..=whole).contains(&pause), "{attempt}: {pause}");
                assert_eq!(pause, pause_ms(1000, 60_000, attempt, what));
            }
        }
        for attempt in [1, 64, 65, u32::MAX] {
            assert!(pause_ms(u64::MAX, u64::MAX, attempt, "a") >= u64::MAX / 2, "{attempt}");
        }
    }

    #[test]
    fn jitter_spreads() {
        let pauses: std::collections::BTreeSet<u64> =
            (0..100).map(|i| pause_ms(100_000, 100_000, 1, &i.to_string())).collect();
        assert!(pauses.len() > 90);
    }
}

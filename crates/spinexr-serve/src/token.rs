//! New tokens.

use sha2::{Digest, Sha256};
use spinexr_core::hex;

/// A token of 256 random bits, and its hash for the configuration.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_token() -> std::io::Result<(String, String)> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let token = format!("spinexr_{}", hex(&bytes));
    let hash = hex(&Sha256::digest(token.as_bytes()));
    Ok((token, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ() {
        let (a, hash) = new_token().unwrap();
        assert_ne!(a, new_token().unwrap().0);
        assert_eq!((a.len(), hash.len()), (8 + 64, 64));
    }
}

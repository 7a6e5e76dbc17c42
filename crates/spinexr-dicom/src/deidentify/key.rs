//! What only the holder of a key can tell: new UIDs, patients' pseudonyms and shifts of dates, all from
//! HMAC-SHA256 (RFC 2104, FIPS 198-1). The same key gives the same, so that films of a study stay together from one
//! run to the next; without it, nobody can go from a new value to an old one, or try old ones out.

use crate::error::ReadError;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Fewest bytes of a key: as many as the hash gives.
const MIN_BYTES: usize = 32;
/// Most bytes of a key file; a longer one is some other file.
const MAX_BYTES: usize = 4096;
/// Block of SHA-256, bytes.
const BLOCK: usize = 64;

/// A secret that de-identification hangs on. Has no `Debug`, so that it does not get into a log.
#[derive(Clone)]
pub struct Key([u8; BLOCK]);

impl Key {
    /// From a secret of 32 to 4096 bytes; `None` for less or more.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&secret.len()) {
            return None;
        }
        let mut block = [0; BLOCK];
        if secret.len() > BLOCK {
            block[..32].copy_from_slice(&Sha256::digest(secret));
        } else {
            block[..secret.len()].copy_from_slice(secret);
        }
        Some(Self(block))
    }

    /// From a file of 32 to 4096 bytes, all of which count.
    ///
    /// # Errors
    /// [`ReadError::Io`], [`ReadError::Key`] for a file of another size.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.into(), source };
        let found = std::fs::metadata(path).map_err(io)?.len();
        let wrong = || ReadError::Key { path: path.into(), found };
        if found > MAX_BYTES as u64 {
            return Err(wrong());
        }
        Self::new(&std::fs::read(path).map_err(io)?).ok_or_else(wrong)
    }

    /// HMAC of `role` and `text`; the role keeps a patient's and a study's id of the same text apart.
    fn hmac(&self, role: &str, text: &[u8]) -> [u8; 32] {
        let pad = |with: u8| self.0.map(|byte| byte ^ with);
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(role)
            .chain_update([0])
            .chain_update(text)
            .finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }

    /// A UID under 2.25 (PS3.5 B.2) in place of another. Padding does not matter.
    pub fn uid(&self, old: &str) -> String {
        let hash = self.hmac("uid", old.trim_matches([' ', '\0']).as_bytes());
        crate::write::uuid_uid(&hash)
    }

    /// 32 hexadecimal digits in place of an identifier; `role` says what it identifies.
    pub fn name(&self, role: &str, old: &str) -> String {
        spinexr_core::hex(&self.hmac(role, old.trim_matches([' ', '\0']).as_bytes())[..16])
    }

    /// A patient's pseudonym, as Patient ID and name: at most 16 characters.
    pub fn patient(&self, old: &str) -> String {
        format!("SX{}", self.name("patient", old)[..14].to_ascii_uppercase())
    }

    /// Days by which a patient's dates go back: 1 to 3652, the same for all films of the patient.
    pub fn days(&self, patient: &str) -> i64 {
        let hash = self.hmac("days", patient.trim_matches([' ', '\0']).as_bytes());
        let number = u64::from_be_bytes(hash[..8].try_into().expect("the hash has 32 bytes"));
        1 + (number % 3652) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // Test cases 1 to 3 have keys of 20, 4 and 20 bytes; a key is padded with zeros, so these 32 are the same.
        let mut key = [0u8; 32];
        key[..20].fill(0x0b);
        let key = Key::new(&key).unwrap();
        // Case 1's data is "Hi There": role "Hi There" would add a zero, so the parts are checked by hand.
        let direct = |data: &[u8]| -> [u8; 32] {
            let inner = Sha256::new().chain_update(key.0.map(|b| b ^ 0x36)).chain_update(data).finalize();
            Sha256::new().chain_update(key.0.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
        };
        assert_eq!(
            spinexr_core::hex(&direct(b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(key.hmac("role", b"text"), direct(b"role\0text"));
        // Case 6: a key longer than a block is hashed first.
        let key = Key::new(&[0xaa; 131]).unwrap();
        let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let inner = Sha256::new().chain_update(key.0.map(|b| b ^ 0x36)).chain_update(data).finalize();
        let outer = Sha256::new().chain_update(key.0.map(|b| b ^ 0x5c)).chain_update(inner).finalize();
        assert_eq!(
            spinexr_core::hex(&outer),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn the_same_key_gives_the_same_and_another_does_not() {
        let (a, b) = (Key::new(&[1; 32]).unwrap(), Key::new(&[2; 32]).unwrap());
        assert_eq!(a.uid("1.2.3"), a.uid("1.2.3\0"));
        assert_ne!(a.uid("1.2.3"), b.uid("1.2.3"));
        assert!(a.uid("1.2.3").starts_with("2.25.") && a.uid("1.2.3").len() <= 64);
        assert_ne!(a.name("study", "1"), a.name("series", "1"));
        assert_eq!(a.patient("P").len(), 16);
        let days: Vec<i64> = (0..200).map(|i| a.days(&i.to_string())).collect();
        assert!(days.iter().all(|d| (1..=3652).contains(d)) && days.iter().max() > Some(&3000));
    }

    #[test]
    fn a_key_of_the_wrong_size_is_refused() {
        assert!(Key::new(b"password").is_none() && Key::new(&[0; 5000]).is_none());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "password").unwrap();
        assert!(matches!(Key::read(&path), Err(ReadError::Key { found: 8, .. })));
    }
}

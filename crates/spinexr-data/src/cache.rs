//! Prepared films: decoded and resized once, read many times.
//!
//! Under the cache's folder lies one folder for each policy and input size, such as
//! `vindr-224x224-stretch`, with the pixels (`films.u16` or `films.u8`) and an index (`index.log`). [`prepare`] fills it and
//! may be killed and run again; [`Cache`] reads it.

use crate::cache_index::{Folder, Header, Record, read_bytes, read_index};
use crate::error::reading;
use crate::{DataError, InputSize, PreparedFilm};
use sha2::{Digest, Sha256};
use spinexr_core::{FilmAnnotation, FilmFacts, hex};
use spinexr_dicom::Policy;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use crate::cache_index::PixelDepth;
pub use crate::prepare::{FilmFailure, PrepareOutcome, prepare, prepare_as};

/// Films are kept in memory once read when all of them together take no more than this, bytes.
pub const DEFAULT_MEMORY_LIMIT: u64 = 1 << 30;

/// The prepared films of one policy and input size, open for reading from any thread.
#[derive(Debug)]
pub struct Cache {
    folder: Folder,
    input: InputSize,
    policy: Policy,
    depth: PixelDepth,
    films: HashMap<String, Stored>,
    keep_in_memory: bool,
}

#[derive(Debug)]
struct Stored {
    record: Record,
    pixels: OnceLock<Arc<[u16]>>,
}

impl Cache {
    /// Opens what [`prepare`] has made for `input` and `policy` under `dir`. Cheap: no pixel is read.
    ///
    /// # Errors
    /// [`DataError::NoCache`] when there is none; [`DataError::Layout`] when it was made by another version;
    /// [`DataError::Read`].
    pub fn open(dir: &Path, input: &InputSize, policy: Policy) -> Result<Self, DataError> {
        input.check()?;
        let folder = Folder::new(dir, policy, input);
        let Some(index) = read_index(&folder, input)? else {
            return Err(DataError::NoCache {
                path: folder.path,
                policy: policy.name().to_owned(),
                input: input.to_string(),
            });
        };
        let (frame, depth) = index.header.as_ref().map_or_else(Default::default, |h| (h.frame, h.depth));
        let expected = Header::new(policy, frame, *input, depth);
        if index.header.as_ref() != Some(&expected) {
            return Err(DataError::Layout {
                path: folder.index(),
                expected: format!("the header {expected:?}; prepare the data set again"),
                found: index.header.map_or_else(|| "a damaged first line".to_owned(), |h| format!("{h:?}")),
            });
        }
        let films: HashMap<String, Stored> = index
            .records
            .into_iter()
            .map(|record| (record.image_id.clone(), Stored { record, pixels: OnceLock::new() }))
            .collect();
        let cache = Self { folder, input: *input, policy, depth, films, keep_in_memory: false };
        Ok(cache.with_memory_limit(DEFAULT_MEMORY_LIMIT))
    }

    /// Keeps films in memory, once read, when all of them together take at most `limit` bytes; 0 reads each
    /// from the disk whenever it is asked for.
    pub fn with_memory_limit(mut self, limit: u64) -> Self {
        // In memory, as in training, a grey value has 16 bits.
        let bytes = PixelDepth::U16.film_bytes(&self.input);
        self.keep_in_memory = bytes.saturating_mul(self.films.len() as u64) <= limit;
        self
    }

    /// Number of films.
    pub fn len(&self) -> usize {
        self.films.len()
    }

    /// There is no film.
    pub fn is_empty(&self) -> bool {
        self.films.is_empty()
    }

    /// The input size that films were prepared for.
    pub fn input(&self) -> InputSize {
        self.input
    }

    /// The policy that films were read with.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Bits in which a grey value is kept on the disk.
    pub fn depth(&self) -> PixelDepth {
        self.depth
    }

    /// The film is there.
    pub fn contains(&self, image_id: &str) -> bool {
        self.films.contains_key(image_id)
    }

    /// All image ids, sorted.
    pub fn image_ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.films.keys().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    }

    /// A film, its checksum verified when it is read from the disk.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`], [`DataError::Damaged`], [`DataError::Read`].
    pub fn get(&self, image_id: &str) -> Result<PreparedFilm, DataError> {
        let stored = self.stored(image_id)?;
        let pixels = match stored.pixels.get() {
            Some(pixels) => pixels.to_vec(),
            None => {
                let pixels = self.read_pixels(&stored.record)?;
                if self.keep_in_memory {
                    // Two threads may read the same film at once; either copy will do.
                    stored.pixels.get_or_init(|| pixels.as_slice().into());
                }
                pixels
            }
        };
        let (film_height_px, film_width_px) = (stored.record.film_height_px, stored.record.film_width_px);
        Ok(PreparedFilm {
            height: self.input.height_px as usize,
            width: self.input.width_px as usize,
            pixels,
            map: self.input.map(film_height_px, film_width_px),
            film_height_px,
            film_width_px,
        })
    }

    /// What was done to the film's pixels, as data.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`].
    pub fn provenance(&self, image_id: &str) -> Result<&serde_json::Value, DataError> {
        Ok(&self.stored(image_id)?.record.provenance)
    }

    /// Coded facts of the film's header.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`].
    pub fn facts(&self, image_id: &str) -> Result<&FilmFacts, DataError> {
        Ok(&self.stored(image_id)?.record.facts)
    }

    /// Height and width of the film itself, px; `None` for a film that is not there.
    pub fn film_size_px(&self, image_id: &str) -> Option<(u32, u32)> {
        self.films.get(image_id).map(|s| (s.record.film_height_px, s.record.film_width_px))
    }

    /// SHA-256, in hex, over the ids, annotations and pixels of `films`: what a run writes down as its data.
    /// The order of `films`, and the order in which they were prepared, do not matter.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`].
    pub fn data_hash(&self, films: &[FilmAnnotation]) -> Result<String, DataError> {
        let mut films: Vec<&FilmAnnotation> = films.iter().collect();
        films.sort_by(|a, b| a.image_id.cmp(&b.image_id));
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.policy.name(), self.input));
        for film in films {
            let pixels = &self.stored(&film.image_id)?.record.sha256;
            hash.update(serde_json::to_vec(film).expect("annotations hold strings and finite numbers"));
            hash.update(format!("\n{pixels}\n"));
        }
        Ok(hex(&hash.finalize()))
    }

    pub(crate) fn not_prepared(&self, image_id: &str) -> DataError {
        DataError::NotPrepared { image_id: image_id.to_owned(), path: self.folder.path.clone() }
    }

    fn stored(&self, image_id: &str) -> Result<&Stored, DataError> {
        self.films.get(image_id).ok_or_else(|| self.not_prepared(image_id))
    }

    fn read_pixels(&self, record: &Record) -> Result<Vec<u16>, DataError> {
        let path = self.folder.pixels(self.depth);
        let mut bytes = vec![0u8; self.depth.film_bytes(&self.input) as usize];
        let mut file = File::open(&path).map_err(reading(&path))?;
        read_bytes(&mut file, record.offset, &mut bytes).map_err(reading(&path))?;
        let found = crc32fast::hash(&bytes);
        if found != record.crc32 {
            let image_id = record.image_id.clone();
            return Err(DataError::Damaged { path, image_id, expected: record.crc32, found });
        }
        Ok(self.depth.pixels(&bytes))
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

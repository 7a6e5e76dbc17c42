//! A bundle: trained models with all that is needed to use them, as a folder `NAME.spinexr`.
//!
//! ```text
//! NAME.spinexr/
//!   bundle.toml           architectures, classes, preprocessing, thresholds, checksums
//!   weights.safetensors   the tensors of every model, as <model name>.<tensor>
//!   card.md               for people: what it is, its data, figures and limits
//! ```
//!
//! Nothing in a bundle is executed. The checksums find damage and edits; they do not say who made a
//! bundle.
//!
//! The bundle hash can be had without this program:
//! `(grep -v '^bundle_hash = ' bundle.toml; cat weights.safetensors) | sha256sum`.

use crate::InferError;
use crate::manifest::{BundleManifest, Decision, FORMAT_VERSION, ModelSpec};
use crate::weights_file::{self, Storage};
use sha2::{Digest, Sha256};
use spinexr_core::{hex, whole_file};
use spinexr_models::weights::StateDict;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

const MANIFEST_FILE: &str = "bundle.toml";
const WEIGHTS_FILE: &str = "weights.safetensors";
const CARD_FILE: &str = "card.md";

/// Largest `bundle.toml` and `card.md`, bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Largest `weights.safetensors`, bytes.
const MAX_WEIGHTS_BYTES: u64 = 8 << 30;

/// What a bundle says of itself beside its models and thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleInfo {
    /// What the bundle is called.
    pub name: String,
    /// Licence of the weights.
    pub licence: String,
    /// What the bundle is meant for, and what not.
    pub intended_use: String,
    /// Made for showing how the program works.
    pub demonstration: bool,
}

/// A bundle in memory, its checksums verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    manifest: BundleManifest,
    manifest_text: String,
    weights: Vec<u8>,
    card: String,
    place: String,
}

impl Bundle {
    /// A bundle of models and their weights. `card` is the text of `card.md`; see [`crate::card()`].
    ///
    /// # Errors
    /// [`InferError::ManifestValue`] when the specifications do not fit together,
    /// [`InferError::Weights`] when a weight cannot be stored as asked.
    pub fn new(
        info: BundleInfo,
        models: Vec<(ModelSpec, StateDict)>,
        decision: Option<Decision>,
        storage: Storage,
        card: impl FnOnce(&BundleManifest) -> String,
    ) -> Result<Self, InferError> {
        let place = format!("bundle {:?}", info.name);
        let weights = weights_file::encode(
            models.iter().map(|(spec, state)| (spec.name.as_str(), state)),
            storage,
            &place,
        )?;
        let mut manifest = BundleManifest {
            bundle_hash: String::new(),
            format: FORMAT_VERSION,
            name: info.name,
            created_by: concat!("spinexr ", env!("CARGO_PKG_VERSION")).to_owned(),
            licence: info.licence,
            intended_use: info.intended_use,
            demonstration: info.demonstration,
            weights_sha256: hex(&Sha256::digest(&weights)),
            decision,
            models: models.into_iter().map(|(spec, _)| spec).collect(),
        };
        manifest.check(&place)?;
        manifest.bundle_hash = bundle_hash(&manifest.to_toml(), &weights);
        let card = card(&manifest);
        Ok(Self { manifest_text: manifest.to_toml(), manifest, weights, card, place })
    }

    /// Reads a bundle from its folder and verifies it.
    ///
    /// # Errors
    /// A missing or unreadable file, a manifest that does not parse, a checksum that does not match.
    pub fn load(dir: &Path) -> Result<Self, InferError> {
        let place = dir.display().to_string();
        let text = |file, bytes| {
            String::from_utf8(bytes).map_err(|_| InferError::Manifest {
                place: dir.join(file).display().to_string(),
                message: "expected UTF-8 text, got other bytes".to_owned(),
            })
        };
        // The folder itself is looked at first, so that a wrong path is told apart from a broken bundle.
        fs::read_dir(dir).map_err(InferError::io(dir, "read the bundle folder"))?;
        let manifest = text(MANIFEST_FILE, read_part(dir, MANIFEST_FILE, MAX_TEXT_BYTES)?)?;
        let weights = read_part(dir, WEIGHTS_FILE, MAX_WEIGHTS_BYTES)?;
        let card = text(CARD_FILE, read_part(dir, CARD_FILE, MAX_TEXT_BYTES)?)?;
        Self::from_owned_parts(manifest, weights, card, place)
    }

    /// A bundle from the contents of its three files, for one that is built into a program.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn from_parts(manifest: &str, weights: &[u8], card: &str) -> Result<Self, InferError> {
        Self::from_owned_parts(
            manifest.to_owned(),
            weights.to_vec(),
            card.to_owned(),
            "<embedded>".to_owned(),
        )
    }

    fn from_owned_parts(
        manifest_text: String,
        weights: Vec<u8>,
        card: String,
        place: String,
    ) -> Result<Self, InferError> {
        let manifest = BundleManifest::parse(&manifest_text, &format!("{place}/{MANIFEST_FILE}"))?;
        let check = |what, expected: &str, got: String| {
            if expected == got {
                return Ok(());
            }
            let expected = expected.to_owned();
            Err(InferError::Checksum { place: place.clone(), what, expected, got })
        };
        check(WEIGHTS_FILE, &manifest.weights_sha256, hex(&Sha256::digest(&weights)))?;
        let whole = bundle_hash(&manifest_text, &weights);
        check("bundle.toml + weights.safetensors", &manifest.bundle_hash, whole)?;
        let names: Vec<&str> = manifest.models.iter().map(|m| m.name.as_str()).collect();
        weights_file::check_owners(&weights, &names, &place)?;
        Ok(Self { manifest, manifest_text, weights, card, place })
    }

    /// Writes the bundle as a folder, whole or not at all; an older bundle there is replaced, any other
    /// folder is not.
    ///
    /// # Errors
    /// The place is taken by something else, or the system refuses.
    pub fn save(&self, dir: &Path) -> Result<(), InferError> {
        whole_file::write_folder(
            dir,
            MANIFEST_FILE,
            &[
                (MANIFEST_FILE, self.manifest_text.as_bytes()),
                (WEIGHTS_FILE, &self.weights),
                (CARD_FILE, self.card.as_bytes()),
            ],
        )
        .map_err(InferError::io(dir, "write the bundle"))
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &BundleManifest {
        &self.manifest
    }

    /// The hash that names the bundle in every prediction.
    pub fn hash(&self) -> &str {
        &self.manifest.bundle_hash
    }

    /// The text of `card.md`.
    pub fn card(&self) -> &str {
        &self.card
    }

    /// Where the bundle came from, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Size of the three files together, bytes.
    pub fn size_bytes(&self) -> u64 {
        (self.manifest_text.len() + self.weights.len() + self.card.len()) as u64
    }

    /// The tensors of one model, as f32, without the model's prefix. Empty for a name that is not in the
    /// bundle.
    ///
    /// # Errors
    /// [`InferError::Weights`] for a tensor that cannot be used.
    pub fn state_dict(&self, model: &str) -> Result<StateDict, InferError> {
        weights_file::decode(&self.weights, model, &self.place)
    }
}

/// One framework bundle of several bundles: all their models, and the thresholds chosen for them together.
///
/// The result is a demonstration when any part is one.
///
/// # Errors
/// [`InferError::NameClash`] when two models have one name, [`InferError::NoModel`] for no bundle, else as
/// [`Bundle::new`].
pub fn combine(
    bundles: &[Bundle],
    mut info: BundleInfo,
    decision: Option<Decision>,
    storage: Storage,
    card: impl FnOnce(&BundleManifest) -> String,
) -> Result<Bundle, InferError> {
    let mut owners: BTreeMap<&str, &Bundle> = BTreeMap::new();
    let mut models = vec![];
    for bundle in bundles {
        for spec in &bundle.manifest.models {
            if let Some(first) = owners.insert(&spec.name, bundle) {
                return Err(InferError::NameClash {
                    name: spec.name.clone(),
                    first: first.place.clone(),
                    second: bundle.place.clone(),
                });
            }
            models.push((spec.clone(), bundle.state_dict(&spec.name)?));
        }
    }
    if models.is_empty() {
        return Err(InferError::NoModel);
    }
    info.demonstration |= bundles.iter().any(|b| b.manifest.demonstration);
    Bundle::new(info, models, decision, storage, card)
}

/// See [`BundleManifest::bundle_hash`].
fn bundle_hash(manifest_text: &str, weights: &[u8]) -> String {
    let mut hash = Sha256::new();
    for line in manifest_text.split_inclusive('\n').filter(|l| !l.starts_with("bundle_hash = ")) {
        hash.update(line.as_bytes());
    }
    hash.update(weights);
    hex(&hash.finalize())
}

fn read_part(dir: &Path, file: &'static str, limit: u64) -> Result<Vec<u8>, InferError> {
    let path = dir.join(file);
    let opened = match File::open(&path) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(InferError::NotABundle { path: dir.to_owned(), file });
        }
        Err(e) => return Err(InferError::io(&path, "read")(e)),
    };
    let size = opened.metadata().map_err(InferError::io(&path, "read"))?.len();
    if size > limit {
        return Err(InferError::TooLarge { place: path.display().to_string(), got: size, limit });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    opened.take(limit).read_to_end(&mut bytes).map_err(InferError::io(&path, "read"))?;
    Ok(bytes)
}

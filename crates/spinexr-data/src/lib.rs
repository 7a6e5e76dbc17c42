//! From annotated films to batches: readers and writers of annotation formats, study-level splits, the one resize, the
//! prepared cache, augmentation, samplers and the loader.
//!
//! The way of a film: [`SplitDataset::read`] (annotations, validation studies held out, leakage checked) →
//! [`SplitDataset::prepare`] (decoded and resized once) → [`Loader`] (sampler, augmentation, batch).
//! Boxes are film pixels everywhere but in [`LabelledBox`], which lives in input pixels between
//! [`ResizeMap::to_input`] and [`ResizeMap::to_film`].

pub mod augment;
pub mod auto_augment;
pub mod cache;
pub mod check;
pub mod checksums;
pub mod convert;
pub mod dataset;
pub mod error;
pub mod fixed;
pub mod formats;
pub mod headers;
pub mod loader;
pub mod ready;
pub mod resize;
pub mod resplit;
pub mod sampler;
pub mod split;
pub mod stats;
pub mod stratify;
pub mod vindr;

mod affine;
mod cache_index;
mod class_file;
mod compose;
mod copy_paste;
mod example;
mod grey_ops;
mod mix;
mod mosaic;
mod parallel;
mod prefetch;
mod prepare;
mod rescale;
#[cfg(test)]
mod test_films;
mod vindr_rows;

pub use augment::{AugmentConfig, augment};
pub use auto_augment::AutoAugmentPolicy;
pub use cache::{Cache, FilmFailure};
pub use dataset::{Dataset, Film, ReadCounts};
pub use error::{DataError, RowError};
pub use fixed::FixedBatches;
pub use formats::Format;
pub use loader::{Batch, Loader, LoaderConfig, Share};
pub use ready::{ReadyDataset, SplitDataset};
pub use resize::{Fit, InputSize, LabelledBox, PreparedFilm, ResizeMap, prepare_film};
pub use sampler::{Sampler, SamplerConfig};
pub use split::HoldOut;

//! Synthetic spine radiographs with true boxes.
//!
//! A patient is a chain of vertebrae in space with the bones, organs and air around it; a film is what a
//! source, that patient and a detector make of each other. Nothing is pasted on a picture: a finding is a
//! change of the anatomy, seen from every side, and its box is the projection of what changed.
//!
//! ```text
//! patient ─▶ spine ─▶ vertebra, surroundings, soft ─▶ scene ─▶ exposure ─▶ detector ─▶ 12 bits
//!              ▲              ▲                          │
//!            lesion ──────────┘                          └─▶ boxes (film)
//! ```
//!
//! - **Anatomy** ([`spine`], [`vertebra`], [`surroundings`], [`soft`]). Two regions, lumbar and cervical.
//!   Bones are barrels, ellipsoids, tubes and plates ([`solid`], [`scene`], [`outline`]) with a compact shell
//!   around cancellous bone. Sizes are rounded adult means; size, curves, age, sex and girth vary.
//! - **Findings** ([`lesion`], [`plan`]). The seven classes of VinDr-SpineXR and its six rarer categories.
//!   A finding that cannot be seen in a view has no box there.
//! - **Exposure** ([`mod@exposure`]). Beer–Lambert at 50 and 80 keV. Linear attenuation, per cm, rounded from the
//!   NIST tables (mass coefficient times density): water 0.227 and 0.184, compact bone 0.814 and 0.428,
//!   titanium 5.47 and 1.83, steel 15.4 and 4.68. Approximations for plausible contrast, not dosimetry. Scattered
//!   radiation is a wide blur of the primary image; focal spot and detector blur a little.
//! - **Detector** ([`detector`]). Logarithm, dynamic range compression, edge enhancement, noise that grows
//!   as the root of the exposure falls, 12 bits.
//! - **Data set** ([`dataset`]). The layout of the release, with its mixed polarity, transfer syntaxes and
//!   some of its faults (a comma after Window Center, missing patient identifiers).
//!
//! What it is not: the muscles, fat planes and bowel are crude, nothing below the hips or above the ears
//! exists, and disease never changes the alignment by muscle spasm. Models trained on these films are for
//! trying out the program, not for patients.
//!
//! The same seed gives the same bytes on any number of threads; other platforms may differ in the last bit
//! of a pixel, since sines and logarithms come from the system.

pub mod dataset;
pub mod detector;
pub mod exposure;
pub mod film;
pub mod lesion;
pub mod outline;
pub mod patient;
pub mod plan;
pub mod random;
pub mod raster;
pub mod scene;
pub mod soft;
pub mod solid;
pub mod space;
pub mod spine;
pub mod surroundings;
pub mod vertebra;

pub use dataset::{SynthConfig, SynthError, SynthSummary, generate};
pub use film::{Film, FilmSpec, MarkedBox, render_film};

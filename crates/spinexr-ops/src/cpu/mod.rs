//! CPU kernels over plain row-major f32 slices; nothing here knows the tensor engine.
//!
//! How work is cut into tasks and in what order partial sums are added depends on the shapes alone, so
//! results do not depend on the number of threads.

pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod geometry;
pub(crate) mod norm;
pub(crate) mod planes;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod roi_align;
pub(crate) mod row;
pub(crate) mod simd;
pub(crate) mod winograd;

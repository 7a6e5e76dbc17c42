//! Data sets: annotations, splits, prepared cache, resize, augmentation, batches

//! Tensor operations the engine lacks or does slowly, each with its gradient

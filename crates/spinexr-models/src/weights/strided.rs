//! From the bytes of a storage to the f32 values of a tensor that is a view of it.

use super::{WeightsError, half_to_f32};

/// How an element lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl ElementType {
    /// The type of a NumPy code such as `f4`.
    pub fn of_numpy(code: &str) -> Option<Self> {
        Some(match code.trim_start_matches(['<', '=', '|']) {
            "f8" => Self::F64,
            "f4" => Self::F32,
            "f2" => Self::F16,
            "i8" => Self::I64,
            "i4" => Self::I32,
            "i2" => Self::I16,
            "i1" => Self::I8,
            "u1" | "b1" => Self::U8,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    /// Whether it can hold weights.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// A float of the first bytes; integers are none.
    fn read(self, bytes: &[u8]) -> f32 {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes[..N].try_into().expect("a slice of the length asked for")
        }
        match self {
            Self::F64 => f64::from_le_bytes(array(bytes)) as f32,
            Self::F32 => f32::from_le_bytes(array(bytes)),
            Self::F16 => half_to_f32(u16::from_le_bytes(array(bytes))),
            Self::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(array(bytes))) << 16),
            _ => f32::NAN,
        }
    }
}

/// A tensor as a file describes it: a view of `bytes`, little-endian.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pub element: ElementType,
    pub bytes: &'a [u8],
    /// First element.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Steps between neighbours of each dimension, in elements.
    pub stride: Vec<usize>,
}

impl View<'_> {
    /// Steps of a tensor whose last dimension is the innermost (`fortran`: the first).
    pub fn contiguous(shape: &[usize], fortran: bool) -> Vec<usize> {
        let mut stride = vec![0; shape.len()];
        let mut step = 1usize;
        let mut fill = |i: usize| {
            stride[i] = step;
            step = step.saturating_mul(shape[i]);
        };
        match fortran {
            true => (0..shape.len()).for_each(&mut fill),
            false => (0..shape.len()).rev().for_each(&mut fill),
        }
        stride
    }

    /// How many values it has; `None` beyond the reach of a number.
    pub fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size))
    }

    /// The values in row-major order.
    ///
    /// # Errors
    /// [`WeightsError::Format`] when the view reaches beyond its storage, or repeats elements of it (as an expanded
    /// tensor, which no file of weights has and by which a small file could ask for any memory).
    pub fn values(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let elements = self.bytes.len() / self.element.size();
        let fault = |what: &str| {
            let (shape, stride, offset) = (&self.shape, &self.stride, self.offset);
            Err(WeightsError::Format(format!(
                "tensor {name:?} of shape {shape:?}, steps {stride:?} from element {offset} {what} its storage of \
                 {elements} elements"
            )))
        };
        let Some(count) = self.count() else { return fault("is larger than") };
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > elements {
            return fault("has more elements than");
        }
        let last = self
            .shape
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |at, (size, step)| at.checked_add((size - 1).checked_mul(*step)?));
        if last.is_none_or(|last| last >= elements) {
            return fault("reaches beyond");
        }
        let width = self.element.size();
        if self.stride == Self::contiguous(&self.shape, false) {
            let bytes = &self.bytes[self.offset * width..(self.offset + count) * width];
            return Ok(bytes.chunks_exact(width).map(|b| self.element.read(b)).collect());
        }
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let at = index.iter().zip(&self.stride).fold(self.offset, |at, (i, step)| at + i * step);
            values.push(self.element.read(&self.bytes[at * width..]));
            for (i, size) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(bytes: &'a [u8], offset: usize, shape: &[usize], stride: &[usize]) -> View<'a> {
        View { element: ElementType::F32, bytes, offset, shape: shape.to_vec(), stride: stride.to_vec() }
    }

    #[test]
    fn views_are_read_by_their_steps() {
        let bytes: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
        assert_eq!(view(&bytes, 1, &[2, 3], &[3, 1]).values("w").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(view(&bytes, 0, &[2, 3], &[1, 2]).values("w").unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(View::contiguous(&[2, 3], true), [1, 2]);
        assert_eq!(view(&bytes, 7, &[], &[]).values("w").unwrap(), [7.0]);
        assert!(view(&bytes, 0, &[0, 3], &[3, 1]).values("w").unwrap().is_empty());
    }

    #[test]
    fn views_beyond_their_storage_are_errors() {
        let bytes = [0u8; 32];
        for (offset, shape, stride) in [
            (0, &[9][..], &[1][..]),
            (0, &[9], &[0]),
            (1, &[8], &[1]),
            (0, &[2, 2], &[usize::MAX, 1]),
            (usize::MAX, &[2], &[1]),
            (0, &[usize::MAX, 2], &[0, 0]),
        ] {
            assert!(
                view(&bytes, offset, shape, stride).values("w").is_err(),
                "{offset} {shape:?} {stride:?}"
            );
        }
    }

    #[test]
    fn every_float_type() {
        for (element, bytes) in [
            (ElementType::F64, 1.5f64.to_le_bytes().to_vec()),
            (ElementType::F32, 1.5f32.to_le_bytes().to_vec()),
            (ElementType::F16, vec![0x00, 0x3e]),
            (ElementType::Bf16, vec![0xc0, 0x3f]),
        ] {
            let view = View { element, bytes: &bytes, offset: 0, shape: vec![1], stride: vec![1] };
            assert_eq!(view.values("w").unwrap(), [1.5], "{element:?}");
        }
    }
}

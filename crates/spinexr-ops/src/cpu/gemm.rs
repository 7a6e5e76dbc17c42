//! Matrix products of the `gemm` crate, on one thread.

/// A row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    /// From one row to the next.
    pub stride: usize,
}

impl Matrix<'_> {
    fn check(&self) {
        assert!(self.stride >= self.columns);
        assert!(self.rows == 0 || self.values.len() >= (self.rows - 1) * self.stride + self.columns);
    }
}

/// `sum += a bᵀ`: entry (i, j) of `sum`, at `i * stride + j`, gets the product of row i of `a` with row j of `b`.
///
/// # Panics
/// When the columns differ or a matrix leaves its values.
pub(crate) fn add_product(a: Matrix<'_>, b: Matrix<'_>, sum: &mut [f32], stride: usize) {
    a.check();
    b.check();
    assert_eq!(a.columns, b.columns);
    assert!(stride >= b.rows && (a.rows == 0 || sum.len() >= (a.rows - 1) * stride + b.rows));
    // The longer side as rows of the product: the kernels of `gemm` are tall.
    let (left, right, row_stride, column_stride) = match a.rows >= b.rows {
        true => (a, b, stride as isize, 1),
        false => (b, a, 1, stride as isize),
    };
    // SAFETY: the shapes and strides were checked against the slices; `sum` is borrowed mutably, so it overlaps
    // neither matrix.
    unsafe {
        gemm::gemm(
            left.rows,
            right.rows,
            left.columns,
            sum.as_mut_ptr(),
            column_stride,
            row_stride,
            true,
            left.values.as_ptr(),
            1,
            left.stride as isize,
            right.values.as_ptr(),
            right.stride as isize,
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_sum_of_products_for_any_shape_and_stride() {
        for (m, n, k, pad) in
            [(1, 1, 1, 0), (3, 5, 7, 2), (17, 4, 33, 5), (4, 40, 100, 1), (64, 64, 0, 3), (0, 3, 4, 0)]
        {
            let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let a: Vec<f32> = (0..m * (k + pad)).map(value).collect();
            let b: Vec<f32> = (0..n * (k + pad)).map(|i| value(i + 77)).collect();
            let mut sum = vec![0.5; m * (n + 1)];
            let matrix = |values, rows| Matrix { values, rows, columns: k, stride: k + pad };
            add_product(matrix(&a, m), matrix(&b, n), &mut sum, n + 1);
            for (i, row) in sum.chunks_exact(n + 1).enumerate() {
                for (j, got) in row[..n].iter().enumerate() {
                    let term = |v: usize| f64::from(a[i * (k + pad) + v]) * f64::from(b[j * (k + pad) + v]);
                    let expected = 0.5 + (0..k).map(term).sum::<f64>();
                    assert!((f64::from(*got) - expected).abs() < 1e-5, "({i}, {j}) of {m}x{n}x{k}");
                }
                assert_eq!(row[n], 0.5, "what lies between the rows is not touched");
            }
        }
    }
}

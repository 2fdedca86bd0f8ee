//! Matrix products on slices: a checked door to the `gemm` crate.
//!
//! Comes in: slices with a start, a row stride and a column stride. Goes out: the product, written or added. The check that every
//! element lies inside its slice is what makes the one `unsafe` call sound.

/// A read-only matrix view: element (r, c) is `data[r * rows + c * cols]` for strides `rows`, `cols`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Starts at element (0, 0).
    pub data: &'a [f32],
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between columns.
    pub col_stride: usize,
}

impl<'a> View<'a> {
    /// Rows one after the other, `row_stride` apart.
    pub fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn covers(&self, rows: usize, cols: usize) -> bool {
        rows == 0
            || cols == 0
            || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// `out (m, n) = a (m, k) * b (k, n) * scale`, or `out += …` with `add`; rows of `out` are `out_stride` apart.
///
/// # Panics
/// Where a view is too short for its sizes: a bug in the caller, never a matter of input.
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    out: &mut [f32],
    out_stride: usize,
    m: usize,
    n: usize,
    k: usize,
    a: View,
    b: View,
    scale: f32,
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        a.covers(m, k) && b.covers(k, n) && (m - 1) * out_stride + n <= out.len(),
        "matrix view out of bounds"
    );
    // SAFETY: the assertion above bounds every element that the kernel reads or writes.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

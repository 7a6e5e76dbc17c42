//! Copies between tensors and the padded planes of a tile.

use core::mem::MaybeUninit;

use super::conv::Before;
use super::geometry::{Layout, Shifts, Tile};
use super::row::{self, Activation};
use super::simd::Isa;

/// Pack every phase of `channels` source planes into `buffer`, zero-padded.
///
/// `source` holds the channels one after the other, `before` is theirs; plane `(channel, phase)` of the result starts at
/// `(channel * phases + phase) * layout.plane`.
#[expect(clippy::too_many_arguments, reason = "the tile's geometry and what is packed")]
pub(crate) fn pack_source(
    isa: Isa,
    shifts: &Shifts,
    tile: &Tile,
    layout: &Layout,
    source: &[f32],
    before: Option<Before<'_>>,
    channels: usize,
    buffer: &mut Vec<f32>,
) {
    let [height, width] = shifts.source;
    let [step_y, step_x] = shifts.source_stride;
    let total = channels * shifts.phases.len() * layout.plane;
    if buffer.len() < total {
        buffer.resize(total, 0.0);
    }
    let mut planes = buffer[..total].chunks_exact_mut(layout.plane);
    for (c, channel) in source.chunks_exact(height * width).take(channels).enumerate() {
        let affine = before.map(|before| (before.scale[c], before.shift[c]));
        for &[phase_y, phase_x] in &shifts.phases {
            let plane = planes.next().expect("the buffer has one plane for each channel and phase");
            let phase_width = width.saturating_sub(phase_x).div_ceil(step_x);
            let (rows, tail) = plane.split_at_mut(layout.source_rows * layout.pitch);
            tail.fill(0.0);
            for (i, row) in rows.chunks_exact_mut(layout.pitch).enumerate() {
                let y = (layout.first_row + i as isize) * step_y as isize + phase_y as isize;
                if y < 0 || y as usize >= height {
                    row.fill(0.0);
                    continue;
                }
                let line = &channel[y as usize * width..][..width];
                // Buffer column j is phase column tile.col - left + j.
                let first = tile.col as isize - layout.left as isize;
                let zeros = (-first).clamp(0, layout.pitch as isize) as usize;
                let from = first.max(0) as usize;
                let count = phase_width.saturating_sub(from).min(layout.pitch - zeros);
                row[..zeros].fill(0.0);
                let (values, after) = row[zeros..].split_at_mut(count);
                if step_x == 1 {
                    let line = &line[from..from + count];
                    match affine {
                        Some((scale, shift)) => row::affine_relu(isa, line, scale, shift, values),
                        None => values.copy_from_slice(line),
                    }
                } else if count > 0 {
                    let line = &line[phase_x + from * step_x..];
                    for (value, pixel) in values.iter_mut().zip(line.iter().step_by(step_x)) {
                        *value = match affine {
                            // Not `max`: a NaN stays one.
                            Some((scale, shift)) if *pixel * scale + shift <= 0.0 => 0.0,
                            Some((scale, shift)) => *pixel * scale + shift,
                            None => *pixel,
                        };
                    }
                }
                after.fill(0.0);
            }
        }
    }
}

/// Pack the tile's target values of `channels` planes in the tile's positions, 0 between rows and behind
/// the end.
pub(crate) fn pack_target(
    shifts: &Shifts,
    tile: &Tile,
    layout: &Layout,
    target: &[f32],
    channels: usize,
    buffer: &mut Vec<f32>,
) {
    let [height, width] = shifts.target;
    let total = channels * layout.positions;
    if buffer.len() < total {
        buffer.resize(total, 0.0);
    }
    let planes = buffer[..total].chunks_exact_mut(layout.positions);
    for (plane, channel) in planes.zip(target.chunks_exact(height * width)) {
        let mut end = 0;
        for r in 0..tile.rows {
            let start = r * layout.pitch;
            plane[end..start].fill(0.0);
            end = start + tile.cols;
            plane[start..end].copy_from_slice(&channel[(tile.row + r) * width + tile.col..][..tile.cols]);
        }
        plane[end..].fill(0.0);
    }
}

/// A vector of `len` values, all of which `write` sets.
///
/// # Safety
/// `write` leaves no value unset.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len` and the caller vouches that all `len` values are set.
    unsafe { values.set_len(len) };
    values
}

/// A slice of floats that several threads write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct SharedOut {
    start: *mut MaybeUninit<f32>,
    len: usize,
}

// SAFETY: the pointer is only used through `write`, whose caller vouches that no two threads touch the
// same values.
unsafe impl Send for SharedOut {}
// SAFETY: as above.
unsafe impl Sync for SharedOut {}

impl SharedOut {
    pub(crate) fn new(out: &mut [MaybeUninit<f32>]) -> Self {
        Self { start: out.as_mut_ptr(), len: out.len() }
    }

    /// Over values that are set already.
    pub(crate) fn over(out: &mut [f32]) -> Self {
        Self { start: out.as_mut_ptr().cast(), len: out.len() }
    }

    /// Write a run of values `step` apart.
    ///
    /// # Panics
    /// When the run leaves the slice.
    ///
    /// # Safety
    /// The slice is still borrowed by whoever made this, and no other thread touches these values.
    #[inline]
    pub(crate) unsafe fn write(&self, at: usize, step: usize, values: &[f32]) {
        let Some(last) = values.len().checked_sub(1) else { return };
        assert!(at + last * step < self.len);
        // SAFETY: the run was just checked to lie inside the slice.
        unsafe {
            let to = self.start.add(at).cast::<f32>();
            if step == 1 {
                to.copy_from_nonoverlapping(values.as_ptr(), values.len());
            } else {
                for (i, &value) in values.iter().enumerate() {
                    to.add(i * step).write(value);
                }
            }
        }
    }

    /// A part of the slice.
    ///
    /// # Panics
    /// When the part leaves the slice.
    ///
    /// # Safety
    /// As [`SharedOut::write`], for as long as the part is used.
    #[expect(clippy::mut_from_ref, reason = "the caller vouches that the parts are disjoint")]
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: inside the slice, and nobody else touches it.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

/// The last steps before values are written, for one film.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// Added; of the film's output, from its first channel.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Finish<'_> {
    /// Finish `values` into `to`; they belong `at` this place of the film and after it.
    #[inline]
    pub(crate) fn row(&self, isa: Isa, values: &[f32], at: usize, to: &mut [MaybeUninit<f32>]) {
        let residual = self.residual.map(|residual| &residual[at..][..values.len()]);
        row::finish(isa, values, residual, self.activation, to);
    }
}

/// Finish the tile's sums and write them into the target: `film` is where the film starts in `out`, `first`
/// where the planes start in the film.
///
/// # Safety
/// As [`SharedOut::write`], for the tile's pixels of these planes.
#[expect(clippy::too_many_arguments, reason = "the tile's geometry and where it goes")]
pub(crate) unsafe fn unpack_target(
    isa: Isa,
    shifts: &Shifts,
    tile: &Tile,
    layout: &Layout,
    sums: &[f32],
    finish: Finish<'_>,
    out: SharedOut,
    film: usize,
    first: usize,
) {
    let [height, width] = shifts.target;
    let [step_y, step_x] = shifts.target_stride;
    let [offset_y, offset_x] = shifts.target_offset;
    for (c, plane) in sums.chunks_exact(layout.positions).enumerate() {
        for r in 0..tile.rows {
            let y = (tile.row + r) * step_y + offset_y;
            let x = tile.col * step_x + offset_x;
            let values = &plane[r * layout.pitch..][..tile.cols];
            let at = first + (c * height + y) * width + x;
            // SAFETY: the caller's contract.
            unsafe {
                if step_x == 1 {
                    finish.row(isa, values, at, out.part(film + at, values.len()));
                } else {
                    out.write(film + at, step_x, values); // a gradient, which nothing follows
                }
            }
        }
    }
}

//! A convolution as a sum of shifted planes, and how it is cut into tiles.
//!
//! With stride `s`, input pixel `r*s + k*d - p` of output row `r` and tap `k` is row `r + q` of the
//! *phase* `t` of the input, where `k*d - p = q*s + t`, `0 <= t < s`: a phase is every `s`-th row and
//! column. Over phases, every tap is a plain shift `q`. The input gradient is the same with the roles
//! exchanged: each phase of the input receives the shifted output gradient. One description,
//! [`Shifts`], therefore serves both passes, with any stride, padding and dilation.

use super::winograd::Frame;

/// A convolution's sizes, per group of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    /// Films.
    pub n: usize,
    /// Channel groups.
    pub groups: usize,
    /// Input channels a group.
    pub i: usize,
    /// Output channels a group.
    pub o: usize,
    /// Input `[height, width]`.
    pub input: [usize; 2],
    /// Output `[height, width]`.
    pub output: [usize; 2],
    /// Kernel `[height, width]`.
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
}

impl ConvShape {
    pub(crate) fn kernel_taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// A 1x1 kernel at stride 1 without padding: rows need not be told apart, so the planes become one
    /// long row.
    pub(crate) fn flattened(mut self) -> Self {
        if self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0] {
            self.input = [1, self.input[0] * self.input[1]];
            self.output = self.input;
        }
        self
    }

    /// Whether the flattened convolution is a matrix product of weights and pixels.
    pub(crate) fn is_product(&self) -> bool {
        self.input[0] == 1 && self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// The frame of Winograd's method for the forward pass and the weight gradient, where it pays. A single channel is
    /// cheaper to sum than to transform.
    pub(crate) fn winograd_forward(&self) -> Option<Frame> {
        let fits = self.kernel == [3, 3]
            && self.stride == [1, 1]
            && self.dilation == [1, 1]
            && self.groups == 1
            && self.i.min(self.o) >= 8;
        let frame = Frame { n: self.n, input: self.input, padding: self.padding };
        (fits && frame.pays()).then_some(frame)
    }

    /// The same for the input gradient: a convolution of the output's gradient.
    pub(crate) fn winograd_input_grad(&self) -> Option<Frame> {
        self.winograd_forward()?;
        let padding = [2usize.checked_sub(self.padding[0])?, 2usize.checked_sub(self.padding[1])?];
        let frame = Frame { n: self.n, input: self.output, padding };
        frame.pays().then_some(frame)
    }

    /// Shift and phase of tap `k` along dimension `d`.
    fn shift(&self, d: usize, k: usize) -> (isize, usize) {
        let t = (k * self.dilation[d]) as isize - self.padding[d] as isize;
        let s = self.stride[d] as isize;
        (t.div_euclid(s), t.rem_euclid(s) as usize)
    }

    /// The forward pass: phases of the input, shifted, give the output.
    pub(crate) fn forward(&self) -> Shifts {
        let mut phases = Vec::new();
        let mut taps = Vec::new();
        for ky in 0..self.kernel[0] {
            for kx in 0..self.kernel[1] {
                let ((qy, ty), (qx, tx)) = (self.shift(0, ky), self.shift(1, kx));
                let phase = phases.iter().position(|&p| p == [ty, tx]).unwrap_or_else(|| {
                    phases.push([ty, tx]);
                    phases.len() - 1
                });
                taps.push(Tap { phase, shift: [qy, qx], kernel_index: ky * self.kernel[1] + kx });
            }
        }
        Shifts {
            source: self.input,
            source_stride: self.stride,
            phases,
            taps,
            target: self.output,
            rows: self.output[0],
            cols: self.output[1],
            target_stride: [1, 1],
            target_offset: [0, 0],
        }
    }

    /// The input gradient: one sum of shifts for each phase of the input that any tap reaches.
    pub(crate) fn input_grad(&self) -> Vec<Shifts> {
        let [sh, sw] = self.stride;
        let mut all = Vec::new();
        for ty in 0..sh.min(self.input[0]) {
            for tx in 0..sw.min(self.input[1]) {
                let mut taps = Vec::new();
                for ky in 0..self.kernel[0] {
                    for kx in 0..self.kernel[1] {
                        let ((qy, py), (qx, px)) = (self.shift(0, ky), self.shift(1, kx));
                        if [py, px] == [ty, tx] {
                            taps.push(Tap {
                                phase: 0,
                                shift: [-qy, -qx],
                                kernel_index: ky * self.kernel[1] + kx,
                            });
                        }
                    }
                }
                if taps.is_empty() {
                    continue; // no output sees these pixels: their gradient stays 0
                }
                all.push(Shifts {
                    source: self.output,
                    source_stride: [1, 1],
                    phases: vec![[0, 0]],
                    taps,
                    target: self.input,
                    rows: (self.input[0] - ty).div_ceil(sh),
                    cols: (self.input[1] - tx).div_ceil(sw),
                    target_stride: self.stride,
                    target_offset: [ty, tx],
                });
            }
        }
        all
    }
}

/// One kernel tap: read `phase` at `shift` from the target position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tap {
    pub phase: usize,
    pub shift: [isize; 2],
    pub kernel_index: usize,
}

/// A sum of shifted source planes: target pixel `(r, c)` sums, over taps, source phase pixel
/// `(r, c) + shift`.
#[derive(Debug, Clone)]
pub(crate) struct Shifts {
    /// Source plane `[height, width]`.
    pub source: [usize; 2],
    /// Step between the rows and columns of one phase.
    pub source_stride: [usize; 2],
    /// First row and column of each phase in use.
    pub phases: Vec<[usize; 2]>,
    pub taps: Vec<Tap>,
    /// Target plane `[height, width]`.
    pub target: [usize; 2],
    /// Target rows and columns that this sum gives ...
    pub rows: usize,
    pub cols: usize,
    /// ... which lie this far apart ...
    pub target_stride: [usize; 2],
    /// ... from here on.
    pub target_offset: [usize; 2],
}

impl Shifts {
    fn span(&self, d: usize) -> (isize, isize) {
        let shifts = || self.taps.iter().map(|tap| tap.shift[d]);
        (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0))
    }

    /// Cut the target into tiles for which `channels` source channels fit into `source_budget` values
    /// and `target_channels` channels of sums into `target_budget`; into `least_tiles` where the map allows it.
    pub(crate) fn tiling(
        &self,
        channels: usize,
        source_budget: usize,
        target_channels: usize,
        target_budget: usize,
        least_tiles: usize,
    ) -> Tiling {
        let (y_min, y_max) = self.span(0);
        let (_, x_max) = self.span(1);
        let halo = (y_max - y_min) as usize;
        let left = self.left();
        let right = x_max.max(0) as usize;
        let whole_pitch = {
            let phase_width = self.source[1].div_ceil(self.source_stride[1]);
            (phase_width + left).max(self.cols + right)
        };
        let positions = (target_budget / target_channels.max(1)).clamp(MIN_POSITIONS, MAX_POSITIONS);
        let plane = |rows: usize, pitch: usize| (rows + halo) * pitch + left;

        // As many channels at once as still allow a tile of a fair size: fewer channels mean that sums
        // go through memory once for each block.
        let total = self.rows * self.cols;
        let mut block = channels;
        let fair = |block: usize| {
            let per_plane = source_budget / (block * self.phases.len());
            let rows = (per_plane.saturating_sub(left) / whole_pitch).saturating_sub(halo);
            if rows > 0 { rows * self.cols } else { per_plane.saturating_sub(left + right) / (halo + 1) }
        };
        while block > 16 && fair(block) < total.min(positions).min(FAIR_POSITIONS) {
            block = block.div_ceil(2);
        }
        let per_plane = source_budget / (block * self.phases.len());

        let mut rows = (positions / whole_pitch).min(self.rows).max(1);
        while rows > 1 && plane(rows, whole_pitch) > per_plane {
            rows -= 1;
        }
        let mut cols = self.cols;
        if plane(1, whole_pitch) > per_plane || whole_pitch > positions {
            let fit = (per_plane / (halo + 1)).saturating_sub(left + right).clamp(MIN_POSITIONS, positions);
            // Multiples of 16 positions: nothing is computed in vain but at the right edge.
            cols = (fit / 16 * 16).max(16).min(self.cols);
            rows = 1;
        }
        // Equal tiles, and an even number of them when they are few: two threads then end together.
        let even = |total: usize, size: usize, others: usize| {
            let count = total.div_ceil(size).max(least_tiles.div_ceil(others));
            let count = if count > 1 && count * others < 32 { count.next_multiple_of(2) } else { count };
            total.div_ceil(count.min(total))
        };
        if rows == 1 && cols < self.cols || self.rows == 1 {
            let size = even(self.cols, cols, self.rows).next_multiple_of(16);
            cols = size.min(self.cols);
        } else {
            rows = even(self.rows, rows, 1);
        }
        Tiling { rows, cols, channel_block: block }
    }

    /// Zeros before the first column.
    fn left(&self) -> usize {
        (-self.span(1).0).max(0) as usize
    }

    /// All tiles in order.
    pub(crate) fn tiles(&self, tiling: &Tiling) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for row in (0..self.rows).step_by(tiling.rows) {
            for col in (0..self.cols).step_by(tiling.cols) {
                tiles.push(Tile {
                    row,
                    rows: tiling.rows.min(self.rows - row),
                    col,
                    cols: tiling.cols.min(self.cols - col),
                });
            }
        }
        tiles
    }

    /// Where the source planes of `tile` lie in a buffer, for positions in multiples of `step`.
    pub(crate) fn layout(&self, tile: &Tile, step: usize) -> Layout {
        let (y_min, y_max) = self.span(0);
        let (_, x_max) = self.span(1);
        let (left, right) = (self.left(), x_max.max(0) as usize);
        let pitch = if tile.cols == self.cols {
            // A whole row: the zeros right of a row also serve left of the next.
            let phase_width = self.source[1].div_ceil(self.source_stride[1]);
            (phase_width + left).max(self.cols + right)
        } else {
            left + tile.cols + right
        };
        let source_rows = tile.rows + (y_max - y_min) as usize;
        let positions = ((tile.rows - 1) * pitch + tile.cols).next_multiple_of(step);
        let end = (y_max - y_min) as usize * pitch + left + right + positions;
        let mut plane = (left + source_rows * pitch).max(end).next_multiple_of(16);
        if plane.is_multiple_of(256) {
            plane += 16; // planes a multiple of 1 KiB apart would compete for few cache sets
        }
        Layout { pitch, left, first_row: tile.row as isize + y_min, source_rows, positions, plane }
    }

    /// Offset of every tap from the start of its channel's planes.
    pub(crate) fn tap_offsets(&self, layout: &Layout) -> Vec<usize> {
        let (y_min, _) = self.span(0);
        self.taps
            .iter()
            .map(|tap| {
                let row = (tap.shift[0] - y_min) as usize;
                let col = (layout.left as isize + tap.shift[1]) as usize;
                tap.phase * layout.plane + row * layout.pitch + col
            })
            .collect()
    }
}

const MIN_POSITIONS: usize = 64;
const MAX_POSITIONS: usize = 4096;
const FAIR_POSITIONS: usize = 384;

/// Size of a tile and number of channels packed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub rows: usize,
    pub cols: usize,
    pub channel_block: usize,
}

/// A rectangle of target positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub row: usize,
    pub rows: usize,
    pub col: usize,
    pub cols: usize,
}

/// Padded source planes of a tile: position `(r, c)` of the tile is `r * pitch + c`, and column `j` of a
/// packed row is phase column `tile.col - left + j`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub pitch: usize,
    pub left: usize,
    /// Phase row of the first packed row.
    pub first_row: isize,
    pub source_rows: usize,
    pub positions: usize,
    /// Values from one plane to the next.
    pub plane: usize,
}

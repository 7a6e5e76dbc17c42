//! Operations on whole rasters: means over blocks, smoothing, enlarging.

/// A raster of numbers, row-major.
#[derive(Debug, Clone)]
pub struct Raster {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Values.
    pub data: Vec<f32>,
}

impl Raster {
    /// All `value`.
    pub fn filled(width: usize, height: usize, value: f32) -> Self {
        Self { width, height, data: vec![value; width * height] }
    }

    /// One row.
    pub fn row(&self, j: usize) -> &[f32] {
        &self.data[j * self.width..(j + 1) * self.width]
    }

    /// Means over blocks of `factor` × `factor` cells (the last ones may be smaller).
    pub fn shrunk(&self, factor: usize) -> Self {
        let (width, height) = (self.width.div_ceil(factor), self.height.div_ceil(factor));
        let mut out = Self::filled(width, height, 0.0);
        for (n, row) in out.data.chunks_exact_mut(width).enumerate() {
            let rows = n * factor..((n + 1) * factor).min(self.height);
            let count = rows.len();
            for j in rows {
                for (cell, block) in row.iter_mut().zip(self.row(j).chunks(factor)) {
                    *cell += block.iter().sum::<f32>() / block.len() as f32;
                }
            }
            row.iter_mut().for_each(|cell| *cell /= count as f32);
        }
        out
    }

    /// Smoothed by three box filters, which come near a Gaussian of `sigma` cells; the border is repeated.
    pub fn blurred(mut self, sigma: f32) -> Self {
        // A box of 2r + 1 cells has the variance (r² + r) / 3; three of them add up.
        let radius = (((1.0 + 4.0 * sigma * sigma).sqrt() - 1.0) * 0.5).round() as usize;
        if radius == 0 {
            return self;
        }
        let mut line = Vec::new();
        for _ in 0..3 {
            for j in 0..self.height {
                box_filter(&mut self.data[j * self.width..(j + 1) * self.width], radius, &mut line);
            }
            self.blur_columns(radius);
        }
        self
    }

    // Running sums over whole rows at once, so that memory is read in order.
    fn blur_columns(&mut self, radius: usize) {
        let (w, h) = (self.width, self.height);
        let source = self.data.clone();
        let row = |j: isize| {
            let j = j.clamp(0, h as isize - 1) as usize;
            &source[j * w..(j + 1) * w]
        };
        let r = radius as isize;
        let mut sum = vec![0.0f32; w];
        for j in -r..=r {
            sum.iter_mut().zip(row(j)).for_each(|(s, v)| *s += v);
        }
        let scale = 1.0 / (2 * radius + 1) as f32;
        for j in 0..h as isize {
            let out = &mut self.data[j as usize * w..(j as usize + 1) * w];
            out.iter_mut().zip(&sum).for_each(|(o, s)| *o = s * scale);
            for (s, (enter, leave)) in sum.iter_mut().zip(row(j + r + 1).iter().zip(row(j - r))) {
                *s += enter - leave;
            }
        }
    }

    /// Row `j` of this raster enlarged `factor` times, bilinearly, into `out`.
    pub fn enlarged_row(&self, j: usize, factor: usize, out: &mut [f32]) {
        if factor == 1 {
            out.copy_from_slice(&self.row(j)[..out.len()]);
            return;
        }
        let f = factor as f32;
        let y = ((j as f32 + 0.5) / f - 0.5).clamp(0.0, (self.height - 1) as f32);
        let j0 = y as usize;
        let ty = y - j0 as f32;
        let (above, below) = (self.row(j0), self.row((j0 + 1).min(self.height - 1)));
        let mut line: Vec<f32> = above.iter().zip(below).map(|(a, b)| a + ty * (b - a)).collect();
        // The last columns of `out` may lie past the middle of the last cell.
        line.push(line[self.width - 1]);
        line.push(line[self.width - 1]);
        // Outputs before the middle of the first cell repeat it; then `factor` of them lie in each gap.
        let (first, rest) = out.split_at_mut((factor / 2).min(out.len()));
        first.fill(line[0]);
        let odd = if factor % 2 == 1 { 0.0 } else { 0.5 };
        let steps: Vec<f32> = (0..factor).map(|k| (k as f32 + odd) / f).collect();
        if let [a, b] = steps[..] {
            let mut pairs = rest.chunks_exact_mut(2);
            for (pair, w) in (&mut pairs).zip(line.windows(2)) {
                let rise = w[1] - w[0];
                pair[0] = w[0] + a * rise;
                pair[1] = w[0] + b * rise;
            }
            let n = rest.len() / 2;
            if rest.len() % 2 == 1 {
                rest[2 * n] = line[n] + a * (line[n + 1] - line[n]);
            }
            return;
        }
        for (group, w) in rest.chunks_mut(factor).zip(line.windows(2)) {
            let rise = w[1] - w[0];
            group.iter_mut().zip(&steps).for_each(|(cell, t)| *cell = w[0] + t * rise);
        }
    }
}

fn box_filter(row: &mut [f32], radius: usize, line: &mut Vec<f32>) {
    line.clear();
    line.extend_from_slice(row);
    let last = line.len() - 1;
    let at = |i: isize| line[i.clamp(0, last as isize) as usize];
    let r = radius as isize;
    let mut sum: f32 = (-r..=r).map(at).sum();
    let scale = 1.0 / (2 * radius + 1) as f32;
    for (i, cell) in row.iter_mut().enumerate() {
        *cell = sum * scale;
        let i = i as isize;
        sum += at(i + r + 1) - at(i - r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarging_keeps_a_slope_and_a_constant() {
        let mut slope = Raster::filled(9, 7, 0.0);
        for j in 0..7 {
            for i in 0..9 {
                slope.data[j * 9 + i] = i as f32 + 10.0 * j as f32;
            }
        }
        for factor in [1usize, 2, 3, 4] {
            let mut out = vec![0.0; 9 * factor];
            let j = 3 * factor;
            slope.enlarged_row(j, factor, &mut out);
            for (i, got) in out.iter().enumerate().take(8 * factor).skip(factor) {
                let at = |k: usize| (k as f32 + 0.5) / factor as f32 - 0.5;
                let want = at(i) + 10.0 * at(j);
                assert!((got - want).abs() < 1e-3, "factor {factor} column {i}: {got} {want}");
            }
        }
    }

    #[test]
    fn smoothing_keeps_the_mean_and_spreads_a_point() {
        let mut point = Raster::filled(41, 41, 0.0);
        point.data[20 * 41 + 20] = 1.0;
        let smooth = point.blurred(3.0);
        assert!((smooth.data.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        let variance: f32 = (0..41).map(|i| smooth.row(20)[i] * (i as f32 - 20.0).powi(2)).sum::<f32>()
            / smooth.row(20).iter().sum::<f32>();
        assert!((variance.sqrt() - 3.0).abs() < 0.5, "{variance}");
    }

    #[test]
    fn shrinking_takes_means() {
        let raster = Raster { width: 3, height: 2, data: vec![1.0, 3.0, 5.0, 3.0, 5.0, 7.0] };
        let small = raster.shrunk(2);
        assert_eq!((small.width, small.height), (2, 1));
        assert_eq!(small.data, [3.0, 6.0]);
    }
}

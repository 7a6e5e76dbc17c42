//! Tubes and plates, drawn by distance on the detector.
//!
//! A tube that lies across the rays has the chord of a circle at each distance from its projected centre
//! line, and that is what is drawn; of several pieces over a cell the longest chord counts. A plate's
//! thickness depends on the distance to its projected outline.

use crate::scene::{Layer, Maps, Paint, Plate, Tube};
use crate::space::{Camera, Grid, Vec3};

// A piece of a centre line in cells.
struct Piece {
    from: [f32; 3], // i, j, radius in cells
    to: [f32; 3],
    mm_per_cell: f32,
}

// Distance to a tapered piece and its radius there, in cells.
fn nearest(piece: &Piece, i: f32, j: f32) -> (f32, f32) {
    let (dx, dy) = (piece.to[0] - piece.from[0], piece.to[1] - piece.from[1]);
    let (px, py) = (i - piece.from[0], j - piece.from[1]);
    let t = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
    let (ex, ey) = (px - t * dx, py - t * dy);
    ((ex * ex + ey * ey).sqrt(), piece.from[2] + t * (piece.to[2] - piece.from[2]))
}

fn pieces(tube: &Tube, camera: &Camera, grid: &Grid) -> Vec<Piece> {
    let project = |&(p, radius): &(Vec3, f32)| {
        let (right, down, magnification) = camera.project(p);
        let (i, j) = grid.cell(right, down);
        ([i, j, radius * magnification / grid.cell_mm], grid.cell_mm / magnification)
    };
    let mut pieces = Vec::new();
    for strand in &tube.strands {
        let projected: Vec<([f32; 3], f32)> = strand.iter().map(project).collect();
        pieces.extend(projected.windows(2).map(|w| Piece {
            from: w[0].0,
            to: w[1].0,
            mm_per_cell: 0.5 * (w[0].1 + w[1].1),
        }));
    }
    pieces
}

// Columns and rows around a region in cells; empty ranges outside the raster.
fn window(low: [f32; 2], high: [f32; 2], grid: &Grid) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let span = |low: f32, high: f32, n: usize| {
        (low - 1.0).floor().max(0.0) as usize..((high + 1.0).ceil().max(0.0) as usize).min(n)
    };
    (span(low[0], high[0], grid.width), span(low[1], high[1], grid.height))
}

fn overlap(a: std::ops::Range<usize>, b: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

// Half a chord at distance d in a circle of radius r, with an edge softened over one cell.
fn half_chord(r: f32, d: f32) -> f32 {
    if d >= r + 0.5 {
        0.0
    } else if r < 0.75 {
        // Thinner than a cell: keep its area right.
        1.57 * r * r * (1.0 - d).max(0.0)
    } else {
        (r * r - d * d).max(0.0).sqrt()
    }
}

/// Adds a tube to the maps.
pub fn draw_tube(maps: &mut Maps, camera: &Camera, tube: &Tube) {
    let grid = maps.grid;
    let pieces = pieces(tube, camera, &grid);
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for p in pieces.iter().flat_map(|p| [p.from, p.to]) {
        for k in 0..2 {
            low[k] = low[k].min(p[k] - p[2]);
            high[k] = high[k].max(p[k] + p[2]);
        }
    }
    let (columns, rows) = window(low, high, &grid);
    if columns.is_empty() || rows.is_empty() {
        return;
    }
    // Longest outer and inner chords over the tube's window, mm.
    let span = columns.len();
    let mut outer = vec![0.0f32; span * rows.len()];
    let (shell_mm, hollow) = match tube.paint {
        Paint::Bone { shell_mm, .. } => (shell_mm, true),
        Paint::Uniform(..) => (0.0, false),
    };
    let mut inner = if hollow { outer.clone() } else { Vec::new() };
    for piece in &pieces {
        let r = piece.from[2].max(piece.to[2]);
        let (pc, pr) = window(
            [piece.from[0].min(piece.to[0]) - r, piece.from[1].min(piece.to[1]) - r],
            [piece.from[0].max(piece.to[0]) + r, piece.from[1].max(piece.to[1]) + r],
            &grid,
        );
        // The wider radius may reach past the window, which takes each end's own.
        let (pc, pr) = (overlap(pc, &columns), overlap(pr, &rows));
        for j in pr {
            let row = (j - rows.start) * span;
            for i in pc.clone() {
                let (d, r) = nearest(piece, i as f32 + 0.5, j as f32 + 0.5);
                if d < r + 0.5 {
                    let k = row + i - columns.start;
                    outer[k] = outer[k].max(2.0 * piece.mm_per_cell * half_chord(r, d));
                    if hollow {
                        let r_in = r - shell_mm / piece.mm_per_cell;
                        if r_in > 0.0 {
                            inner[k] = inner[k].max(2.0 * piece.mm_per_cell * half_chord(r_in, d));
                        }
                    }
                }
            }
        }
    }
    let mut add = |layer: Layer, value: &dyn Fn(usize) -> f32| {
        let map = maps.layer_mut(layer);
        for (n, j) in rows.clone().enumerate() {
            let row = &mut map[j * grid.width + columns.start..j * grid.width + columns.end];
            for (m, cell) in row.iter_mut().enumerate() {
                *cell += value(n * span + m);
            }
        }
    };
    match tube.paint {
        Paint::Uniform(layer, weight) => add(layer, &|k| weight * outer[k]),
        Paint::Bone { core, .. } => {
            add(Layer::Cortical, &|k| outer[k] - inner[k].min(outer[k]));
            add(Layer::Cancellous, &|k| core * inner[k].min(outer[k]));
        }
    }
}

/// Adds a plate to the map of a coarse raster.
pub fn draw_plate(map: &mut [f32], grid: &Grid, camera: &Camera, plate: &Plate) {
    let corners: Vec<[f32; 2]> = plate
        .outline
        .iter()
        .map(|&p| {
            let (right, down, _) = camera.project(p);
            let (i, j) = grid.cell(right, down);
            [i, j]
        })
        .collect();
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for c in &corners {
        for k in 0..2 {
            low[k] = low[k].min(c[k]);
            high[k] = high[k].max(c[k]);
        }
    }
    let (columns, rows) = window(low, high, grid);
    // Beyond this distance, in cells, an edge adds nothing.
    let reach = 4.0 * plate.rim_width_mm / grid.cell_mm + 1.0;
    let edges: Vec<([f32; 2], [f32; 2])> =
        (0..corners.len()).map(|k| (corners[k], corners[(k + 1) % corners.len()])).collect();
    let mut near: Vec<([f32; 2], [f32; 2])> = Vec::new();
    let mut crossings: Vec<f32> = Vec::new();
    for j in rows {
        let y = j as f32 + 0.5;
        near.clear();
        crossings.clear();
        for &(a, b) in &edges {
            if a[1].min(b[1]) - reach < y && y < a[1].max(b[1]) + reach {
                near.push((a, b));
            }
            if (a[1] > y) != (b[1] > y) {
                crossings.push((b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]);
            }
        }
        for i in columns.clone() {
            let x = i as f32 + 0.5;
            let inside = crossings.iter().filter(|&&c| c < x).count() % 2 == 1;
            let mut nearest = reach * reach;
            for (a, b) in &near {
                if x < a[0].min(b[0]) - reach || x > a[0].max(b[0]) + reach {
                    continue;
                }
                let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
                let along = (x - a[0]) * dx + (y - a[1]) * dy;
                let t = (along / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
                let (ex, ey) = (x - a[0] - t * dx, y - a[1] - t * dy);
                nearest = nearest.min(ex * ex + ey * ey);
            }
            let cells = nearest.sqrt();
            let cover = if inside { (0.5 + cells).min(1.0) } else { (0.5 - cells).max(0.0) };
            if cover > 0.0 {
                let depth_mm = if inside { cells * grid.cell_mm } else { 0.0 };
                let rim = plate.rim_mm * (-depth_mm / plate.rim_width_mm).exp();
                map[j * grid.width + i] += plate.density * cover * (plate.thickness_mm + rim);
            }
        }
    }
}

/// Points of a smooth closed curve through `corners` (Catmull-Rom), `steps` to a side.
pub fn smooth_closed(corners: &[Vec3], steps: usize) -> Vec<Vec3> {
    let n = corners.len();
    let at = |k: usize| corners[k % n];
    (0..n)
        .flat_map(|k| {
            let (p0, p1, p2, p3) = (at(k + n - 1), at(k), at(k + 1), at(k + 2));
            (0..steps).map(move |s| spline(p0, p1, p2, p3, s as f32 / steps as f32))
        })
        .collect()
}

/// Points of a smooth open curve through `corners` with a radius each, `steps` to a piece.
pub fn smooth_open(corners: &[(Vec3, f32)], steps: usize) -> Vec<(Vec3, f32)> {
    let n = corners.len();
    let mut out = Vec::with_capacity((n - 1) * steps + 1);
    for k in 0..n - 1 {
        let (p0, p1) = (corners[k.saturating_sub(1)].0, corners[k].0);
        let (p2, p3) = (corners[k + 1].0, corners[(k + 2).min(n - 1)].0);
        for s in 0..steps {
            let t = s as f32 / steps as f32;
            let radius = corners[k].1 + t * (corners[k + 1].1 - corners[k].1);
            out.push((spline(p0, p1, p2, p3, t), radius));
        }
    }
    out.push(corners[n - 1]);
    out
}

fn spline(p0: Vec3, p1: Vec3, p2: Vec3, p3: Vec3, t: f32) -> Vec3 {
    let (t2, t3) = (t * t, t * t * t);
    (p1 * 2.0
        + (p2 - p0) * t
        + (p0 * 2.0 - p1 * 5.0 + p2 * 4.0 - p3) * t2
        + (p1 * 3.0 - p0 - p2 * 3.0 + p3) * t3)
        * 0.5
}

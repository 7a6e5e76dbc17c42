//! New bone: spurs, bridges, narrowed foramina.

use super::{Extent, Seen};
use crate::patient::{Patient, Region};
use crate::random::Stream;
use crate::scene::{Layer, Paint, Scene, Tube};
use crate::space::{Vec3, vec3};
use crate::spine::{Spine, Vertebra};

const SPUR: Paint = Paint::Bone { shell_mm: 2.0, end_mm: 2.0, core: 0.9 };

/// A beak on the rim that grows outwards and bends towards the disc, with a ridge to each side of it.
pub(super) fn osteophyte(
    scene: &mut Scene,
    v: &Vertebra,
    patient: &Patient,
    top: bool,
    angle_rad: f32,
    length_mm: f32,
    stream: &mut Stream,
) -> Extent {
    let s = (v.half.y / 16.0).clamp(0.62, 1.1);
    let length = length_mm * s * patient.scale;
    let up = if top { 1.0 } else { -1.0 };
    let hook = stream.range(0.15, 0.75);
    let mut balls = Vec::new();
    let mut strands = Vec::new();
    let mut longest_tip = v.rim(top, angle_rad);
    for k in -3i32..=3 {
        let angle = angle_rad + 0.13 * k as f32;
        let size = 1.0 - 0.09 * (k * k) as f32;
        if size <= 0.15 {
            continue;
        }
        let l = length * size;
        let (sin, cos) = angle.sin_cos();
        let out = v.frame.direction(vec3(cos, sin, 0.0));
        let axis = v.frame.z * up;
        let rim = v.rim(top, angle);
        let thick = (1.7 + 0.2 * length) * (0.6 + 0.4 * size);
        let points = vec![
            (rim - out * (3.0 * s) - axis * (4.5 * s), thick * 0.9),
            (rim - out * (0.5 * s) - axis * (1.8 * s), thick),
            (rim + out * (0.45 * l) - axis * (0.6 * s), thick * 0.8),
            (rim + out * (0.85 * l) + axis * (hook * 0.35 * l), thick * 0.5),
            (rim + out * l + axis * (hook * 0.75 * l), thick * 0.35),
        ];
        if k.abs() <= 2 {
            balls.extend(points[1..].iter().map(|&(p, r)| (p, r + 0.4)));
        }
        if k == 0 {
            longest_tip = points[4].0;
        }
        strands.push(points);
    }
    scene.tubes.push(Tube { strands, paint: SPUR });
    let seen = Seen::StandsOut {
        frame: v.frame,
        half: [v.half.x, v.half.y],
        tip: longest_tip,
        least_mm: (0.5 * length).max(1.6 * s),
    };
    (balls, seen)
}

/// Bone grows into the foramina below `level` from the facet behind and the body in front.
pub(super) fn stenosis(
    scene: &mut Scene,
    spine: &Spine,
    patient: &Patient,
    level: usize,
    grade: f32,
) -> Vec<Extent> {
    let (upper, lower) = (&spine.vertebrae[level], &spine.vertebrae[level - 1]);
    let lumbar = spine.region == Region::Lumbar;
    let s = patient.scale * if lumbar { 1.0 } else { upper.half.y / 8.0 };
    let g = 0.7 + 0.5 * grade;
    let mut extents = Vec::new();
    for side in [-1.0f32, 1.0] {
        let (back, mut balls) = (-0.84 * lower.half.y, Vec::new());
        let mut grow = |at: Vec3, radii: Vec3| {
            let frame = lower.frame.aimed(at, vec3(0.0, -0.12, 1.0), vec3(1.0, 0.0, 0.0));
            scene.knob(frame, radii, 1.8 * s.min(1.0), 0.5);
            let tall = (radii.z - radii.y).max(0.0);
            balls.push((frame.point(vec3(0.0, 0.0, tall)), radii.y));
            balls.push((frame.point(vec3(0.0, 0.0, -tall)), radii.y));
        };
        let axis = if lumbar {
            let x = side * 0.68 * lower.half.x;
            grow(vec3(x, back - 11.5 * s, lower.half.z + 5.0), vec3(5.0, 5.4 * g, 9.5 * g) * s);
            grow(vec3(x * 0.95, back - 0.5, lower.half.z + 2.5), vec3(5.5, 3.6 * g, 4.0 * g) * s);
            lower.frame.direction(vec3(side, 0.0, 0.0))
        } else {
            let x = side * (lower.half.x + 1.0);
            grow(vec3(x, back + 1.5 * s, lower.half.z + 1.8 * s), vec3(2.6, 3.0 * g, 3.6 * g) * s);
            grow(
                vec3(side * (lower.half.x + 4.0 * s), back - 5.0 * s, lower.half.z + 1.0 * s),
                vec3(3.0, 2.8 * g, 4.6 * g) * s,
            );
            lower.frame.direction(vec3(side * 0.72, 0.70, -0.15)).unit()
        };
        // The foramen itself, from the upper pedicle's floor to the lower one's roof.
        let middle = lower
            .frame
            .point(vec3(0.0, 0.0, lower.half.z))
            .lerp(upper.frame.point(vec3(0.0, 0.0, -upper.half.z)), 0.5);
        let (out, behind) = if lumbar { (0.68 * lower.half.x, 6.0) } else { (lower.half.x + 2.5, 3.0) };
        let hole = middle + lower.frame.direction(vec3(side * out, back - behind * s, 0.0));
        let (tall, wide) = if lumbar { (10.0 * s, 5.0 * s) } else { (4.8 * s, 2.6 * s) };
        balls.push((hole + lower.frame.z * (tall - wide), wide));
        balls.push((hole - lower.frame.z * (tall - wide), wide));
        extents.push((balls, Seen::Along(axis, 0.86)));
    }
    if lumbar {
        // Both sides lie over each other in a lateral view: one box.
        let (right, _) = extents.pop().expect("two sides");
        extents[0].0.extend(right);
    }
    extents
}

/// Thin bridges over the discs all round: the bamboo spine.
pub(super) fn ankylosis(scene: &mut Scene, spine: &Spine, level: usize, levels: usize) -> Extent {
    let mut balls = Vec::new();
    for i in level..(level + levels - 1).min(spine.vertebrae.len() - 1) {
        let (low, high) = (&spine.vertebrae[i], &spine.vertebrae[i + 1]);
        for k in 0..11 {
            let angle = -0.3 + 0.374 * k as f32;
            let (sin, cos) = angle.sin_cos();
            let out = low.frame.direction(vec3(cos, sin, 0.0));
            let thick = 0.12 * low.half.y;
            let start = low.rim(true, angle) - low.frame.z * (0.35 * low.half.z);
            let end = high.rim(false, angle) + high.frame.z * (0.35 * high.half.z);
            let bulge = low.rim(true, angle).lerp(high.rim(false, angle), 0.5) + out * (0.2 * low.half.y);
            let points = [(start, 0.5 * thick), (bulge, thick), (end, 0.5 * thick)];
            scene.tube(crate::outline::smooth_open(&points, 4), SPUR);
            balls.extend(points);
        }
        let disc = low.frame.moved(vec3(0.0, 0.0, low.half.z + 0.5 * high.disc_below_mm));
        let chalk = vec3(0.9 * low.half.x, 0.8 * low.half.y, 0.4 * high.disc_below_mm);
        scene.fill(crate::solid::Solid::Ellipsoid(disc, chalk), Layer::Cancellous, 0.12);
    }
    (balls, Seen::Always)
}

/// A spur where the ligament holds the tip of the spinous process.
pub(super) fn enthesophyte(scene: &mut Scene, v: &Vertebra, length_mm: f32) -> Extent {
    let s = (v.half.y / 16.0).clamp(0.5, 1.1);
    let back = -0.84 * v.half.y;
    // Behind the tip, whose place follows the arch (see `vertebra`).
    let (y, z) = if v.half.y > 12.0 {
        (back - 55.0 * v.half.y / 17.0, -0.5 * v.half.z - 6.0)
    } else {
        (back - 32.0 * v.half.y / 8.0, -0.5 * v.half.z - 4.0)
    };
    let at = |dy: f32, dz: f32| v.frame.point(vec3(0.0, y + dy, z + dz));
    let l = length_mm * s.max(0.75);
    let points = vec![
        (at(5.0, 2.0), 2.6),
        (at(0.0, 0.3 * l), 2.4),
        (at(-2.0, 0.75 * l), 1.9),
        (at(-1.0, 1.15 * l), 0.8),
    ];
    let balls = points.clone();
    scene.tube(points, Paint::Bone { shell_mm: 1.2, end_mm: 1.0, core: 0.6 });
    (balls, Seen::Along(v.frame.x, 0.8))
}

//! Other lesions and the rarer categories.

use super::chain::support;
use super::{Extent, Seen};
use crate::patient::{Patient, Region};
use crate::random::Stream;
use crate::scene::{Layer, Paint, Scene};
use crate::solid::{Barrel, Solid};
use crate::space::{Frame, Vec3, vec3};
use crate::spine::{Spine, Vertebra};

/// Bone eaten away on one side of a body and in its pedicle, with or without a dense border.
pub(super) fn lysis(
    scene: &mut Scene,
    v: &Vertebra,
    patient: &Patient,
    side: f32,
    radius_mm: f32,
    stream: &mut Stream,
) -> Extent {
    let s = v.half.y / 16.0;
    let r = 0.82 * radius_mm * s.max(0.6);
    let frame = v.frame.moved(vec3(
        side * 0.42 * v.half.x,
        stream.range(-0.3, 0.1) * v.half.y,
        stream.range(-0.1, 0.35) * v.half.z,
    ));
    let hole = vec3(1.0 * r, 1.25 * r, 0.9 * r);
    scene.fill(Solid::Ellipsoid(frame, hole), Layer::Cancellous, -0.95 * patient.cancellous - 0.05);
    let pedicle = v.frame.moved(vec3(side * 0.66 * v.half.x, -0.84 * v.half.y - 5.0 * s, 0.32 * v.half.z));
    if v.half.y > 12.0 {
        scene.fill(Solid::Ellipsoid(pedicle, vec3(6.5, 10.0, 9.0) * s), Layer::Cortical, -0.28);
    }
    if stream.chance(0.5) {
        scene.knob(frame, hole * 1.06, 0.5, 0.0);
    }
    (vec![(frame.origin, 0.98 * r)], Seen::Always)
}

/// Two broken lines of chalk, the walls of the artery.
pub(super) fn vessel_chalk(
    scene: &mut Scene,
    spine: &Spine,
    patient: &Patient,
    level: usize,
    levels: usize,
    stream: &mut Stream,
) -> Extent {
    let lumbar = spine.region == Region::Lumbar;
    let s = patient.scale * if lumbar { 1.0 } else { 0.5 };
    let (radius, x) = if lumbar { (9.0, -10.0) } else { (4.0, 26.0) };
    let mut balls = Vec::new();
    let last = (level + levels).min(spine.vertebrae.len());
    let line: Vec<Vec3> = spine.vertebrae[level..last]
        .iter()
        .map(|v| v.frame.origin + vec3(x * patient.scale, v.half.y + (radius + 7.0) * s, 0.0))
        .collect();
    for wall in 0..4 {
        let (sin, cos) = (wall as f32 * 1.571 + 0.4).sin_cos();
        let offset = vec3(cos, sin, 0.0) * (radius * s);
        for w in line.windows(2) {
            for k in 0..6 {
                if stream.chance(0.72) {
                    let (t0, t1) = (k as f32 / 6.0, (k as f32 + stream.range(0.6, 1.1)) / 6.0);
                    let wobble = vec3(stream.normal(), stream.normal(), 0.0) * 0.6;
                    let r = stream.range(0.8, 1.7) * s.max(0.7);
                    let points =
                        vec![(w[0].lerp(w[1], t0) + offset + wobble, r), (w[0].lerp(w[1], t1) + offset, r)];
                    balls.extend(points.clone());
                    scene.tube(points, Paint::Uniform(Layer::Cortical, 0.9));
                }
            }
        }
    }
    (balls, Seen::Along(vec3(1.0, 0.0, 0.0), 0.8))
}

/// A gap through the spinous process, or a dark line with a dense border through the body.
pub(super) fn fracture(scene: &mut Scene, v: &Vertebra, body: bool, stream: &mut Stream) -> Extent {
    let s = v.half.y / 16.0;
    if body {
        let tilt = stream.range(0.3, 0.7) * stream.sign();
        let cut = v.frame.pitched(tilt).rolled(0.15 * stream.normal());
        let slab = |h: f32| Barrel::plain(cut, 0.95 * v.half.x, 0.98 * v.half.y, h * s.max(0.7));
        scene.fill(Solid::Barrel(slab(1.2)), Layer::Cancellous, -0.2);
        let dense = Barrel { frame: cut.moved(vec3(0.0, 0.0, 2.6 * s)), ..slab(1.3) };
        scene.fill(Solid::Barrel(dense), Layer::Cancellous, 0.25);
        let balls = (0..12)
            .map(|k| {
                let (sin, cos) = (k as f32 * 0.524).sin_cos();
                (cut.point(vec3(0.93 * v.half.x * cos, 0.96 * v.half.y * sin, 1.0)), 3.2 * s)
            })
            .collect();
        return (balls, Seen::Along(v.frame.x, 0.8));
    }
    let (y, z, r) = if v.half.y > 12.0 {
        (-0.84 * v.half.y - 44.0 * s, -0.5 * v.half.z - 2.0, 10.5 * s)
    } else {
        (-0.84 * v.half.y - 27.0 * v.half.y / 8.0, -0.5 * v.half.z - 5.0, 6.0 * v.half.y / 8.0)
    };
    let at = v.frame.aimed(vec3(0.0, y, z), vec3(0.0, -1.0, 0.35 * stream.normal()), vec3(1.0, 0.0, 0.0));
    let gap = Barrel::plain(at, 8.0, r, 1.3 * s.max(0.75));
    scene.fill(Solid::Barrel(gap), Layer::Cortical, -0.55);
    let rim =
        Barrel { frame: at.moved(vec3(0.0, 0.0, 2.2 * s)), ..Barrel::plain(at, 2.6 * s, 0.85 * r, 0.7 * s) };
    scene.fill(Solid::Barrel(rim), Layer::Cortical, 0.5);
    (
        vec![
            (at.point(vec3(0.0, 0.7 * r, 0.0)), 0.35 * r + 2.0 * s),
            (at.point(vec3(0.0, -0.7 * r, 0.0)), 0.35 * r + 2.0 * s),
        ],
        Seen::Along(v.frame.x, 0.8),
    )
}

/// A cloud of dense bone inside a body.
pub(super) fn sclerosis(scene: &mut Scene, v: &Vertebra, radius_mm: f32, stream: &mut Stream) -> Extent {
    let r = radius_mm * (v.half.y / 16.0).max(0.55);
    let place = vec3(
        stream.range(-0.4, 0.4) * v.half.x,
        stream.range(-0.3, 0.4) * v.half.y,
        stream.range(-0.3, 0.3) * v.half.z,
    );
    let mut balls = Vec::new();
    for k in 0..4 {
        let nudge = vec3(stream.normal(), stream.normal(), stream.normal()) * (0.22 * r * (k.min(1)) as f32);
        let frame = v.frame.moved(place + nudge);
        let size = r * if k == 0 { 1.0 } else { 0.7 };
        scene.fill(Solid::Ellipsoid(frame, vec3(size, size, 0.9 * size)), Layer::Cancellous, 0.3);
        balls.push((frame.origin, size));
    }
    (balls, Seen::Always)
}

/// Dense bands on both sides of a disc of normal height.
pub(super) fn subchondral(scene: &mut Scene, spine: &Spine, level: usize, depth_mm: f32) -> Extent {
    let v = &spine.vertebrae[level];
    let (below, half) = support(spine, level);
    let s = (v.half.y / 16.0).max(0.6);
    let h = 0.5 * depth_mm * s;
    let mut balls = Vec::new();
    let upper = v.frame.moved(vec3(0.0, 0.0, -v.half.z + v.dish[1] + h));
    let lower = below.moved(vec3(0.0, 0.0, -h - 1.0 * s));
    for (frame, half) in [(upper, v.half), (lower, half)] {
        let slab = Barrel { back: 0.8 * half.y, ..Barrel::plain(frame, 0.9 * half.x, 0.98 * half.y, h) };
        scene.fill(Solid::Barrel(slab), Layer::Cancellous, 0.42);
        for k in 0..12 {
            let (sin, cos) = (k as f32 * 0.524).sin_cos();
            let y = half.y * if sin < 0.0 { 0.8 * sin } else { sin };
            balls.push((frame.point(vec3(0.88 * half.x * cos, y, 0.0)), h));
        }
    }
    let level_from_front = below.z.y.abs() < 0.16;
    (balls, if level_from_front { Seen::Always } else { Seen::Along(v.frame.x, 0.6) })
}

/// Metal in the soft tissue.
pub(super) fn foreign(scene: &mut Scene, spine: &Spine, shape: u8, stream: &mut Stream) -> Extent {
    let lumbar = spine.region == Region::Lumbar;
    let (low, high) = Spine::finding_levels(spine.region);
    let v = &spine.vertebrae[stream.between(low + 1, high - 1)];
    let s = if lumbar { 1.0 } else { 0.7 };
    let place = vec3(
        stream.sign() * stream.range(8.0, if lumbar { 70.0 } else { 36.0 }),
        stream.range(-45.0, 55.0) * s,
        stream.range(-14.0, 14.0),
    );
    let turn = (stream.range(-1.5, 1.5), stream.range(0.0, 3.1));
    let frame = Frame::at(v.frame.origin + place).pitched(turn.0).rolled(turn.1);
    let mut balls = Vec::new();
    match shape {
        0 => {
            scene.fill(Solid::Ellipsoid(frame, vec3(4.5, 4.5, 9.0) * s), Layer::Heavy, 1.0);
            balls.extend([
                (frame.point(vec3(0.0, 0.0, 4.5 * s)), 4.5 * s),
                (frame.point(vec3(0.0, 0.0, -4.5 * s)), 4.5 * s),
            ]);
        }
        1 => {
            let coin = Barrel::plain(frame, 11.0 * s, 11.0 * s, 1.0);
            scene.fill(Solid::Barrel(coin), Layer::Heavy, 1.0);
            balls.extend((0..8).map(|k| {
                let (sin, cos) = (k as f32 * 0.785).sin_cos();
                (frame.point(vec3(10.0 * s * cos, 10.0 * s * sin, 0.0)), 1.0)
            }));
        }
        2 => {
            let points = vec![
                (frame.point(vec3(0.0, 0.0, -17.0 * s)), 0.7),
                (frame.point(vec3(0.0, 0.0, 17.0 * s)), 0.7),
            ];
            balls.extend(points.clone());
            scene.tube(points, Paint::Uniform(Layer::Heavy, 1.0));
        }
        _ => {
            for _ in 0..stream.between(3, 9) {
                let at = vec3(stream.normal(), stream.normal(), stream.normal()) * (8.0 * s);
                let r = stream.range(1.2, 2.4);
                let ball = frame.moved(at);
                scene.fill(Solid::Ellipsoid(ball, vec3(r, r, r)), Layer::Heavy, 1.0);
                balls.push((ball.origin, r));
            }
        }
    }
    (balls, Seen::Always)
}

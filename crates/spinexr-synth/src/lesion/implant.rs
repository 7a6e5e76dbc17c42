//! Metal: screws and rods, plates, cages, cement.

use super::chain::support;
use super::{Extent, Seen};
use crate::patient::Region;
use crate::random::Stream;
use crate::scene::{Layer, Paint, Scene};
use crate::solid::{Barrel, Solid};
use crate::space::{Frame, Vec3, vec3};
use crate::spine::{Spine, Vertebra};

const TITANIUM: Paint = Paint::Uniform(Layer::Titanium, 1.0);

// A threaded screw from `head` to `tip`.
fn screw(scene: &mut Scene, head: Vec3, tip: Vec3, radius: f32, side: Vec3) {
    let axis = (tip - head).unit();
    let length = (tip - head).length();
    let frame = Frame::at(head.lerp(tip, 0.5)).aimed(Vec3::default(), axis, side);
    let shaft = Barrel::plain(frame, 0.78 * radius, 0.78 * radius, 0.5 * length).tapered(-0.12);
    scene.fill(Solid::Barrel(shaft), Layer::Titanium, 1.0);
    let pitch = 0.85 * radius;
    let turns = (0.8 * length / pitch) as usize;
    for k in 0..turns {
        let at = 0.5 * length - pitch * (k as f32 + 0.6);
        let thread = Barrel::plain(frame.moved(vec3(0.0, 0.0, at)), radius, radius, 0.16 * radius);
        scene.fill(Solid::Barrel(thread), Layer::Titanium, 0.8);
    }
}

/// Screws through the pedicles (or lateral masses), heads, and rods that join them.
pub(super) fn rods(
    scene: &mut Scene,
    spine: &Spine,
    level: usize,
    levels: usize,
    with_cage: bool,
    stream: &mut Stream,
) -> Extent {
    let lumbar = spine.region == Region::Lumbar;
    let mut balls = Vec::new();
    let radius = if lumbar { stream.range(2.8, 3.5) } else { 1.7 };
    let last = (level + levels).min(spine.vertebrae.len() - 1);
    let skipped = if levels > 3 && stream.chance(0.4) { level + 1 } else { usize::MAX };
    for side in [-1.0f32, 1.0] {
        let mut rod = Vec::new();
        for i in level..last {
            let v = &spine.vertebrae[i];
            let s = if lumbar { v.half.y / 17.0 } else { v.half.y / 8.0 };
            let back = -0.84 * v.half.y - v.arch_back_mm;
            let (head, tip) = if lumbar {
                let x = side * 0.66 * v.half.x;
                let depth = stream.range(0.25, 0.7) * v.half.y;
                (vec3(x * 1.12, back - 24.0 * s, 0.34 * v.half.z), vec3(x * 0.62, depth, 0.30 * v.half.z))
            } else {
                let x = side * (v.half.x + 5.0 * s);
                (
                    vec3(x, back - 15.0 * s, -0.1 * v.half.z),
                    vec3(x + side * 3.5 * s, back - 4.0 * s, 0.35 * v.half.z),
                )
            };
            let (head, tip) = (v.frame.point(head), v.frame.point(tip));
            rod.push((head, radius * if lumbar { 0.88 } else { 0.95 }));
            if i == skipped {
                continue;
            }
            screw(scene, head, tip, radius, v.frame.x);
            let tulip = v.frame.aimed(Vec3::default(), vec3(0.0, -1.0, 0.0), vec3(1.0, 0.0, 0.0));
            let tulip = Frame { origin: head, ..tulip };
            let size = if lumbar { 5.6 } else { 3.2 };
            scene.fill(Solid::Barrel(Barrel::plain(tulip, size, size, 1.25 * size)), Layer::Titanium, 0.75);
            balls.extend([(head, 1.25 * size), (tip, radius)]);
        }
        let overshoot = if lumbar { 9.0 } else { 5.0 };
        if rod.len() > 1 {
            let (first, n) = (rod[0], rod.len());
            let end = rod[n - 1];
            let below = first.0 - (rod[1].0 - first.0).unit() * overshoot;
            let above = end.0 + (end.0 - rod[n - 2].0).unit() * overshoot;
            rod.insert(0, (below, first.1));
            rod.push((above, end.1));
            balls.extend([rod[0], rod[rod.len() - 1]]);
            scene.tube(crate::outline::smooth_open(&rod, 4), TITANIUM);
        }
    }
    if with_cage {
        balls.extend(cage(scene, spine, (level + 1).min(last - 1), stream));
    }
    (balls, Seen::Always)
}

// A cage in the disc below a level; the extent of its metal.
fn cage(scene: &mut Scene, spine: &Spine, level: usize, stream: &mut Stream) -> Vec<(Vec3, f32)> {
    let v = &spine.vertebrae[level];
    let (below, half) = support(spine, level);
    let tall = 0.5 * v.disc_below_mm + 0.6;
    let frame = below.moved(vec3(0.0, -0.05 * half.y, 0.5 * v.disc_below_mm));
    let (a, b) = (0.62 * half.x, 0.62 * half.y);
    if stream.chance(0.6) {
        // A titanium ring with windows.
        let ring = Barrel::plain(frame, a, b, tall);
        scene.fill(Solid::Barrel(ring), Layer::Titanium, 0.22);
        let hole = Barrel::plain(frame, 0.62 * a, 0.62 * b, 0.8 * tall);
        scene.fill(Solid::Barrel(hole), Layer::Titanium, -0.16);
        for side in [-1.0f32, 1.0] {
            let wall = Barrel::plain(frame.moved(vec3(side * 0.8 * a, 0.0, 0.0)), 0.1 * a, 0.75 * b, tall);
            scene.fill(Solid::Barrel(wall), Layer::Titanium, 0.6);
        }
    } else {
        // Plastic with tantalum markers.
        for (x, y) in [(-0.7, -0.6), (0.7, -0.6), (0.0, 0.8)] {
            let pin = frame.moved(vec3(x * a, y * b, 0.0));
            let post = Barrel::plain(pin, 0.09 * a.max(9.0), 0.09 * a.max(9.0), 0.9 * tall);
            scene.fill(Solid::Barrel(post), Layer::Heavy, 1.0);
        }
    }
    corners(&frame, a, b, tall)
}

fn corners(frame: &Frame, a: f32, b: f32, tall: f32) -> Vec<(Vec3, f32)> {
    (0..8)
        .map(|k| {
            let s = |bit: usize| if k & bit == 0 { -1.0 } else { 1.0 };
            (frame.point(vec3(s(1) * a, s(2) * b, s(4) * tall)), 0.8)
        })
        .collect()
}

pub(super) fn lone_cage(scene: &mut Scene, spine: &Spine, level: usize, stream: &mut Stream) -> Extent {
    (cage(scene, spine, level, stream), Seen::Always)
}

/// A plate before the bodies, two screws a vertebra, cages between.
pub(super) fn front_plate(
    scene: &mut Scene,
    spine: &Spine,
    level: usize,
    levels: usize,
    stream: &mut Stream,
) -> Extent {
    let last = (level + levels).min(spine.vertebrae.len() - 1);
    let chosen: Vec<&Vertebra> = spine.vertebrae[level..last].iter().collect();
    let s = chosen[0].half.y / 8.0;
    let mut balls = Vec::new();
    let front = |v: &Vertebra, z: f32| v.frame.point(vec3(0.0, 1.08 * v.half.y + 1.2, z));
    let n = chosen.len();
    let mut line: Vec<Vec3> = vec![front(chosen[0], -0.45 * chosen[0].half.z)];
    line.extend(chosen[1..n - 1].iter().map(|v| front(v, 0.0)));
    line.push(front(chosen[n - 1], 0.45 * chosen[n - 1].half.z));
    for w in line.windows(2) {
        let axis = w[1] - w[0];
        let frame = Frame::at(w[0].lerp(w[1], 0.5)).aimed(Vec3::default(), axis, chosen[0].frame.x);
        let half_length = 0.5 * axis.length() + 1.5;
        let plate = Barrel { waist: 0.22, ..Barrel::plain(frame, 7.5 * s, 1.5 * s.min(1.4), half_length) };
        scene.fill(Solid::Barrel(plate), Layer::Titanium, 0.8);
        balls.extend(corners(&frame, 6.8 * s, 1.2 * s, half_length));
    }
    for (k, v) in chosen.iter().enumerate() {
        let z = if k == 0 {
            -0.3
        } else if k == n - 1 {
            0.3
        } else {
            0.0
        } * v.half.z;
        for side in [-1.0f32, 1.0] {
            let head = v.frame.point(vec3(side * 4.2 * s, 1.1 * v.half.y + 1.0, z));
            let tip = v.frame.point(vec3(
                side * 2.6 * s,
                -0.35 * v.half.y,
                z + (k as f32 - 0.5 * (n - 1) as f32).signum() * 2.0,
            ));
            screw(scene, head, tip, 1.9 * s, v.frame.x);
            balls.extend([(head, 1.9 * s), (tip, 1.2 * s)]);
        }
    }
    for i in level + 1..last {
        balls.extend(cage(scene, spine, i, stream));
    }
    (balls, Seen::Always)
}

/// Clouds of bone cement in a body.
pub(super) fn cement(scene: &mut Scene, v: &Vertebra, stream: &mut Stream) -> Extent {
    let mut balls = Vec::new();
    for side in [-1.0f32, 1.0] {
        for _ in 0..4 {
            let at = vec3(
                side * stream.range(0.1, 0.55) * v.half.x,
                stream.range(-0.2, 0.55) * v.half.y,
                stream.range(-0.45, 0.45) * v.half.z,
            );
            let r = stream.range(0.16, 0.34) * v.half.x;
            let frame = v.frame.moved(at);
            scene.fill(Solid::Ellipsoid(frame, vec3(r, 0.9 * r, 0.75 * r)), Layer::Titanium, 0.22);
            balls.push((frame.origin, 0.85 * r));
        }
    }
    (balls, Seen::Always)
}

//! Bones around the spine: sacrum, pelvis and ribs below; skull base, jaw, clavicles and ribs above.

use crate::outline::{smooth_closed, smooth_open};
use crate::patient::Patient;
use crate::random::Stream;
use crate::scene::{Layer, Paint, Plate, Scene};
use crate::solid::{Barrel, Solid};
use crate::space::{Frame, Vec3, vec3};
use crate::spine::Spine;

const RIGHT: Vec3 = vec3(1.0, 0.0, 0.0);
const UP: Vec3 = vec3(0.0, 0.0, 1.0);

/// Adds what surrounds the lumbar spine.
pub fn lumbar(scene: &mut Scene, spine: &Spine, patient: &Patient, stream: &mut Stream) {
    sacrum(scene, &spine.base, patient);
    pelvis(scene, &spine.base, patient, stream);
    for (i, reach) in [(5usize, 0.62), (6, 0.9), (7, 1.0)] {
        let v = &spine.vertebrae[i];
        for side in [-1.0f32, 1.0] {
            lower_rib(scene, &v.frame, v.half, side, reach * (1.0 + 0.08 * stream.normal()), patient);
        }
    }
}

fn sacrum(scene: &mut Scene, base: &Frame, patient: &Patient) {
    let (shell, core, s) = (patient.shell, patient.cancellous, patient.scale);
    // The segments curve backwards and then forwards again.
    let mut frame = base.moved(vec3(0.0, -1.0, 0.0));
    let sizes = [
        (25.0, 15.5, 13.5, -0.02),
        (19.0, 12.0, 11.5, 0.18),
        (16.0, 9.5, 10.0, 0.24),
        (14.0, 7.5, 9.0, 0.28),
        (11.0, 6.0, 8.0, 0.25),
    ];
    for (k, (a, b, h, bend)) in sizes.into_iter().enumerate() {
        frame = frame.pitched(bend).moved(vec3(0.0, 0.0, -h * s));
        let segment = Barrel {
            taper: 0.14,
            dish_top: if k == 0 { 1.5 } else { 0.5 },
            dish_bottom: 0.4,
            back: 0.8 * b * s,
            ..Barrel::plain(frame, a * s, b * s, (h - 0.5) * s)
        };
        scene.barrel(segment, 0.9 * shell, core);
        if k < 4 {
            // Wing of the segment, and the foramen under it.
            for side in [-1.0f32, 1.0] {
                let wing = [36.0, 32.0, 24.0, 18.0][k] * s;
                let place = vec3(side * (0.72 * a * s + 0.5 * wing), -5.0 * s, 1.0);
                let radii = vec3(0.62 * wing, (12.0 - 2.0 * k as f32) * s, (h + 2.5) * s);
                scene.knob(frame.moved(place), radii, 0.25 * shell, 0.6 * core);
                let hole = frame.moved(vec3(side * (0.8 * a + 4.0) * s, -4.0 * s, (-h - 0.5) * s));
                let hole_size = vec3(5.2, 9.0, 4.2) * (s * (1.0 - 0.08 * k as f32));
                scene.fill(Solid::Ellipsoid(hole, hole_size), Layer::Cancellous, -0.9 * core);
                scene.fill(Solid::Ellipsoid(hole, hole_size), Layer::Cortical, -0.04);
            }
            // Median crest.
            let crest = frame.moved(vec3(0.0, -(b + 7.0) * s, 2.0));
            scene.knob(crest, vec3(3.2, 6.0, 8.0) * s, 1.1 * shell, core);
            // Roof of the sacral canal.
            let roof = frame.moved(vec3(0.0, -(b + 5.5) * s, 0.0)).aimed(Vec3::default(), UP, RIGHT);
            scene.knob(roof, vec3(15.0, 2.4, h + 1.0) * s, 0.9 * shell, core);
        }
        frame = frame.moved(vec3(0.0, 0.0, -h * s));
    }
    // Superior articular processes that carry L5.
    for side in [-1.0f32, 1.0] {
        let at = base.aimed(vec3(side * 19.0 * s, -29.0 * s, 5.0 * s), vec3(0.0, -0.1, 1.0), RIGHT);
        scene.knob(at, vec3(5.0, 5.6, 10.0) * s, 1.3 * shell, core);
    }
}

fn pelvis(scene: &mut Scene, base: &Frame, patient: &Patient, stream: &mut Stream) {
    let s = patient.scale;
    let high = 4.0 * stream.normal();
    // Upright axes at the sacrum; points of a right wing in mm, front up to the crest and round.
    let frame = Frame::at(base.origin);
    let wing = [
        vec3(43.0, -52.0, -12.0),
        vec3(50.0, -66.0, 8.0),
        vec3(64.0, -58.0, 28.0 + high),
        vec3(84.0, -36.0, 40.0 + high),
        vec3(106.0, -6.0, 40.0 + high),
        vec3(122.0, 24.0, 22.0 + high),
        vec3(128.0, 42.0, -8.0),
        vec3(118.0, 40.0, -30.0),
        vec3(104.0, 26.0, -56.0),
        vec3(82.0, 10.0, -72.0),
        vec3(62.0, -14.0, -62.0),
        vec3(52.0, -36.0, -44.0),
    ];
    for side in [-1.0f32, 1.0] {
        let outline: Vec<Vec3> = wing.iter().map(|p| frame.point(vec3(side * p.x, p.y, p.z) * s)).collect();
        scene.plates.push(Plate {
            outline: smooth_closed(&outline, 4),
            thickness_mm: 6.5,
            rim_mm: 11.0,
            rim_width_mm: 3.2,
            density: 0.42 * (0.6 + 2.0 * patient.cancellous) * patient.shell.sqrt(),
        });
        // Thick bone beside the sacroiliac joint and above the hip.
        let joint = frame.aimed(vec3(side * 54.0, -44.0, -16.0) * s, vec3(side * 0.25, 0.3, 1.0), RIGHT);
        scene.knob(joint, vec3(6.0, 15.0, 26.0) * s, 0.35 * patient.shell, patient.cancellous);
        let roof = frame.moved(vec3(side * 92.0, 14.0, -84.0) * s);
        scene.knob(roof, vec3(24.0, 22.0, 20.0) * s, 0.3 * patient.shell, 0.9 * patient.cancellous);
        let brim: Vec<(Vec3, f32)> = [
            (vec3(47.0, -38.0, -20.0), 4.5),
            (vec3(62.0, -10.0, -44.0), 4.5),
            (vec3(66.0, 18.0, -66.0), 5.0),
            (vec3(50.0, 42.0, -88.0), 6.0),
            (vec3(14.0, 54.0, -104.0), 7.0),
        ]
        .map(|(p, r)| (frame.point(vec3(side * p.x, p.y, p.z) * s), r * s))
        .to_vec();
        let paint = Paint::Bone { shell_mm: 1.2 * patient.shell, end_mm: 1.0, core: patient.cancellous };
        scene.tube(smooth_open(&brim, 5), paint);
    }
}

fn lower_rib(scene: &mut Scene, frame: &Frame, half: Vec3, side: f32, reach: f32, patient: &Patient) {
    let s = patient.scale;
    let points = [
        (vec3(side * (half.x + 2.0), -0.7 * half.y, 4.0), 5.0),
        (vec3(side * 46.0, -34.0, -4.0), 4.8),
        (vec3(side * (46.0 + 34.0 * reach), -34.0 + 6.0 * reach, -22.0 * reach), 5.2),
        (vec3(side * (46.0 + 62.0 * reach), -18.0 + 16.0 * reach, -50.0 * reach), 5.4),
        (vec3(side * (46.0 + 74.0 * reach), 14.0 * reach, -80.0 * reach), 5.0),
        (vec3(side * (46.0 + 68.0 * reach), 44.0 * reach, -104.0 * reach), 3.0),
    ]
    .map(|(p, r)| (frame.origin + p * s, r * s * 0.92));
    let paint = Paint::Bone { shell_mm: 0.8 * patient.shell, end_mm: 1.0, core: 0.8 * patient.cancellous };
    scene.tube(smooth_open(&points, 6), paint);
}

/// Adds what surrounds the cervical spine.
pub fn cervical(scene: &mut Scene, spine: &Spine, patient: &Patient, stream: &mut Stream) {
    for (i, radius) in [(1usize, 46.0f32), (0, 58.0)] {
        for side in [-1.0f32, 1.0] {
            upper_rib(scene, spine.vertebrae[i].frame.origin, side, radius, patient);
        }
    }
    clavicles(scene, spine.vertebrae[1].frame.origin, patient, stream);
    head(scene, spine, patient, stream);
    hyoid(scene, spine, patient);
}

fn upper_rib(scene: &mut Scene, origin: Vec3, side: f32, radius: f32, patient: &Patient) {
    let s = patient.scale;
    let points: Vec<(Vec3, f32)> = (0..=8)
        .map(|k| {
            let t = k as f32 / 8.0;
            let a = -1.9 + 3.3 * t;
            let p = vec3(
                side * (14.0 + radius * (0.30 + 0.72 * a.cos())),
                8.0 + radius * (0.62 + 0.85 * a.sin()),
                4.0 - radius * 0.62 * t,
            );
            (origin + p * s, 4.6 * s)
        })
        .collect();
    let paint = Paint::Bone { shell_mm: 0.8 * patient.shell, end_mm: 1.0, core: 0.7 * patient.cancellous };
    scene.tube(smooth_open(&points, 3), paint);
}

fn clavicles(scene: &mut Scene, origin: Vec3, patient: &Patient, stream: &mut Stream) {
    let s = patient.scale;
    let drop = -22.0 + 6.0 * stream.normal();
    for side in [-1.0f32, 1.0] {
        let points = [
            (vec3(side * 12.0, 62.0, drop - 14.0), 8.0),
            (vec3(side * 34.0, 64.0, drop - 6.0), 5.5),
            (vec3(side * 66.0, 56.0, drop + 4.0), 5.0),
            (vec3(side * 100.0, 36.0, drop + 12.0), 5.4),
            (vec3(side * 132.0, 18.0, drop + 14.0), 7.0),
        ]
        .map(|(p, r)| (origin + p * s, r * s));
        let paint =
            Paint::Bone { shell_mm: 1.5 * patient.shell, end_mm: 1.0, core: 0.8 * patient.cancellous };
        scene.tube(smooth_open(&points, 5), paint);
    }
}

/// The head's own frame: at the top of the dens, upright, with a little nod.
pub fn head_frame(spine: &Spine, stream: &mut Stream) -> Frame {
    let axis = spine.vertebrae.last().expect("a chain has vertebrae");
    let top = axis.frame.point(vec3(0.0, 0.0, axis.half.z + 18.0));
    Frame::at(top).pitched(0.10 + 0.07 * stream.normal())
}

fn head(scene: &mut Scene, spine: &Spine, patient: &Patient, stream: &mut Stream) {
    let (s, shell, core) = (patient.scale, patient.shell, patient.cancellous);
    let head = head_frame(spine, stream);
    let skull = head.moved(vec3(0.0, 16.0, 66.0) * s);
    scene.knob(skull, vec3(72.0, 92.0, 68.0) * s, 5.0 * shell, 0.0);
    // Petrous bones, mastoids, condyles and the clivus make the base dense.
    for side in [-1.0f32, 1.0] {
        let petrous = head.aimed(vec3(side * 36.0, 4.0, 17.0) * s, vec3(side, -0.5, 0.15), UP);
        scene.knob(petrous, vec3(11.0, 10.0, 27.0) * s, 0.6 * shell, 0.45);
        scene.knob(
            head.moved(vec3(side * 52.0, -12.0, 3.0) * s),
            vec3(10.0, 13.0, 17.0) * s,
            0.5 * shell,
            0.12,
        );
        scene.knob(head.moved(vec3(side * 17.0, -3.0, 5.0) * s), vec3(7.0, 10.0, 6.0) * s, 1.4 * shell, 0.22);
    }
    let clivus = head.aimed(vec3(0.0, 22.0, 20.0) * s, vec3(0.0, 0.6, 1.0), RIGHT);
    scene.knob(clivus, vec3(14.0, 5.0, 20.0) * s, 1.6 * shell, 0.2);
    let occiput = head.aimed(vec3(0.0, -40.0, 6.0) * s, vec3(0.0, -1.0, 0.25), RIGHT);
    scene.knob(occiput, vec3(38.0, 4.5, 34.0) * s, 0.4 * shell, 0.3);

    // The jaw: two rami and the arch, with teeth.
    let open = 4.0 * stream.normal();
    for side in [-1.0f32, 1.0] {
        let ramus = [
            (vec3(side * 50.0, 20.0, 6.0), 5.0),
            (vec3(side * 49.0, 24.0, -14.0), 7.0),
            (vec3(side * 47.0, 28.0, -36.0 - open), 8.5),
            (vec3(side * 42.0, 46.0, -47.0 - open), 9.0),
            (vec3(side * 30.0, 72.0, -52.0 - open), 9.5),
            (vec3(side * 12.0, 92.0, -54.0 - open), 10.5),
            (vec3(0.0, 96.0, -54.0 - open), 11.0),
        ]
        .map(|(p, r)| (head.point(p * s), r * s));
        scene.tube(
            smooth_open(&ramus, 4),
            Paint::Bone { shell_mm: 2.2 * shell, end_mm: 1.0, core: 1.2 * core },
        );
        for k in 0..7 {
            let t = k as f32 / 6.0;
            let place = vec3(side * (36.0 - 32.0 * t * t), 52.0 + 40.0 * t, 0.0);
            for (z, tilt) in [(-38.0 - open, 0.1), (-22.0, -0.1)] {
                let tooth = head.aimed((place + vec3(0.0, 0.0, z)) * s, vec3(0.0, tilt, 1.0), RIGHT);
                scene.knob(tooth, vec3(3.6, 4.0, 9.5) * s, 1.6, 0.55);
            }
        }
    }
    // Hard palate and upper jaw.
    let palate = head.moved(vec3(0.0, 62.0, -8.0) * s);
    scene.knob(palate, vec3(26.0, 34.0, 3.0) * s, 0.3 * shell, 0.25);
}

fn hyoid(scene: &mut Scene, spine: &Spine, patient: &Patient) {
    let s = patient.scale;
    let at = spine.vertebrae[spine.vertebrae.len() - 2].frame.origin;
    let points: Vec<(Vec3, f32)> = (-4..=4)
        .map(|k| {
            let t = k as f32 / 4.0;
            (at + vec3(20.0 * t, 50.0 - 26.0 * t * t, -12.0 + 6.0 * t * t) * s, 2.4 - 0.9 * t.abs())
        })
        .collect();
    scene.tube(points, Paint::Bone { shell_mm: 0.8, end_mm: 0.8, core: 0.3 });
}

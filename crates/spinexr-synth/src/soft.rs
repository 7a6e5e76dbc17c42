//! The body around the bones: outline, muscles, organs, gas and airways.

use crate::outline::smooth_open;
use crate::patient::{Patient, Sex};
use crate::random::Stream;
use crate::scene::{Layer, Paint, Scene, Tube};
use crate::solid::{Barrel, Solid};
use crate::space::{Frame, Vec3, vec3};
use crate::spine::Spine;
use crate::surroundings::head_frame;

const RIGHT: Vec3 = vec3(1.0, 0.0, 0.0);
const GAS: Paint = Paint::Uniform(Layer::Soft, -1.0);

/// Adds the trunk.
pub fn lumbar(scene: &mut Scene, spine: &Spine, patient: &Patient, stream: &mut Stream) {
    let s = patient.scale;
    let girth = patient.build * s;
    let middle = spine.vertebrae[2].frame.origin;
    let (a, b) = (152.0 * girth, 104.0 * girth.powf(1.3));
    let back = 82.0 * s * patient.build.sqrt();
    let trunk = Frame::at(vec3(middle.x, middle.y - back + b, middle.z));
    let slim = if patient.sex == Sex::Female { 0.10 } else { 0.04 };
    let barrel = Barrel { waist: slim, ..Barrel::plain(trunk, a, b, 330.0) };
    scene.body.push(Solid::Barrel(barrel));
    let seat = Frame::at(spine.base.origin + vec3(0.0, -20.0, -112.0) * s);
    scene.body.push(Solid::Ellipsoid(seat, vec3(158.0 * girth, 106.0 * girth, 195.0 * s)));

    for side in [-1.0f32, 1.0] {
        psoas(scene, spine, patient, side);
        // Muscles beside the spinous processes.
        let spinal =
            Barrel::plain(Frame::at(middle + vec3(side * 32.0, -46.0, 0.0) * s), 26.0 * s, 20.0 * s, 260.0);
        scene.organs.push((Solid::Barrel(spinal), 0.05));
        // Kidney and, above, lung behind the dome of the diaphragm.
        let kidney =
            Frame::at(spine.vertebrae[3].frame.origin + vec3(side * 62.0, -14.0, 4.0 - 8.0 * side) * s);
        scene.organs.push((Solid::Ellipsoid(kidney.rolled(-side * 0.25), vec3(27.0, 22.0, 54.0) * s), 0.05));
        let dome = 6.0 * stream.normal() - 8.0 * side;
        let lung = Frame::at(spine.vertebrae[5].frame.origin + vec3(side * 76.0, 22.0, 132.0 + dome) * s);
        scene.organs.push((Solid::Ellipsoid(lung, vec3(62.0, 84.0, 118.0) * s), -0.72));
    }
    let liver = Frame::at(spine.vertebrae[4].frame.origin + vec3(78.0, 40.0, 18.0) * s);
    scene.organs.push((Solid::Ellipsoid(liver, vec3(66.0, 74.0, 74.0) * s), 0.05));
    bowel(scene, middle + vec3(0.0, b - back, 0.0), a, b, s, stream);
}

fn psoas(scene: &mut Scene, spine: &Spine, patient: &Patient, side: f32) {
    let s = patient.scale;
    let at = |level: usize, out: f32, r: f32| {
        (spine.vertebrae[level].frame.origin + vec3(side * out, 4.0, 0.0) * s, r * s)
    };
    let points = [
        at(4, 24.0, 9.0),
        at(3, 30.0, 14.0),
        at(2, 38.0, 19.0),
        at(1, 48.0, 22.0),
        at(0, 62.0, 22.0),
        (spine.base.origin + vec3(side * 82.0, 30.0, -40.0) * s, 20.0 * s),
    ];
    scene
        .cords
        .push(Tube { strands: vec![smooth_open(&points, 3)], paint: Paint::Uniform(Layer::Soft, 0.10) });
}

// Gas in the bowel: pouches of the colon along its frame, small bubbles in the middle.
fn bowel(scene: &mut Scene, centre: Vec3, a: f32, b: f32, s: f32, stream: &mut Stream) {
    let front = 0.55 * b;
    let loops = stream.between(1, 5);
    for _ in 0..loops {
        let side = stream.sign();
        let start = if stream.chance(0.6) {
            vec3(side * 0.62 * a, stream.range(-0.2, 0.7) * front, stream.range(-90.0, 60.0) * s)
        } else {
            vec3(stream.range(-0.6, 0.6) * a, front, stream.range(-70.0, 50.0) * s)
        };
        let mut at = centre + start;
        let heading = stream.range(0.0, 6.3);
        let radius = stream.range(9.0, 19.0) * s;
        for k in 0..stream.between(2, 5) {
            let r = radius * stream.range(0.75, 1.2);
            let lying = Frame::at(at).rolled(heading);
            scene.organs.push((Solid::Ellipsoid(lying, vec3(r, 0.8 * r, 0.85 * r)), -0.5));
            let bend = heading + 0.25 * k as f32;
            at = at + vec3(bend.cos(), 0.1, bend.sin()) * (1.05 * radius);
        }
    }
    for _ in 0..stream.between(4, 22) {
        let at = centre
            + vec3(
                stream.range(-0.55, 0.55) * a,
                front * stream.range(-0.2, 1.0),
                stream.range(-120.0, 40.0) * s,
            );
        let r = stream.range(2.0, 7.0) * s;
        scene.organs.push((Solid::Ellipsoid(Frame::at(at), vec3(r, r, 0.8 * r)), -0.8));
    }
    // Gas in the stomach, under the left dome.
    if stream.chance(0.5) {
        let at = centre + vec3(-0.42 * a, 0.4 * front, 118.0 * s);
        scene.organs.push((Solid::Ellipsoid(Frame::at(at), vec3(34.0, 24.0, 22.0) * s), -0.8));
    }
}

/// Adds neck, head and shoulders.
pub fn cervical(scene: &mut Scene, spine: &Spine, patient: &Patient, stream: &mut Stream) {
    let s = patient.scale;
    let girth = (0.6 + 0.4 * patient.build) * s;
    let c5 = spine.vertebrae[4].frame.origin;
    let t1 = spine.vertebrae[1].frame.origin;
    // `head` drew the same frame from the same point of its own stream; here only soft tissue hangs on it.
    let head = head_frame(spine, &mut stream.clone());
    let neck = Frame { origin: c5 + vec3(0.0, 2.0, 0.0), ..Frame::at(c5) }.pitched(-0.12);
    scene.body.push(Solid::Barrel(Barrel {
        waist: 0.05,
        taper: -0.06,
        ..Barrel::plain(neck, 54.0 * girth, 60.0 * girth, 92.0 * s)
    }));
    scene.body.push(Solid::Ellipsoid(head.moved(vec3(0.0, 14.0, 62.0) * s), vec3(77.0, 98.0, 84.0) * s));
    scene.body.push(Solid::Ellipsoid(head.moved(vec3(0.0, 58.0, -16.0) * s), vec3(58.0, 50.0, 56.0) * s));
    // The trunk below, and the shoulders that slope to it.
    let slump = 6.0 * stream.normal();
    let chest = Frame::at(t1 + vec3(0.0, 14.0, -150.0 * s - slump));
    scene.body.push(Solid::Ellipsoid(chest, vec3(205.0, 92.0, 148.0) * girth));
    for side in [-1.0f32, 1.0] {
        let shoulder = Frame::at(t1 + vec3(side * 118.0, -4.0, -62.0 - slump) * s).rolled(side * 0.5);
        scene.body.push(Solid::Ellipsoid(shoulder, vec3(72.0, 50.0, 42.0) * girth));
        // Apex of the lung.
        let apex = Frame::at(t1 + vec3(side * 38.0, 14.0, -52.0) * s);
        scene.organs.push((Solid::Ellipsoid(apex, vec3(30.0, 34.0, 58.0) * s), -0.75));
    }

    // Airway: nose, throat, larynx, windpipe, in front of the prevertebral tissue.
    let front = |level: usize, gap: f32| {
        let v = &spine.vertebrae[level];
        v.frame.point(vec3(0.0, v.half.y + gap * s, 0.0))
    };
    let axis_front = front(7, 8.5);
    let airway = [
        (head.point(vec3(0.0, 40.0, 6.0) * s), 9.0),
        (axis_front + vec3(0.0, 4.0, 22.0) * s, 8.0),
        (axis_front, 6.5),
        (front(6, 10.0), 7.5),
        (front(5, 11.0), 8.5),
        (front(4, 14.0), 6.0),
        (front(3, 20.0), 7.5),
        (front(2, 22.0), 8.5),
        (front(1, 23.0), 8.5),
        (front(0, 22.0), 8.5),
        (front(0, 20.0) + vec3(0.0, -6.0, -60.0) * s, 8.5),
    ]
    .map(|(p, r)| (p, r * s));
    scene.cords.push(Tube { strands: vec![smooth_open(&airway, 4)], paint: GAS });
    let mouth = head.moved(vec3(0.0, 66.0, -20.0) * s);
    if stream.chance(0.5) {
        scene.organs.push((Solid::Ellipsoid(mouth, vec3(18.0, 26.0, 4.0) * s), -0.9));
    }
    for side in [-1.0f32, 1.0] {
        let sinus = head.moved(vec3(side * 26.0, 58.0, 14.0) * s);
        scene.organs.push((Solid::Ellipsoid(sinus, vec3(14.0, 17.0, 17.0) * s), -0.9));
        let cells = head.moved(vec3(side * 52.0, -10.0, 8.0) * s);
        scene.organs.push((Solid::Ellipsoid(cells, vec3(7.0, 10.0, 12.0) * s), -0.5));
    }
    // Cartilage of the larynx calcifies with age.
    if patient.age_years > 45 && stream.chance(0.5) {
        let at = front(3, 34.0);
        scene.knob(
            Frame::at(at).aimed(Vec3::default(), vec3(0.0, -0.3, 1.0), RIGHT),
            vec3(14.0, 3.0, 11.0) * s,
            0.4,
            0.02,
        );
    }
}

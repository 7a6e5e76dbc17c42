//! Findings of the chain itself: low discs, slips, collapsed bodies. The chain is bent in `spine`; here the
//! signs that come with it are added, and the extent is taken.

use super::{Extent, Seen};
use crate::random::Stream;
use crate::scene::{Layer, Scene};
use crate::solid::{Barrel, Solid};
use crate::space::{Frame, Vec3, vec3};
use crate::spine::Spine;

// Points on the rim of an end plate, each with a small radius.
fn rim(frame: &Frame, half: Vec3, z: f32, wedge: f32, radius: f32) -> Vec<(Vec3, f32)> {
    (0..12)
        .map(|k| {
            let (s, c) = (k as f32 * std::f32::consts::TAU / 12.0).sin_cos();
            let y = half.y * if s < 0.0 { 0.84 * s } else { s };
            (frame.point(vec3(half.x * c, y, z + wedge * y)), radius)
        })
        .collect()
}

// The support below a vertebra: the neighbour's upper end plate, or the base of the chain.
pub(super) fn support(spine: &Spine, level: usize) -> (Frame, Vec3) {
    match level.checked_sub(1).map(|i| &spine.vertebrae[i]) {
        Some(v) => (v.frame.moved(vec3(0.0, 0.0, v.half.z)), v.half),
        None => (spine.base, spine.vertebrae[0].half),
    }
}

/// Dense end plates on both sides of the low disc, and sometimes gas in it.
pub(super) fn low_disc(
    scene: &mut Scene,
    spine: &Spine,
    level: usize,
    share: f32,
    stream: &mut Stream,
) -> Extent {
    let upper = &spine.vertebrae[level];
    let (below, below_half) = support(spine, level);
    let s = upper.half.y / 16.0;
    let density = 0.16 + 0.22 * (1.0 - share);
    let depth = stream.range(2.0, 4.2) * s;
    let slab = |frame: Frame, half: Vec3| {
        let barrel =
            Barrel { back: 0.8 * half.y, ..Barrel::plain(frame, 0.92 * half.x, half.y, 0.5 * depth) };
        Solid::Barrel(barrel)
    };
    let upper_end = upper.frame.moved(vec3(0.0, 0.0, -upper.half.z + 0.55 * depth + 0.6 * upper.dish[1]));
    scene.fill(slab(upper_end, upper.half), Layer::Cancellous, density);
    scene.fill(
        slab(below.moved(vec3(0.0, 0.0, -0.55 * depth - 1.0 * s)), below_half),
        Layer::Cancellous,
        density,
    );
    if stream.chance(0.25) && upper.disc_below_mm > 2.0 {
        let at = below.moved(vec3(0.0, stream.range(-0.2, 0.4) * below_half.y, 0.5 * upper.disc_below_mm));
        let gas = vec3(0.6 * below_half.x, 0.45 * below_half.y, 0.25 * upper.disc_below_mm + 0.4);
        scene.fill(Solid::Ellipsoid(at, gas), Layer::Soft, -1.0);
    }
    let mut balls = rim(&upper.frame, upper.half, -upper.half.z, 0.0, 1.5 * s);
    balls.extend(rim(&below, below_half, 0.0, 0.0, 1.5 * s));
    // A disc can be judged where the beam runs along it: always from the side, from the front only if level.
    let plane = below.z.lerp(upper.frame.z, 0.5).unit();
    let level_from_front = plane.y.abs() < 0.16;
    (balls, if level_from_front { Seen::Always } else { Seen::Along(below.x, 0.6) })
}

/// The two bodies on either side of the step.
pub(super) fn slip(spine: &Spine, level: usize) -> Extent {
    let upper = &spine.vertebrae[level];
    let (below, below_half) = support(spine, level);
    let mut balls = rim(&upper.frame, upper.half, -upper.half.z, 0.0, 1.2);
    balls.extend(rim(&upper.frame, upper.half, 0.15 * upper.half.z, 0.0, 1.2));
    balls.extend(rim(&below, below_half, 0.0, 0.0, 1.2));
    balls.extend(rim(&below, below_half, -0.85 * upper.half.z, 0.0, 1.2));
    (balls, Seen::Along(upper.frame.x, 0.85))
}

/// A band of packed bone under the sunken end plate.
pub(super) fn collapse(scene: &mut Scene, spine: &Spine, level: usize, middle: f32) -> Extent {
    let v = &spine.vertebrae[level];
    let s = v.half.y / 16.0;
    let band = Barrel {
        dish_top: v.dish[0],
        dish_bottom: -v.dish[0],
        slope_top: [0.0, v.wedge],
        slope_bottom: [0.0, -v.wedge],
        back: 0.8 * v.half.y,
        ..Barrel::plain(v.frame.moved(vec3(0.0, 0.0, v.half.z - 3.0 * s)), 0.95 * v.half.x, v.half.y, 1.6 * s)
    };
    scene.fill(Solid::Barrel(band), Layer::Cancellous, 0.22);
    let mut balls = rim(&v.frame, v.half, v.half.z, v.wedge, 1.4 * s);
    balls.extend(rim(&v.frame, v.half, -v.half.z, 0.0, 1.4 * s));
    // From the side always; sunken end plates show from the front too, a wedge does not.
    (balls, if middle > 0.45 { Seen::Always } else { Seen::Along(v.frame.x, 0.8) })
}

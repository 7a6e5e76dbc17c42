//! The bones of one vertebra.

use crate::patient::Patient;
use crate::scene::{Paint, Part, Scene};
use crate::solid::{Barrel, Solid};
use crate::space::{Vec3, vec3};
use crate::spine::{Kind, Vertebra};

const RIGHT: Vec3 = vec3(1.0, 0.0, 0.0);
const BACK: Vec3 = vec3(0.0, -1.0, 0.0);
const UP: Vec3 = vec3(0.0, 0.0, 1.0);

/// The barrel of a vertebral body.
pub fn body(v: &Vertebra) -> Barrel {
    let waist = match v.kind {
        Kind::Lumbar => 0.11,
        Kind::Thoracic => 0.08,
        Kind::Cervical | Kind::Axis => 0.06,
    };
    Barrel {
        waist,
        dish_top: v.dish[0],
        dish_bottom: v.dish[1],
        slope_top: [0.0, v.wedge],
        back: 0.84 * v.half.y,
        ..Barrel::plain(v.frame, v.half.x, v.half.y * 1.08, v.half.z)
    }
}

/// Adds a vertebra to the scene.
pub fn build(scene: &mut Scene, v: &Vertebra, patient: &Patient) {
    let (shell, core) = (patient.shell, patient.cancellous);
    if v.kind != Kind::Axis {
        let (side, end) = match v.kind {
            Kind::Cervical => (0.55, 0.7),
            _ => (0.7, 1.0),
        };
        let paint = Paint::Bone { shell_mm: side * shell, end_mm: end * shell, core };
        scene.parts.push(Part { solid: Solid::Barrel(body(v)), paint });
    }
    match v.kind {
        Kind::Lumbar => lumbar_arch(scene, v, patient, 1.0),
        Kind::Thoracic if v.half.x > 15.0 => lumbar_arch(scene, v, patient, 0.55),
        Kind::Thoracic => cervical_arch(scene, v, patient, 1.5),
        Kind::Cervical => cervical_arch(scene, v, patient, 1.0),
        Kind::Axis => axis(scene, v, patient),
    }
}

// Pedicles, articular processes, laminae, spinous and transverse processes; `wings` scales the last.
fn lumbar_arch(scene: &mut Scene, v: &Vertebra, patient: &Patient, wings: f32) {
    let (shell, core) = (patient.shell, 1.15 * patient.cancellous);
    let s = v.half.y / 17.0;
    let (w, h) = (v.half.x, v.half.z.max(9.0 * s));
    let back = -0.84 * v.half.y;
    let px = 0.66 * w;
    let slim = 3.4 + 0.55 * (w - 20.0).max(0.0);
    let arch = v.frame.moved(vec3(0.0, -v.arch_back_mm, 0.0));
    for side in [-1.0f32, 1.0] {
        let x = side * px;
        // The pedicle: seen from the front, its cortex is the eye.
        let from_back = |mm: f32| back - mm * s;
        let pedicle = v.frame.aimed(
            vec3(x, from_back(5.0 + 0.5 * v.arch_back_mm), 0.32 * h),
            vec3(side * 0.14, -1.0, 0.02),
            RIGHT,
        );
        let reach = (8.5 + 0.5 * v.arch_back_mm) * s;
        scene.barrel(
            Barrel { waist: 0.12, ..Barrel::plain(pedicle, slim * s, 7.2 * s, reach) },
            1.3 * shell,
            core,
        );

        // Superior and inferior articular processes with the pars between them.
        let upper = arch.aimed(vec3(x * 1.06, from_back(16.0), h + 0.5), vec3(0.0, -0.12, 1.0), RIGHT);
        scene.knob(upper, vec3(4.6, 5.6, 10.0) * s, 1.3 * shell, core);
        let lower =
            arch.aimed(vec3(x * 0.78, from_back(23.0), -h - 4.0), vec3(-side * 0.1, -0.16, 1.0), RIGHT);
        scene.knob(lower, vec3(5.0, 4.8, 10.5) * s, 1.3 * shell, core);
        let pars =
            arch.aimed(vec3(x * 0.92, from_back(18.5), -0.15 * h), vec3(side * 0.18, 0.28, 1.0), RIGHT);
        scene.barrel(Barrel::plain(pars, 4.6 * s, 4.4 * s, 12.0 * s).domed(3.0), 1.5 * shell, core);

        let lamina = arch.aimed(
            vec3(x * 0.46, from_back(25.0), -0.3 * h),
            vec3(0.0, -0.3, 1.0),
            vec3(side * 0.8, 0.62, 0.0),
        );
        scene.knob(lamina, vec3(9.5, 3.6, 9.0) * s, 1.2 * shell, core);

        let transverse = arch.aimed(
            vec3(x + side * 15.0 * wings * s, from_back(9.0 + 2.0 * wings), 0.2 * h + 1.5),
            vec3(side, -0.22, 0.10),
            UP,
        );
        let blade = Barrel::plain(transverse, 5.4 * s, 2.9 * s, (15.0 * wings).max(6.0) * s);
        scene.barrel(blade.domed(3.5).tapered(-0.3), 0.7 * shell, core);
    }
    // The spinous process: a blade seen from the side, a teardrop from the front.
    let length = if wings < 1.0 { 13.0 } else { 15.0 };
    let spinous = arch.aimed(vec3(0.0, back - (30.0 + length) * s, -0.5 * h), vec3(0.0, -1.0, -0.16), RIGHT);
    let blade = Barrel::plain(spinous, 3.4 * s, 9.5 * s, (length + 2.0) * s);
    scene.barrel(blade.domed(2.5).tapered(0.12), 1.2 * shell, core);
}

// Articular pillars, laminae, spinous and short transverse processes of the neck.
fn cervical_arch(scene: &mut Scene, v: &Vertebra, patient: &Patient, wings: f32) {
    let (shell, core) = (0.8 * patient.shell, 1.2 * patient.cancellous);
    let s = v.half.y / 8.0;
    let (w, h) = (v.half.x, v.half.z);
    let back = -0.84 * v.half.y;
    // C7 and T1 have the long processes.
    let long = ((v.half.y - 7.9 * 1.0) / 0.6).clamp(0.0, 1.6);
    for side in [-1.0f32, 1.0] {
        let pedicle =
            v.frame.aimed(vec3(side * (w + 0.5), back - 1.5 * s, 0.15 * h), vec3(side * 0.72, -0.7, 0.0), UP);
        scene.barrel(Barrel::plain(pedicle, 3.4 * s, 2.6 * s, 5.0 * s), 0.9 * shell, core);
        // The pillar: a rhomboid whose ends slope down to the back, where the facets glide.
        let pillar = v.frame.moved(vec3(side * (w + 6.0 * s), back - 8.0 * s, -0.1 * h));
        let rhomboid = Barrel {
            slope_top: [0.0, 0.62],
            slope_bottom: [0.0, -0.62],
            waist: 0.06,
            ..Barrel::plain(pillar, 5.4 * s, 5.8 * s, (h + 0.5 * v.disc_below_mm) * 0.86)
        };
        scene.barrel(rhomboid, 0.9 * shell, core);
        let transverse = v.frame.aimed(
            vec3(side * (w + 7.0 * s * wings), back + 2.0 * s, -0.1 * h),
            vec3(side, 0.2, -0.2),
            UP,
        );
        scene.barrel(
            Barrel::plain(transverse, 3.2 * s, 2.6 * s, 6.0 * s * wings).domed(1.5),
            0.6 * shell,
            core,
        );
        let lamina = v.frame.aimed(
            vec3(side * 8.0 * s, back - 14.5 * s, -0.25 * h),
            vec3(0.0, -0.25, 1.0),
            vec3(side * 0.75, 0.66, 0.0),
        );
        scene.knob(lamina, vec3(8.5, 2.2, 5.8) * s, 0.9 * shell, core);
        // Uncinate processes raise the sides of the upper end plate.
        let hook = v.frame.aimed(
            vec3(side * w * 0.88, -0.15 * v.half.y, h + 0.3),
            vec3(side * 0.35, 0.0, 1.0),
            RIGHT,
        );
        if wings < 1.2 {
            scene.knob(hook, vec3(1.7 * s, 5.0 * s, 3.2 * s), 0.6 * shell, core);
        }
    }
    let length = (8.5 + 6.0 * long) * s;
    let spinous = v.frame.aimed(
        vec3(0.0, back - 16.0 * s - length, -0.5 * h - (2.0 + 2.0 * long) * s),
        vec3(0.0, -1.0, -0.28),
        RIGHT,
    );
    let blade = Barrel::plain(spinous, 2.2 * s, 4.2 * s, length);
    scene.barrel(blade.domed(1.2).tapered(0.2), 0.9 * shell, core);
}

// C2 with its dens, the ring of C1, and the big spinous process.
fn axis(scene: &mut Scene, v: &Vertebra, patient: &Patient) {
    let (shell, core) = (0.8 * patient.shell, 1.1 * patient.cancellous);
    let s = v.half.y / 7.6;
    let back = -0.84 * v.half.y;
    let low = Barrel {
        dish_bottom: 1.0,
        dish_top: -3.0,
        back: 0.84 * v.half.y,
        taper: -0.08,
        h_top: v.half.z - 3.0,
        ..Barrel::plain(v.frame, v.half.x, v.half.y * 1.05, v.half.z)
    };
    scene.barrel(low, 0.6 * shell, core);
    let dens = v.frame.aimed(vec3(0.0, 0.8 * s, v.half.z + 7.0 * s), vec3(0.0, -0.10, 1.0), RIGHT);
    let dens_barrel = Barrel { waist: 0.08, ..Barrel::plain(dens, 5.0 * s, 5.2 * s, 10.5 * s) };
    scene.barrel(dens_barrel.domed(3.0), 1.0 * shell, core);

    let ring = v.frame.moved(vec3(0.0, 0.0, v.half.z + 9.0 * s));
    // Anterior arch, lateral masses, posterior arch.
    let front = ring.aimed(vec3(0.0, 9.0 * s, 1.0), RIGHT, UP);
    scene.knob(front, vec3(5.2, 3.4, 11.0) * s, 1.0 * shell, core);
    for side in [-1.0f32, 1.0] {
        let mass = Barrel {
            slope_top: [side * 0.35, 0.1],
            slope_bottom: [side * 0.3, 0.0],
            ..Barrel::plain(ring.moved(vec3(side * 17.0 * s, -2.0 * s, 0.0)), 7.5 * s, 7.5 * s, 7.0 * s)
        };
        scene.barrel(mass, 1.1 * shell, 1.3 * core);
        let wing = ring.aimed(vec3(side * 31.0 * s, -3.0 * s, 1.0), RIGHT, UP);
        scene.knob(wing, vec3(4.0, 4.0, 8.0) * s, 0.9 * shell, core);
        // Articular mass of C2 below.
        let shoulder = Barrel {
            slope_top: [side * -0.35, 0.0],
            slope_bottom: [0.0, -0.5],
            ..Barrel::plain(
                v.frame.moved(vec3(side * 14.0 * s, back - 3.0 * s, 1.0)),
                7.0 * s,
                6.5 * s,
                8.0 * s,
            )
        };
        scene.barrel(shoulder, 0.9 * shell, core);
        let lamina = v.frame.aimed(
            vec3(side * 8.0 * s, back - 15.0 * s, -2.0),
            vec3(0.0, -0.2, 1.0),
            vec3(side * 0.75, 0.66, 0.0),
        );
        scene.knob(lamina, vec3(9.0, 2.6, 7.0) * s, 1.0 * shell, core);
    }
    let arc: Vec<(Vec3, f32)> = (0..=10)
        .map(|k| {
            let a = std::f32::consts::PI * (1.0 + k as f32 / 10.0);
            (ring.point(vec3(20.0 * s * a.cos(), -6.0 * s + 27.0 * s * a.sin(), 1.0)), 3.2 * s)
        })
        .collect();
    scene.tube(arc, Paint::Bone { shell_mm: 1.1 * shell, end_mm: 1.0, core });
    let tubercle = ring.aimed(vec3(0.0, -33.0 * s, 0.0), BACK, RIGHT);
    scene.knob(tubercle, vec3(4.5, 4.0, 4.5) * s, 1.2 * shell, core);
    let spinous = v.frame.aimed(vec3(0.0, back - 25.0 * s, -5.0 * s), vec3(0.0, -1.0, -0.22), RIGHT);
    let blade = Barrel::plain(spinous, 4.0 * s, 7.0 * s, 11.0 * s).tapered(0.12).domed(2.0);
    scene.barrel(blade, 1.1 * shell, core);
}

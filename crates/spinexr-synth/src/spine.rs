//! The chain of vertebrae: sizes by level, and where each one stands.
//!
//! Sizes are rounded from published morphometry of adult vertebrae, good to a few millimetres. The chain
//! starts at the lowest vertebra's support and climbs: disc, body, disc, body; each disc and body adds its
//! share of lordosis and scoliosis. Findings that change the chain (a low disc, a slip, a collapsed body)
//! are applied on the way, so that everything above follows.

use crate::lesion::{Lesion, LesionKind};
use crate::patient::{Patient, Region};
use crate::random::Stream;
use crate::space::{Frame, Vec3, vec3};

/// Which kind of vertebra, for its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// L1 to L5.
    Lumbar,
    /// With ribs.
    Thoracic,
    /// C3 to C7.
    Cervical,
    /// C2, with the dens.
    Axis,
}

/// Mean sizes at a level, mm and degrees.
struct Level {
    kind: Kind,
    half_width: f32,
    half_depth: f32,
    height: f32,
    /// Disc below.
    disc: f32,
    /// Extension of the disc below and of this body, degrees.
    lordosis: f32,
}

const fn level(kind: Kind, half_width: f32, half_depth: f32, height: f32, disc: f32, lordosis: f32) -> Level {
    Level { kind, half_width, half_depth, height, disc, lordosis }
}

const LUMBAR: [Level; 8] = [
    level(Kind::Lumbar, 25.0, 17.3, 27.5, 9.5, 19.0), // L5 over S1
    level(Kind::Lumbar, 24.0, 17.2, 27.5, 11.0, 14.0), // L4
    level(Kind::Lumbar, 23.0, 17.0, 27.5, 10.5, 10.0), // L3
    level(Kind::Lumbar, 22.0, 16.6, 27.0, 9.5, 7.0),  // L2
    level(Kind::Lumbar, 21.0, 16.0, 26.5, 8.0, 3.0),  // L1
    level(Kind::Thoracic, 20.0, 15.3, 25.0, 6.5, -1.0), // T12
    level(Kind::Thoracic, 18.8, 15.0, 23.5, 5.5, -3.0), // T11
    level(Kind::Thoracic, 17.5, 15.0, 22.5, 5.0, -4.0), // T10
];

const CERVICAL: [Level; 9] = [
    level(Kind::Thoracic, 13.6, 9.4, 18.0, 4.5, -4.0), // T2
    level(Kind::Thoracic, 13.4, 8.9, 17.0, 4.8, -1.0), // T1
    level(Kind::Cervical, 12.2, 8.4, 14.6, 5.6, 5.0),  // C7
    level(Kind::Cervical, 11.2, 8.2, 13.6, 5.8, 6.0),  // C6
    level(Kind::Cervical, 10.4, 8.0, 13.4, 5.8, 6.0),  // C5
    level(Kind::Cervical, 9.8, 7.9, 13.5, 5.6, 5.5),   // C4
    level(Kind::Cervical, 9.4, 7.8, 13.8, 5.4, 5.0),   // C3
    level(Kind::Axis, 9.2, 7.6, 19.0, 5.2, 5.0),       // C2
    level(Kind::Axis, 0.0, 0.0, 0.0, 0.0, 0.0),        // place of C1
];

/// A vertebral body's place and shape.
#[derive(Debug, Clone, Copy)]
pub struct Vertebra {
    /// Kind.
    pub kind: Kind,
    /// Axes at the middle of the body.
    pub frame: Frame,
    /// Half-width (`x`), half-depth (`y`) and half-height (`z`), mm.
    pub half: Vec3,
    /// Dish of the upper and lower end plate, mm.
    pub dish: [f32; 2],
    /// Rise of the upper end plate to the front, mm per mm; negative where the front is low.
    pub wedge: f32,
    /// How much the back stands behind the normal place: a slip that leaves the arch behind.
    pub arch_back_mm: f32,
    /// Height of the disc below, mm.
    pub disc_below_mm: f32,
}

impl Vertebra {
    /// A point of the upper (`top`) or lower end plate's rim at `angle_rad` from the left-right axis
    /// (a quarter turn is the front).
    pub fn rim(&self, top: bool, angle_rad: f32) -> Vec3 {
        let (s, c) = angle_rad.sin_cos();
        let y = self.half.y * s;
        let z = if top { self.half.z + self.wedge * y } else { -self.half.z };
        self.frame.point(vec3(self.half.x * c, y, z))
    }
}

/// The chain.
#[derive(Debug, Clone)]
pub struct Spine {
    /// Region.
    pub region: Region,
    /// Vertebrae, lowest first.
    pub vertebrae: Vec<Vertebra>,
    /// Place under the lowest disc: the end plate of S1, or of T3.
    pub base: Frame,
    /// Top of the highest vertebra.
    pub top: Frame,
}

impl Spine {
    /// Index of the lowest and one past the highest vertebra on which findings are put.
    pub const fn finding_levels(region: Region) -> (usize, usize) {
        match region {
            Region::Lumbar => (0, 5),
            Region::Cervical => (2, 7),
        }
    }

    /// Builds the chain of a patient with the findings that bend it.
    pub fn build(region: Region, patient: &Patient, stream: &mut Stream, lesions: &[Lesion]) -> Self {
        let levels: &[Level] = match region {
            Region::Lumbar => &LUMBAR,
            Region::Cervical => &CERVICAL[..8],
        };
        let (slope, bend_sd) = match region {
            Region::Lumbar => (-38.0 + 6.0 * stream.normal(), 0.22),
            Region::Cervical => (-24.0 + 5.0 * stream.normal(), 0.75),
        };
        let bend = 1.0 + bend_sd * stream.normal().clamp(-1.8, 1.5);
        let side = 0.9 * stream.normal() + if stream.chance(0.12) { 3.5 * stream.sign() } else { 0.0 };
        let phase = stream.range(0.0, 3.0);
        let disc_health = 1.0 + 0.07 * stream.normal();
        let sizes = patient.scale * (1.0 + 0.02 * stream.normal());
        let depth = 1.0 + 0.03 * stream.normal();

        let base = Frame::at(Vec3::default()).rolled(0.01 * stream.normal()).pitched(slope.to_radians());
        let mut frame = base;
        let mut vertebrae = Vec::with_capacity(levels.len());
        for (i, level) in levels.iter().enumerate() {
            let mut disc = level.disc * disc_health * sizes * (1.0 + 0.05 * stream.normal());
            let mut angle = level.lordosis * bend + 1.2 * stream.normal();
            let mut roll = (side * (phase + 0.9 * i as f32).sin() + 0.5 * stream.normal()).to_radians();
            let turn = 0.012 * stream.normal() + 0.5 * roll;
            let half = vec3(level.half_width, level.half_depth * depth, 0.5 * level.height) * sizes;
            let mut v = Vertebra {
                kind: level.kind,
                frame,
                half,
                dish: [
                    0.09 * level.half_depth * stream.range(0.7, 1.5),
                    0.10 * level.half_depth * stream.range(0.7, 1.5),
                ],
                wedge: 0.01 * stream.normal(),
                arch_back_mm: 0.0,
                disc_below_mm: 0.0,
            };
            let (mut slip, mut collapse_angle) = (0.0, 0.0);
            for lesion in lesions {
                match lesion.kind {
                    LesionKind::LowDisc { level, share } if level == i => {
                        disc *= share;
                        angle *= 0.5 + 0.5 * share;
                    }
                    LesionKind::Slip { level, share, arch_stays } if level == i => {
                        slip = share * 2.0 * half.y;
                        disc *= 0.75;
                        v.arch_back_mm = if arch_stays { 0.85 * slip } else { 0.0 };
                    }
                    LesionKind::Collapse { level, front, middle, tilt } if level == i => {
                        // The front loses `front` of the height, the middle `middle` more.
                        let lost = front * 2.0 * half.z;
                        v.wedge = -0.5 * lost / half.y;
                        v.half.z -= 0.25 * lost;
                        v.dish[0] += middle * half.z;
                        v.dish[1] += 0.5 * middle * half.z;
                        collapse_angle = -0.7 * (lost / (2.0 * half.y));
                        roll += tilt;
                    }
                    _ => {}
                }
            }
            let radians = angle.to_radians();
            frame = frame.pitched(0.5 * radians).rolled(0.5 * roll);
            frame = frame.moved(vec3(0.0, slip, disc));
            frame = frame.pitched(0.3 * radians).rolled(0.5 * roll).turned(turn);
            v.disc_below_mm = disc;
            v.frame = frame.moved(vec3(0.0, 0.0, v.half.z));
            vertebrae.push(v);
            frame = v.frame.moved(vec3(0.0, 0.0, v.half.z)).pitched(0.2 * radians + collapse_angle);
        }
        Self { region, vertebrae, base, top: frame }
    }
}

//! Findings as changes of the anatomy.
//!
//! A [`Lesion`] says what is wrong where. Some bend the chain of vertebrae (`spine`), all may add or take
//! material ([`add`]), and each leaves a [`Mark`]: the 3-D extent from which its box is projected in the views
//! that show it.

mod bony;
mod chain;
mod implant;
mod rare;

use crate::patient::Patient;
use crate::scene::Scene;
use crate::space::{Camera, Frame, Vec3};
use crate::spine::Spine;
use spinexr_core::Category;

/// A finding to be put into the anatomy. Levels count vertebrae from the lowest (L5 is 0; T2 is 0, C7 is 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lesion {
    /// What and where.
    pub kind: LesionKind,
    /// Seed of its details.
    pub seed: u64,
}

/// What and where.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the fields are explained by their variant")]
pub enum LesionKind {
    /// A bony spur on the rim of an end plate, `angle_rad` from the right (a quarter turn is the front).
    Osteophyte { level: usize, top: bool, angle_rad: f32, length_mm: f32 },
    /// The disc below `level` has `share` of its height left.
    LowDisc { level: usize, share: f32 },
    /// Pedicle screws and rods over `levels` vertebrae from `level` up; with a cage in the lowest disc or not.
    Rods { level: usize, levels: usize, cage: bool },
    /// A plate on the front of `levels` vertebrae, with screws and cages.
    FrontPlate { level: usize, levels: usize },
    /// A cage alone, in the disc below `level`.
    Cage { level: usize },
    /// Bone cement in a body.
    Cement { level: usize },
    /// The foramina under the pedicles of `level` are narrowed by bone; `grade` 0 to 1.
    Stenosis { level: usize, grade: f32 },
    /// `level` has slipped forward by `share` of its depth (grade 1: under a quarter, and so on).
    Slip { level: usize, share: f32, arch_stays: bool },
    /// `level` has lost `front` of its height in front; the middle of its end plates has sunk by `middle`;
    /// those above lean sideways by `tilt` rad.
    Collapse { level: usize, front: f32, middle: f32, tilt: f32 },
    /// Bone is eaten away, in the body and one pedicle.
    Lysis { level: usize, side: f32, radius_mm: f32 },
    /// Chalk in the wall of the great artery in front of the spine.
    VesselChalk { level: usize, levels: usize },
    /// Bridges of bone between `levels` vertebrae.
    Ankylosis { level: usize, levels: usize },
    /// A spur at the tip of the spinous process.
    Enthesophyte { level: usize, length_mm: f32 },
    /// A broken spinous process, or a body with a broken line.
    Fracture { level: usize, body: bool },
    /// A dense island in a body.
    Sclerosis { level: usize, radius_mm: f32 },
    /// Dense bone under the end plates beside the disc below `level`.
    Subchondral { level: usize, depth_mm: f32 },
    /// Something that does not belong there; `shape` 0 bullet, 1 coin, 2 needle, 3 shot.
    Foreign { shape: u8 },
}

impl Lesion {
    /// The category it is marked as.
    pub const fn category(&self) -> Category {
        match self.kind {
            LesionKind::Osteophyte { .. } => Category::Osteophytes,
            LesionKind::LowDisc { .. } => Category::DiscSpaceNarrowing,
            LesionKind::Rods { .. }
            | LesionKind::FrontPlate { .. }
            | LesionKind::Cage { .. }
            | LesionKind::Cement { .. } => Category::SurgicalImplant,
            LesionKind::Stenosis { .. } => Category::ForaminalStenosis,
            LesionKind::Slip { .. } => Category::Spondylolysthesis,
            LesionKind::Collapse { .. } => Category::VertebralCollapse,
            LesionKind::Lysis { .. } | LesionKind::VesselChalk { .. } => Category::OtherLesions,
            LesionKind::Ankylosis { .. } => Category::Ankylosis,
            LesionKind::Enthesophyte { .. } => Category::Enthesophytes,
            LesionKind::Fracture { .. } => Category::Fracture,
            LesionKind::Sclerosis { .. } => Category::ScleroticLesion,
            LesionKind::Subchondral { .. } => Category::SubchondralSclerosis,
            LesionKind::Foreign { .. } => Category::ForeignBody,
        }
    }
}

/// In which views a finding can be seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// In all.
    Always,
    /// When the beam runs within the angle of this cosine along the axis, either way.
    Along(Vec3, f32),
    /// When the tip stands out of the body's silhouette by this many mm.
    StandsOut {
        /// Axes at the middle of the body.
        frame: Frame,
        /// Half-width and half-depth of the body, mm.
        half: [f32; 2],
        /// Tip of the spur.
        tip: Vec3,
        /// Least protrusion, mm.
        least_mm: f32,
    },
}

impl Seen {
    /// Whether a camera sees it.
    pub fn by(&self, camera: &Camera) -> bool {
        match *self {
            Self::Always => true,
            Self::Along(axis, cosine) => camera.forward.dot(axis).abs() >= cosine,
            Self::StandsOut { frame, half, tip, least_mm } => {
                let across = frame.local_direction(camera.right);
                let silhouette = (half[0] * across.x).hypot(half[1] * across.y);
                (tip - frame.origin).dot(camera.right).abs() - silhouette >= least_mm
            }
        }
    }
}

/// The extent of a finding.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Category.
    pub category: Category,
    /// Balls around the changed parts: centre and radius, mm.
    pub balls: Vec<(Vec3, f32)>,
    /// Views that show it.
    pub seen: Seen,
}

/// Puts a finding's parts into the scene and says where it is. Several marks when several places change.
pub fn add(scene: &mut Scene, spine: &Spine, patient: &Patient, lesion: &Lesion) -> Vec<Mark> {
    let mut stream = crate::random::Stream::new(&[lesion.seed, 0x1E51]);
    let stream = &mut stream;
    let category = lesion.category();
    let parts: Vec<(Vec<(Vec3, f32)>, Seen)> = match lesion.kind {
        LesionKind::Osteophyte { level, top, angle_rad, length_mm } => {
            vec![bony::osteophyte(scene, &spine.vertebrae[level], patient, top, angle_rad, length_mm, stream)]
        }
        LesionKind::Stenosis { level, grade } => bony::stenosis(scene, spine, patient, level, grade),
        LesionKind::Ankylosis { level, levels } => vec![bony::ankylosis(scene, spine, level, levels)],
        LesionKind::Enthesophyte { level, length_mm } => {
            vec![bony::enthesophyte(scene, &spine.vertebrae[level], length_mm)]
        }
        LesionKind::LowDisc { level, share } => vec![chain::low_disc(scene, spine, level, share, stream)],
        LesionKind::Slip { level, .. } => vec![chain::slip(spine, level)],
        LesionKind::Collapse { level, middle, .. } => vec![chain::collapse(scene, spine, level, middle)],
        LesionKind::Rods { level, levels, cage } => {
            vec![implant::rods(scene, spine, level, levels, cage, stream)]
        }
        LesionKind::FrontPlate { level, levels } => {
            vec![implant::front_plate(scene, spine, level, levels, stream)]
        }
        LesionKind::Cage { level } => vec![implant::lone_cage(scene, spine, level, stream)],
        LesionKind::Cement { level } => vec![implant::cement(scene, &spine.vertebrae[level], stream)],
        LesionKind::Lysis { level, side, radius_mm } => {
            vec![rare::lysis(scene, &spine.vertebrae[level], patient, side, radius_mm, stream)]
        }
        LesionKind::VesselChalk { level, levels } => {
            vec![rare::vessel_chalk(scene, spine, patient, level, levels, stream)]
        }
        LesionKind::Fracture { level, body } => {
            vec![rare::fracture(scene, &spine.vertebrae[level], body, stream)]
        }
        LesionKind::Sclerosis { level, radius_mm } => {
            vec![rare::sclerosis(scene, &spine.vertebrae[level], radius_mm, stream)]
        }
        LesionKind::Subchondral { level, depth_mm } => vec![rare::subchondral(scene, spine, level, depth_mm)],
        LesionKind::Foreign { shape } => vec![rare::foreign(scene, spine, shape, stream)],
    };
    parts.into_iter().map(|(balls, seen)| Mark { category, balls, seen }).collect()
}

/// What a lesion's builder returns: its extent and who sees it.
type Extent = (Vec<(Vec3, f32)>, Seen);

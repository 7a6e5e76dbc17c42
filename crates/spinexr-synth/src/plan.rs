//! What a study holds: its films and its findings.

use crate::film::FilmSpec;
use crate::lesion::{Lesion, LesionKind};
use crate::patient::{Patient, Region, View};
use crate::random::Stream;
use crate::spine::Spine;
use spinexr_core::Category;
use std::f32::consts::{FRAC_PI_2, PI};

/// A study: one patient, one region, one to four films.
#[derive(Debug, Clone)]
pub struct Study {
    /// Seed from which everything in the study follows.
    pub seed: u64,
    /// Patient.
    pub patient: Patient,
    /// Region.
    pub region: Region,
    /// Views in order.
    pub views: Vec<View>,
    /// Findings.
    pub lesions: Vec<Lesion>,
    /// Whether findings were put in.
    pub abnormal: bool,
}

/// Mean number of findings of a category in an abnormal study, chosen so that the boxes on the films of
/// many studies come in the proportions of the released training set (see `frequencies_follow_the_release`).
const NATURAL: [(Category, f32); 12] = [
    (Category::DiscSpaceNarrowing, 0.36),
    (Category::SurgicalImplant, 0.105),
    (Category::ForaminalStenosis, 0.17),
    (Category::Spondylolysthesis, 0.13),
    (Category::VertebralCollapse, 0.09),
    (Category::OtherLesions, 0.085),
    (Category::SubchondralSclerosis, 0.033),
    (Category::Enthesophytes, 0.027),
    (Category::ScleroticLesion, 0.007),
    (Category::ForeignBody, 0.0045),
    (Category::Fracture, 0.005),
    (Category::Ankylosis, 0.0018),
];

/// Share of abnormal studies with osteophytes, and mean number of spurs in one.
const NATURAL_OSTEOPHYTES: (f32, f32) = (0.86, 8.5);

/// Weights by which a balanced study chooses its classes; inverse to the boxes that the class, once chosen,
/// leaves on a study's films.
const BALANCED: [(Category, f32); 7] = [
    (Category::DiscSpaceNarrowing, 0.9),
    (Category::ForaminalStenosis, 1.6),
    (Category::Osteophytes, 0.5),
    (Category::Spondylolysthesis, 2.6),
    (Category::SurgicalImplant, 0.9),
    (Category::VertebralCollapse, 0.8),
    (Category::OtherLesions, 0.8),
];

/// Least severity of a balanced finding: clear, not only just there.
const BALANCED_LEAST: f32 = 0.45;

/// Within balanced "Other lesions", how often each category.
const BALANCED_OTHER: [(Category, f32); 7] = [
    (Category::OtherLesions, 0.30),
    (Category::ScleroticLesion, 0.20),
    (Category::ForeignBody, 0.20),
    (Category::SubchondralSclerosis, 0.12),
    (Category::Enthesophytes, 0.06),
    (Category::Fracture, 0.06),
    (Category::Ankylosis, 0.06),
];

impl Study {
    /// Draws study number `index` of a data set.
    pub fn draw(seed: u64, index: u64, balanced: bool) -> Self {
        let seed = crate::random::mix(seed ^ crate::random::mix(index.wrapping_add(0x5712_0000)));
        let mut stream = Stream::new(&[seed, 0x57]);
        let stream = &mut stream;
        let abnormal = stream.chance(0.5);
        let patient = Patient::draw(stream, abnormal);
        let region = if stream.chance(0.62) { Region::Lumbar } else { Region::Cervical };
        let mut views = match stream.weighted(&[0.12, 0.70, 0.09, 0.09]) {
            0 => vec![if stream.chance(0.4) { View::Ap } else { View::Lateral }],
            1 => vec![View::Ap, View::Lateral],
            2 => vec![View::Ap, View::Lateral, View::Oblique],
            _ => vec![View::Ap, View::Lateral, View::Oblique, View::Oblique],
        };
        let mut plan = Plan { region, taken: [None; 16], lesions: Vec::new() };
        if abnormal {
            if balanced {
                plan.balanced(stream);
            } else {
                plan.natural(&patient, stream);
            }
        }
        // The neck's foramina show on oblique films only: that is what such films are taken for.
        let narrowed = plan.lesions.iter().any(|l| l.category() == Category::ForaminalStenosis);
        if narrowed && region == Region::Cervical && !views.contains(&View::Oblique) {
            views = vec![View::Ap, View::Lateral, View::Oblique];
        }
        Self { seed, patient, region, views, lesions: plan.lesions, abnormal }
    }

    /// Specification of a film.
    pub fn film(&self, number: usize, height_px: u32) -> FilmSpec {
        FilmSpec {
            study_seed: self.seed,
            film: number as u32,
            region: self.region,
            view: self.views[number],
            patient: self.patient,
            lesions: self.lesions.clone(),
            height_px,
        }
    }
}

struct Plan {
    region: Region,
    /// What already changes a body or the disc below it, so that findings do not pile up.
    taken: [Option<Category>; 16],
    lesions: Vec<Lesion>,
}

impl Plan {
    fn natural(&mut self, patient: &Patient, stream: &mut Stream) {
        // Few studies have many findings: older patients have more.
        let burden = (0.5 + (patient.age_years as f32 - 30.0).max(0.0) / 54.0).min(1.6);
        for (category, mean) in NATURAL {
            for _ in 0..stream.poisson(mean * burden) {
                self.place(category, stream, 0.0);
            }
        }
        let spurs = if stream.chance(NATURAL_OSTEOPHYTES.0) || self.lesions.is_empty() {
            1 + stream.poisson((NATURAL_OSTEOPHYTES.1 - 1.0) * burden)
        } else {
            0
        };
        self.osteophytes(spurs, stream, 0.0);
    }

    // Two to four classes, each with more than one finding where anatomy allows it: as many boxes an abnormal
    // film as the release has, spread over all classes.
    fn balanced(&mut self, stream: &mut Stream) {
        let mut weights = BALANCED.map(|(_, weight)| weight);
        let mut chosen: Vec<Category> = (0..stream.between(2, 4))
            .map(|_| {
                let k = stream.weighted(&weights);
                weights[k] = 0.0;
                BALANCED[k].0
            })
            .collect();
        // An implant takes a run of levels: it goes first, while they are free.
        chosen.sort_by_key(|category| *category != Category::SurgicalImplant);
        for category in chosen {
            match category {
                Category::Osteophytes => {
                    let spurs = stream.between(4, 7);
                    self.osteophytes(spurs, stream, BALANCED_LEAST);
                }
                Category::OtherLesions => {
                    for _ in 0..stream.between(1, 2) {
                        let which = stream.weighted(&BALANCED_OTHER.map(|(_, w)| w));
                        self.place(BALANCED_OTHER[which].0, stream, BALANCED_LEAST);
                    }
                }
                Category::SurgicalImplant | Category::Spondylolysthesis => {
                    self.place(category, stream, BALANCED_LEAST);
                }
                other => {
                    for _ in 0..stream.between(1, 3) {
                        self.place(other, stream, BALANCED_LEAST);
                    }
                }
            }
        }
    }

    // A free level, preferring those where the finding is common; none when all are taken.
    fn level(&self, weights: &[f32], first: usize, stream: &mut Stream) -> Option<usize> {
        let free: Vec<f32> = weights
            .iter()
            .enumerate()
            .map(|(k, w)| if self.taken[first + k].is_none() { *w } else { 0.0 })
            .collect();
        (free.iter().sum::<f32>() > 0.0).then(|| first + stream.weighted(&free))
    }

    fn push(&mut self, kind: LesionKind, stream: &mut Stream) {
        self.lesions.push(Lesion { kind, seed: stream.bits() });
    }

    // Adds one finding of a category; `least` is the least severity, 0 to 1.
    fn place(&mut self, category: Category, stream: &mut Stream, least: f32) {
        let lumbar = self.region == Region::Lumbar;
        let (low, high) = Spine::finding_levels(self.region);
        let even = vec![1.0; high - low];
        let severity = stream.range(least, 1.0);
        let (level, kind) = match category {
            Category::DiscSpaceNarrowing => {
                let weights: &[f32] =
                    if lumbar { &[3.0, 3.0, 1.6, 1.0, 0.7] } else { &[0.8, 2.5, 3.0, 2.0, 0.8] };
                let Some(level) = self.level(weights, low, stream) else { return };
                (level, LesionKind::LowDisc { level, share: 0.55 - 0.45 * severity })
            }
            Category::SurgicalImplant => {
                let levels = stream.between(2, 4).min(high - low);
                let level = stream.between(low, high - levels);
                let kind = if !lumbar {
                    match stream.weighted(&[0.72, 0.14, 0.14]) {
                        0 => LesionKind::FrontPlate { level, levels: levels.min(3) },
                        1 => LesionKind::Rods { level, levels: levels.max(3), cage: false },
                        _ => LesionKind::Cage { level },
                    }
                } else {
                    match stream.weighted(&[0.74, 0.12, 0.14]) {
                        0 => LesionKind::Rods { level, levels, cage: stream.chance(0.5) },
                        1 => LesionKind::Cage { level },
                        _ => LesionKind::Cement { level },
                    }
                };
                for slot in &mut self.taken[level..level + levels] {
                    *slot = Some(category);
                }
                (level, kind)
            }
            Category::ForaminalStenosis => {
                let from = if lumbar { 1 } else { 2 };
                let Some(level) = self.level(&vec![1.0; high - from], from, stream) else { return };
                (level, LesionKind::Stenosis { level, grade: severity })
            }
            Category::Spondylolysthesis => {
                let weights: &[f32] = if lumbar { &[2.0, 3.0, 1.2, 0.4] } else { &[0.5, 1.0, 1.5, 1.5, 0.6] };
                let Some(level) = self.level(weights, low, stream) else { return };
                let share = if lumbar { 0.12 + 0.36 * severity * severity } else { 0.14 + 0.2 * severity };
                (level, LesionKind::Slip { level, share, arch_stays: lumbar && level == 0 })
            }
            Category::VertebralCollapse => {
                let weights: &[f32] =
                    if lumbar { &[0.5, 0.8, 1.2, 2.0, 3.0] } else { &[1.0, 1.0, 1.0, 0.6, 0.4] };
                let Some(level) = self.level(weights, low, stream) else { return };
                let wedge = stream.chance(0.6);
                let front = if wedge { 0.28 + 0.32 * severity } else { 0.08 * severity };
                let middle = if wedge { 0.12 * severity } else { 0.34 + 0.36 * severity };
                let tilt = 0.05 * stream.normal();
                (level, LesionKind::Collapse { level, front, middle, tilt })
            }
            Category::OtherLesions => {
                let Some(level) = self.level(&even, low, stream) else { return };
                if stream.chance(0.6) {
                    let radius_mm = 7.0 + 4.5 * severity;
                    (level, LesionKind::Lysis { level, side: stream.sign(), radius_mm })
                } else {
                    let level = low + usize::from(lumbar);
                    (high, LesionKind::VesselChalk { level, levels: stream.between(2, 4) })
                }
            }
            Category::Ankylosis => {
                let levels = stream.between(3, high - low);
                let level = stream.between(low, high - levels);
                for slot in &mut self.taken[level..level + levels] {
                    *slot = Some(category);
                }
                (level, LesionKind::Ankylosis { level, levels })
            }
            Category::Enthesophytes => {
                let level = stream.between(low, high - 1);
                (high + 1, LesionKind::Enthesophyte { level, length_mm: 8.0 + 9.0 * severity })
            }
            Category::Fracture => {
                let Some(level) = self.level(&even, low, stream) else { return };
                (level, LesionKind::Fracture { level, body: stream.chance(0.5) })
            }
            Category::ScleroticLesion => {
                let Some(level) = self.level(&even, low, stream) else { return };
                (level, LesionKind::Sclerosis { level, radius_mm: 5.0 + 4.5 * severity })
            }
            Category::SubchondralSclerosis => {
                let Some(level) = self.level(&even, low, stream) else { return };
                (level, LesionKind::Subchondral { level, depth_mm: 4.0 + 4.0 * severity })
            }
            Category::ForeignBody => (high + 2, LesionKind::Foreign { shape: stream.below(4) as u8 }),
            Category::Osteophytes => return self.osteophytes(1, stream, least),
        };
        self.taken[level] = Some(category);
        self.push(kind, stream);
    }

    // Spurs come in pairs across a disc, on the front and on the sides.
    fn osteophytes(&mut self, count: usize, stream: &mut Stream, least: f32) {
        let lumbar = self.region == Region::Lumbar;
        let (low, high) = Spine::finding_levels(self.region);
        let mut used: Vec<(usize, bool, i32)> = Vec::new();
        let mut placed = 0;
        for _ in 0..6 * count {
            if placed >= count {
                break;
            }
            let level = stream.between(low, high - 1);
            let top = stream.chance(0.5);
            // Of the neck's bodies the articular pillars hide the sides.
            let sideways = if lumbar { 0.45 } else { 0.0 };
            let angle = match stream.weighted(&[0.5, sideways, 0.05]) {
                0 => FRAC_PI_2 + 0.25 * stream.normal(),
                1 => {
                    if stream.chance(0.5) {
                        0.12 + 0.2 * stream.normal()
                    } else {
                        PI - 0.12 - 0.2 * stream.normal()
                    }
                }
                _ => -FRAC_PI_2 + 0.15 * stream.normal(),
            };
            let sector = (angle / 0.9).round() as i32;
            if used.contains(&(level, top, sector)) {
                continue;
            }
            let mut spur =
                |level: usize, top: bool, used: &mut Vec<(usize, bool, i32)>, stream: &mut Stream| {
                    used.push((level, top, sector));
                    let severity = stream.range(least, 1.0);
                    let length_mm =
                        if lumbar { 4.0 + 8.0 * severity * severity } else { 4.2 + 6.0 * severity };
                    self.push(LesionKind::Osteophyte { level, top, angle_rad: angle, length_mm }, stream);
                };
            spur(level, top, &mut used, stream);
            placed += 1;
            // The partner across the disc.
            let partner = if top { level + 1 } else { level.wrapping_sub(1) };
            if placed < count
                && (low..high).contains(&partner)
                && stream.chance(0.45)
                && !used.contains(&(partner, !top, sector))
            {
                spur(partner, !top, &mut used, stream);
                placed += 1;
            }
        }
    }
}

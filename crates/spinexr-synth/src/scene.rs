//! What a film looks through: solids, tubes and plates with a material.

use crate::solid::{Barrel, Chords, Solid};
use crate::space::{Camera, Frame, Grid, Vec3, vec3};

/// A material that is summed along the ray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Compact bone; weights are shares of its density.
    Cortical,
    /// Bone that carries trabecular texture; weights are shares of compact bone's density.
    Cancellous,
    /// Titanium.
    Titanium,
    /// Steel or lead, anything that stops nearly everything.
    Heavy,
    /// Water-like tissue; weights are shares of water's density, negative for gas and fat.
    Soft,
}

impl Layer {
    /// Number of layers.
    pub const COUNT: usize = 5;
}

/// How a shape is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Paint {
    /// A compact shell around cancellous bone of density `core` (share of compact bone).
    Bone {
        /// Thickness of the shell on the sides, mm.
        shell_mm: f32,
        /// Thickness of the shell on a barrel's ends, mm.
        end_mm: f32,
        /// Density of the inside.
        core: f32,
    },
    /// One material throughout.
    Uniform(Layer, f32),
}

/// A solid with its material.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Shape.
    pub solid: Solid,
    /// Material.
    pub paint: Paint,
}

/// Round cords along points with a radius each; where its pieces overlap they are not counted twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Tube {
    /// Strands, each the points of a centre line with the radius there, mm.
    pub strands: Vec<Vec<(Vec3, f32)>>,
    /// Material.
    pub paint: Paint,
}

/// A curved sheet of bone, thick along its rim.
#[derive(Debug, Clone, PartialEq)]
pub struct Plate {
    /// Closed outline.
    pub outline: Vec<Vec3>,
    /// Thickness of bone along the ray in the middle, mm.
    pub thickness_mm: f32,
    /// More bone at the rim, mm; falls off with `rim_width_mm`.
    pub rim_mm: f32,
    /// Width of the rim, mm.
    pub rim_width_mm: f32,
    /// Density as a share of compact bone.
    pub density: f32,
}

/// Everything between source and detector.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// Bones, metal, and what is taken from them.
    pub parts: Vec<Part>,
    /// Cords: ribs, rods, wires, spurs.
    pub tubes: Vec<Tube>,
    /// Sheets: iliac wings, scapulae.
    pub plates: Vec<Plate>,
    /// The body's outline; where these overlap only the longest chord counts.
    pub body: Vec<Solid>,
    /// Soft tissue that is denser or lighter than its surroundings, with its weight.
    pub organs: Vec<(Solid, f32)>,
    /// Cords of soft tissue or air.
    pub cords: Vec<Tube>,
}

impl Scene {
    /// Adds a bone.
    pub fn bone(&mut self, solid: Solid, shell_mm: f32, core: f32) {
        self.parts.push(Part { solid, paint: Paint::Bone { shell_mm, end_mm: shell_mm, core } });
    }

    /// Adds an ellipsoid of bone.
    pub fn knob(&mut self, frame: Frame, radii: Vec3, shell_mm: f32, core: f32) {
        self.bone(Solid::Ellipsoid(frame, radii), shell_mm, core);
    }

    /// Adds a barrel of bone.
    pub fn barrel(&mut self, barrel: Barrel, shell_mm: f32, core: f32) {
        self.bone(Solid::Barrel(barrel), shell_mm, core);
    }

    /// Adds a solid of one material.
    pub fn fill(&mut self, solid: Solid, layer: Layer, weight: f32) {
        self.parts.push(Part { solid, paint: Paint::Uniform(layer, weight) });
    }

    /// Adds a cord of one strand.
    pub fn tube(&mut self, points: Vec<(Vec3, f32)>, paint: Paint) {
        self.tubes.push(Tube { strands: vec![points], paint });
    }
}

/// Sums of material along the rays, by cell.
#[derive(Debug)]
pub struct Maps {
    /// The raster.
    pub grid: Grid,
    layers: [Vec<f32>; Layer::COUNT],
}

impl Maps {
    /// Empty maps over `grid`.
    pub fn new(grid: Grid) -> Self {
        Self { grid, layers: Default::default() }
    }

    /// A layer in mm (times density share), row-major; empty where nothing was drawn.
    pub fn layer(&self, layer: Layer) -> &[f32] {
        &self.layers[layer as usize]
    }

    /// As [`Maps::layer`], to draw on.
    pub fn layer_mut(&mut self, layer: Layer) -> &mut Vec<f32> {
        let map = &mut self.layers[layer as usize];
        if map.is_empty() {
            map.resize(self.grid.width * self.grid.height, 0.0);
        }
        map
    }
}

/// A solid seen from a camera: local rays as affine functions of the cell.
pub(crate) struct Sight {
    origin: Vec3,
    step_i: Vec3,
    step_j: Vec3,
    /// Direction of the rays in the solid's axes, length 1; constant over the solid, which is small
    /// against the distance of the source.
    direction: Vec3,
    /// Columns and rows that the solid can cover.
    pub columns: std::ops::Range<usize>,
    pub rows: std::ops::Range<usize>,
}

impl Sight {
    /// `None` when the solid falls outside the raster.
    pub fn new(solid: &Solid, camera: &Camera, grid: &Grid) -> Option<Self> {
        let frame = solid.frame();
        let reach = solid.reach();
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for corner in 0..8 {
            let s = |bit: usize| if corner & bit == 0 { -1.0 } else { 1.0 };
            let p = frame.point(vec3(s(1) * reach.x, s(2) * reach.y, s(4) * reach.z));
            let (right, down, _) = camera.project(p);
            let (i, j) = grid.cell(right, down);
            low = [low[0].min(i), low[1].min(j)];
            high = [high[0].max(i), high[1].max(j)];
        }
        let span = |low: f32, high: f32, n: usize| {
            let from = (low - 1.0).floor().max(0.0) as usize;
            let to = ((high + 1.0).ceil().max(0.0) as usize).min(n);
            from..to
        };
        let columns = span(low[0], high[0], grid.width);
        let rows = span(low[1], high[1], grid.height);
        if columns.is_empty() || rows.is_empty() {
            return None;
        }
        let v = frame.origin - camera.source;
        let depth = v.dot(camera.forward);
        let shrink = depth / camera.sid_mm;
        let cell = grid.cell_mm * shrink;
        let first = camera.source
            + camera.forward * depth
            + camera.right * ((grid.corner_mm[0] + 0.5 * grid.cell_mm) * shrink)
            - camera.up * ((grid.corner_mm[1] + 0.5 * grid.cell_mm) * shrink);
        Some(Self {
            origin: frame.local_direction(first - frame.origin),
            step_i: frame.local_direction(camera.right * cell),
            step_j: frame.local_direction(camera.up * -cell),
            direction: frame.local_direction(v.unit()),
            columns,
            rows,
        })
    }

    /// Calls `paint(cell index, point of the ray)` for each cell the solid may cover.
    fn each(&self, width: usize, mut paint: impl FnMut(usize, Vec3)) {
        for j in self.rows.clone() {
            let row = self.origin + self.step_j * j as f32;
            for i in self.columns.clone() {
                paint(j * width + i, row + self.step_i * i as f32);
            }
        }
    }
}

/// Adds a part to the maps.
pub fn draw_part(maps: &mut Maps, camera: &Camera, part: &Part) {
    let Some(sight) = Sight::new(&part.solid, camera, &maps.grid) else { return };
    let width = maps.grid.width;
    match part.paint {
        Paint::Uniform(layer, weight) => {
            let map = maps.layer_mut(layer);
            let chords = Chords::new(&part.solid, sight.direction);
            sight.each(width, |k, o| map[k] += weight * chords.through(o));
        }
        Paint::Bone { shell_mm, end_mm, core } => {
            let outside = Chords::new(&part.solid, sight.direction);
            let inside = Chords::new(&part.solid.inside(shell_mm, end_mm), sight.direction);
            maps.layer_mut(Layer::Cortical);
            maps.layer_mut(Layer::Cancellous);
            let [cortical, cancellous, ..] = &mut maps.layers;
            sight.each(width, |k, o| {
                let outer = outside.through(o);
                if outer > 0.0 {
                    let hollow = inside.through(o).min(outer);
                    cortical[k] += outer - hollow;
                    cancellous[k] += core * hollow;
                }
            });
        }
    }
}

/// Writes the longest chord of all `solids` into `map`.
pub fn draw_longest(map: &mut [f32], grid: &Grid, camera: &Camera, solids: &[Solid]) {
    for solid in solids {
        let Some(sight) = Sight::new(solid, camera, grid) else { continue };
        let chords = Chords::new(solid, sight.direction);
        sight.each(grid.width, |k, o| map[k] = map[k].max(chords.through(o)));
    }
}

//! Points, frames and the camera, in millimetres.
//!
//! World axes of the patient: `x` to the patient's right, `y` forward (anterior), `z` up (cranial).

use std::ops::{Add, Mul, Neg, Sub};

/// A point or direction, mm.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vec3 {
    /// Towards the patient's right.
    pub x: f32,
    /// Forward.
    pub y: f32,
    /// Up.
    pub z: f32,
}

/// Short for [`Vec3`] from its coordinates.
pub const fn vec3(x: f32, y: f32, z: f32) -> Vec3 {
    Vec3 { x, y, z }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        vec3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        vec3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl Mul<f32> for Vec3 {
    type Output = Self;
    fn mul(self, s: f32) -> Self {
        vec3(self.x * s, self.y * s, self.z * s)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        vec3(-self.x, -self.y, -self.z)
    }
}

impl Vec3 {
    /// Scalar product.
    pub fn dot(self, o: Self) -> f32 {
        self.x * o.x + self.y * o.y + self.z * o.z
    }

    /// Vector product.
    pub fn cross(self, o: Self) -> Self {
        vec3(self.y * o.z - self.z * o.y, self.z * o.x - self.x * o.z, self.x * o.y - self.y * o.x)
    }

    /// Euclidean length.
    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The same direction with length 1.
    pub fn unit(self) -> Self {
        self * (1.0 / self.length().max(1e-12))
    }

    /// Point on the way to `o`, 0 here, 1 there.
    pub fn lerp(self, o: Self, t: f32) -> Self {
        self * (1.0 - t) + o * t
    }
}

/// A right-handed set of axes with an origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Origin in the world.
    pub origin: Vec3,
    /// Unit axes in the world.
    pub x: Vec3,
    /// See `x`.
    pub y: Vec3,
    /// See `x`.
    pub z: Vec3,
}

impl Frame {
    /// The world's own axes at `origin`.
    pub const fn at(origin: Vec3) -> Self {
        Self { origin, x: vec3(1.0, 0.0, 0.0), y: vec3(0.0, 1.0, 0.0), z: vec3(0.0, 0.0, 1.0) }
    }

    /// A local point in the world.
    pub fn point(&self, p: Vec3) -> Vec3 {
        self.origin + self.direction(p)
    }

    /// A local direction in the world.
    pub fn direction(&self, d: Vec3) -> Vec3 {
        self.x * d.x + self.y * d.y + self.z * d.z
    }

    /// A world direction in local axes.
    pub fn local_direction(&self, d: Vec3) -> Vec3 {
        vec3(self.x.dot(d), self.y.dot(d), self.z.dot(d))
    }

    /// Moved along its own axes.
    pub fn moved(&self, by: Vec3) -> Self {
        Self { origin: self.point(by), ..*self }
    }

    /// Turned about its own `x` axis: positive lifts the front (extension).
    pub fn pitched(&self, angle_rad: f32) -> Self {
        let (s, c) = angle_rad.sin_cos();
        Self { y: self.y * c + self.z * s, z: self.z * c - self.y * s, ..*self }
    }

    /// Turned about its own `y` axis: positive leans the top to `+x`.
    pub fn rolled(&self, angle_rad: f32) -> Self {
        let (s, c) = angle_rad.sin_cos();
        Self { z: self.z * c + self.x * s, x: self.x * c - self.z * s, ..*self }
    }

    /// Turned about its own `z` axis: positive turns `x` towards `y`.
    pub fn turned(&self, angle_rad: f32) -> Self {
        let (s, c) = angle_rad.sin_cos();
        Self { x: self.x * c + self.y * s, y: self.y * c - self.x * s, ..*self }
    }

    /// A frame at local point `p` whose `z` axis points along local `axis` and whose `x` axis is as near
    /// to local `side` as can be.
    pub fn aimed(&self, p: Vec3, axis: Vec3, side: Vec3) -> Self {
        let z = self.direction(axis).unit();
        let side = self.direction(side);
        let x = (side - z * side.dot(z)).unit();
        Self { origin: self.point(p), x, y: z.cross(x), z }
    }
}

/// An X-ray source and a flat detector.
#[derive(Debug, Clone, Copy)]
pub struct Camera {
    /// Focal spot.
    pub source: Vec3,
    /// Unit central ray, perpendicular to the detector.
    pub forward: Vec3,
    /// Unit direction of growing columns.
    pub right: Vec3,
    /// Unit direction against growing rows.
    pub up: Vec3,
    /// Source to detector, mm.
    pub sid_mm: f32,
}

impl Camera {
    /// A camera that looks at `target` along `forward`, with `object_to_detector_mm` behind the target and
    /// turned in its plane by `roll_rad`.
    pub fn aimed(
        target: Vec3,
        forward: Vec3,
        roll_rad: f32,
        sid_mm: f32,
        object_to_detector_mm: f32,
    ) -> Self {
        let forward = forward.unit();
        let right = forward.cross(vec3(0.0, 0.0, 1.0)).unit();
        let up = right.cross(forward);
        let (s, c) = roll_rad.sin_cos();
        Self {
            source: target - forward * (sid_mm - object_to_detector_mm),
            forward,
            right: right * c + up * s,
            up: up * c - right * s,
            sid_mm,
        }
    }

    /// Place on the detector in mm from its centre (right, down), and detector mm per mm at that depth.
    pub fn project(&self, p: Vec3) -> (f32, f32, f32) {
        let v = p - self.source;
        let magnification = self.sid_mm / v.dot(self.forward).max(1.0);
        (v.dot(self.right) * magnification, -v.dot(self.up) * magnification, magnification)
    }
}

/// A raster over the detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Detector mm per cell.
    pub cell_mm: f32,
    /// Detector place of the corner of cell (0, 0), mm from the detector's centre (right, down).
    pub corner_mm: [f32; 2],
}

impl Grid {
    /// Detector mm to cell coordinates, where cell `i` covers `[i, i + 1)`.
    pub fn cell(&self, right_mm: f32, down_mm: f32) -> (f32, f32) {
        ((right_mm - self.corner_mm[0]) / self.cell_mm, (down_mm - self.corner_mm[1]) / self.cell_mm)
    }

    /// A raster with cells `factor` times as long over the same detector.
    pub fn coarser(&self, factor: usize) -> Self {
        Self {
            width: self.width.div_ceil(factor),
            height: self.height.div_ceil(factor),
            cell_mm: self.cell_mm * factor as f32,
            corner_mm: self.corner_mm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ap_camera_shows_the_patients_left_on_the_right() {
        let camera = Camera::aimed(Vec3::default(), vec3(0.0, -1.0, 0.0), 0.0, 1000.0, 200.0);
        let (right, down, magnification) = camera.project(vec3(-10.0, 0.0, 20.0));
        assert!((right - 12.5).abs() < 1e-3 && (down + 25.0).abs() < 1e-3);
        assert!((magnification - 1.25).abs() < 1e-5);
    }

    #[test]
    fn frames_stay_orthonormal() {
        let f = Frame::at(vec3(1.0, 2.0, 3.0)).pitched(0.4).rolled(-0.3).turned(1.1);
        for (a, b, want) in [(f.x, f.y, 0.0), (f.y, f.z, 0.0), (f.x, f.x, 1.0), (f.z, f.z, 1.0)] {
            assert!((a.dot(b) - want).abs() < 1e-5);
        }
        assert!((f.x.cross(f.y) - f.z).length() < 1e-5);
        let g = f.aimed(Vec3::default(), vec3(0.0, -1.0, 0.0), vec3(1.0, 0.0, 0.0));
        assert!((g.x.cross(g.y) - g.z).length() < 1e-5);
    }
}

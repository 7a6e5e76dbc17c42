//! Buffers of maps, and views of a range of their channels.

use std::ops::Range;

use crate::cpu::conv::Films;
use crate::cpu::planes::SharedOut;

/// A batch of maps, `[N, C, H, W]`, one value after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Maps {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl Maps {
    /// Maps of these values.
    ///
    /// # Panics
    /// When there are not as many values as the shape says.
    pub fn new(values: Vec<f32>, shape: [usize; 4]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "maps of shape {shape:?}");
        Self { values, shape }
    }

    /// Take another shape, keeping the memory. The values are whatever was there.
    pub fn reshape(&mut self, shape: [usize; 4]) {
        self.values.resize(shape.iter().product(), 0.0);
        self.shape = shape;
    }

    /// `[N, C, H, W]`
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, to change.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// All channels, to read.
    pub fn view(&self) -> MapsRef<'_> {
        self.channels(0..self.shape[1])
    }

    /// All channels, to write.
    pub fn view_mut(&mut self) -> MapsMut<'_> {
        self.channels_mut(0..self.shape[1])
    }

    /// Some channels, to read.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn channels(&self, channels: Range<usize>) -> MapsRef<'_> {
        let (shape, stride, values) = self.range(&channels);
        MapsRef { values: &self.values[values], stride, shape }
    }

    /// Some channels, to write.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn channels_mut(&mut self, channels: Range<usize>) -> MapsMut<'_> {
        let (shape, stride, values) = self.range(&channels);
        MapsMut { values: &mut self.values[values], stride, shape }
    }

    /// Shape of a view, values from one film to the next, and its values from first to last.
    fn range(&self, channels: &Range<usize>) -> ([usize; 4], usize, Range<usize>) {
        let [n, c, h, w] = self.shape;
        assert!(channels.start <= channels.end && channels.end <= c, "channels {channels:?} of {c}");
        let last = n.saturating_sub(1) * c;
        let values = match n {
            0 => 0..0,
            _ => channels.start * h * w..(last + channels.end) * h * w,
        };
        ([n, channels.len(), h, w], c * h * w, values)
    }
}

/// Channels of [`Maps`], to read.
#[derive(Debug, Clone, Copy)]
pub struct MapsRef<'a> {
    values: &'a [f32],
    stride: usize,
    shape: [usize; 4],
}

impl<'a> MapsRef<'a> {
    /// `[N, C, H, W]`
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// One plane, `H * W` values.
    pub fn plane(&self, film: usize, channel: usize) -> &'a [f32] {
        let [_, _, h, w] = self.shape;
        self.films().part(film, channel * h * w, h * w)
    }

    pub(crate) fn films(&self) -> Films<'a> {
        Films { data: self.values, stride: self.stride }
    }
}

/// Channels of [`Maps`], to write.
#[derive(Debug)]
pub struct MapsMut<'a> {
    values: &'a mut [f32],
    stride: usize,
    shape: [usize; 4],
}

impl MapsMut<'_> {
    /// `[N, C, H, W]`
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values for several threads, and how far films lie apart.
    pub(crate) fn shared(&mut self) -> (SharedOut, usize) {
        (SharedOut::over(self.values), self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_sees_its_channels_of_every_film() {
        let maps = Maps::new((0..2 * 3 * 2).map(|v| v as f32).collect(), [2, 3, 1, 2]);
        let view = maps.channels(1..3);
        assert_eq!(view.shape(), [2, 2, 1, 2]);
        assert_eq!(view.plane(0, 0), [2.0, 3.0]);
        assert_eq!(view.plane(1, 1), [10.0, 11.0]);
    }

    #[test]
    fn a_new_shape_keeps_the_memory() {
        let mut maps = Maps::new(vec![1.0; 24], [2, 3, 2, 2]);
        let at = maps.values().as_ptr();
        maps.reshape([1, 3, 2, 2]);
        assert_eq!((maps.shape(), maps.values().len()), ([1, 3, 2, 2], 12));
        assert_eq!(maps.values().as_ptr(), at);
        maps.reshape([0, 3, 2, 2]);
        assert_eq!(maps.view().shape(), [0, 3, 2, 2]);
    }

    #[test]
    #[should_panic(expected = "channels 2..4 of 3")]
    fn channels_that_are_not_there_are_refused() {
        Maps::new(vec![0.0; 3], [1, 3, 1, 1]).channels_mut(2..4);
    }
}

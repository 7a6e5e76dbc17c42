//! From display pixels to what a network expects: mean and standard deviation a channel.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// `(x - mean) / std`, one pair a channel; a film has one channel, which is repeated for each pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Subtracted, in units of the display range (0 black, 1 white).
    pub mean: Vec<f32>,
    /// Divided by.
    pub std: Vec<f32>,
}

/// Why a normalisation is unusable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "normalisation needs one finite mean and one positive standard deviation a channel, found mean {mean:?} and std {std:?}"
)]
pub struct NormalisationError {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalisation {
    /// What torchvision's ImageNet weights expect: three channels.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// One channel, centred on mid grey with a spread near that of radiographs.
    pub fn film() -> Self {
        Self { mean: vec![0.5], std: vec![0.25] }
    }

    /// Channels of the result.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Whether every channel has a finite mean and a positive standard deviation.
    ///
    /// # Errors
    /// [`NormalisationError`] with the values found.
    pub fn validate(&self) -> Result<(), NormalisationError> {
        let fits = !self.mean.is_empty()
            && self.mean.len() == self.std.len()
            && self.mean.iter().all(|m| m.is_finite())
            && self.std.iter().all(|s| s.is_finite() && *s > 0.0);
        if fits { Ok(()) } else { Err(NormalisationError { mean: self.mean.clone(), std: self.std.clone() }) }
    }

    /// Normalised images.
    ///
    /// # Shapes
    /// `images`: `[N, 1, H, W]`, 0..1 → `[N, C, H, W]` with C pairs of mean and standard deviation.
    ///
    /// # Panics
    /// When the images have more than one channel.
    pub fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        let [_, channels, _, _] = images.dims();
        assert_eq!(channels, 1, "a film has one channel, found {channels}");
        if let ([mean], [std]) = (&self.mean[..], &self.std[..]) {
            return images.sub_scalar(*mean).div_scalar(*std);
        }
        let device = images.device();
        let c = self.channels();
        let row = |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [1, c, 1, 1]), &device);
        (images - row(self.mean.clone())) / row(self.std.clone()) // [N, 1, H, W] with [1, C, 1, 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn image() -> Tensor<4> {
        Tensor::from_data(TensorData::new(vec![0.0f32, 0.5, 1.0, 0.25], [2, 1, 1, 2]), &Device::flex())
    }

    #[test]
    fn one_channel() {
        let out = Normalisation { mean: vec![0.5], std: vec![0.25] }.apply(image());
        assert_eq!(out.dims(), [2, 1, 1, 2]);
        assert_eq!(out.try_into_vec_as::<f32>().unwrap(), [-2.0, 0.0, 2.0, -1.0]);
    }

    #[test]
    fn a_film_is_repeated_for_three_channels() {
        let normalisation = Normalisation { mean: vec![0.0, 0.5, 1.0], std: vec![1.0, 0.5, 0.25] };
        let out = normalisation.apply(image());
        assert_eq!(out.dims(), [2, 3, 1, 2]);
        assert_eq!(
            out.try_into_vec_as::<f32>().unwrap(),
            [0.0, 0.5, -1.0, 0.0, -4.0, -2.0, 1.0, 0.25, 1.0, -0.5, 0.0, -3.0]
        );
    }

    #[test]
    fn unusable_values_are_refused() {
        assert!(Normalisation::imagenet().validate().is_ok());
        assert!(Normalisation::film().validate().is_ok());
        for (mean, std) in [
            (vec![], vec![]),
            (vec![0.5], vec![0.0]),
            (vec![0.5, 0.5], vec![1.0]),
            (vec![f32::NAN], vec![1.0]),
        ] {
            assert!(Normalisation { mean, std }.validate().is_err());
        }
    }
}

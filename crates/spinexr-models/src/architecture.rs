//! The networks by name, as configurations and bundles write them.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::densenet::{DenseNet, DenseNetConfig};
use crate::detector::DetectorConfig;
use crate::faster_rcnn::FasterRcnnConfig;
use crate::normalisation::Normalisation;
use crate::retinanet::RetinaNetConfig;
use crate::sparse_rcnn::SparseRcnnConfig;

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One or more logits for a film.
    Classification,
    /// Boxes with a class and a score.
    Detection,
}

/// A network that can be trained and served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// DenseNet-121.
    Densenet121,
    /// DenseNet-169.
    Densenet169,
    /// DenseNet-201.
    Densenet201,
    /// A small DenseNet for demonstrations.
    #[serde(alias = "densenet_mini")]
    DensenetMiniA,
    /// A second small DenseNet, of other depth and growth.
    DensenetMiniB,
    /// RetinaNet on ResNet-18.
    RetinanetResnet18,
    /// RetinaNet on ResNet-50.
    RetinanetResnet50,
    /// A small RetinaNet for demonstrations.
    RetinanetMini,
    /// Sparse R-CNN on ResNet-50.
    SparseRcnnResnet50,
    /// A small Sparse R-CNN for small films.
    SparseRcnnMini,
    /// Faster R-CNN on ResNet-50 with a pyramid.
    FasterRcnnResnet50,
    /// A small Faster R-CNN, to be trained on few films.
    FasterRcnnMini,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Densenet121,
        Self::Densenet169,
        Self::Densenet201,
        Self::DensenetMiniA,
        Self::DensenetMiniB,
        Self::RetinanetResnet18,
        Self::RetinanetResnet50,
        Self::RetinanetMini,
        Self::SparseRcnnResnet50,
        Self::SparseRcnnMini,
        Self::FasterRcnnResnet50,
        Self::FasterRcnnMini,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Densenet121 => "densenet121",
            Self::Densenet169 => "densenet169",
            Self::Densenet201 => "densenet201",
            Self::DensenetMiniA => "densenet_mini_a",
            Self::DensenetMiniB => "densenet_mini_b",
            Self::RetinanetResnet18 => "retinanet_resnet18",
            Self::RetinanetResnet50 => "retinanet_resnet50",
            Self::RetinanetMini => "retinanet_mini",
            Self::SparseRcnnResnet50 => "sparse_rcnn_resnet50",
            Self::SparseRcnnMini => "sparse_rcnn_mini",
            Self::FasterRcnnResnet50 => "faster_rcnn_resnet50",
            Self::FasterRcnnMini => "faster_rcnn_mini",
        }
    }

    /// What it is for.
    pub fn task(self) -> Task {
        if self.classifier_config().is_some() { Task::Classification } else { Task::Detection }
    }

    /// Channels of the input image.
    pub fn in_channels(self) -> usize {
        match (self.classifier_config(), self.detector_config()) {
            (Some(config), _) => config.in_channels,
            (_, Some(config)) => config.in_channels(),
            (None, None) => unreachable!("a network is a classifier or a detector"),
        }
    }

    /// How a film is normalised where nothing else is said: ImageNet's values for three channels, mid grey for
    /// one.
    pub fn default_normalisation(self) -> Normalisation {
        if self.in_channels() == 3 { Normalisation::imagenet() } else { Normalisation::film() }
    }

    /// Smallest height and width of an input, px.
    pub fn min_input_px(self) -> usize {
        match self.task() {
            Task::Classification => DenseNetConfig::MIN_INPUT_PX,
            Task::Detection => 1,
        }
    }

    /// Whether an input of this size can be taken.
    ///
    /// # Errors
    /// [`InputTooSmall`] with both sizes.
    pub fn check_input(self, height_px: usize, width_px: usize) -> Result<(), InputTooSmall> {
        let least_px = self.min_input_px();
        if height_px.min(width_px) < least_px {
            return Err(InputTooSmall { architecture: self, least_px, height_px, width_px });
        }
        Ok(())
    }

    /// The measures of a classifier, `None` for a detector.
    pub fn classifier_config(self) -> Option<DenseNetConfig> {
        match self {
            Self::Densenet121 => Some(DenseNetConfig::densenet121()),
            Self::Densenet169 => Some(DenseNetConfig::densenet169()),
            Self::Densenet201 => Some(DenseNetConfig::densenet201()),
            Self::DensenetMiniA => Some(DenseNetConfig::mini_a()),
            Self::DensenetMiniB => Some(DenseNetConfig::mini_b()),
            Self::RetinanetResnet18
            | Self::RetinanetResnet50
            | Self::RetinanetMini
            | Self::SparseRcnnResnet50
            | Self::SparseRcnnMini
            | Self::FasterRcnnResnet50
            | Self::FasterRcnnMini => None,
        }
    }

    /// The measures of a detector, `None` for a classifier.
    pub fn detector_config(self) -> Option<DetectorConfig> {
        match self {
            Self::RetinanetResnet18 => Some(DetectorConfig::RetinaNet(RetinaNetConfig::resnet18())),
            Self::RetinanetResnet50 => Some(DetectorConfig::RetinaNet(RetinaNetConfig::resnet50())),
            Self::RetinanetMini => Some(DetectorConfig::RetinaNet(RetinaNetConfig::mini())),
            Self::SparseRcnnResnet50 => Some(DetectorConfig::SparseRcnn(SparseRcnnConfig::resnet50())),
            Self::SparseRcnnMini => Some(DetectorConfig::SparseRcnn(SparseRcnnConfig::mini())),
            Self::FasterRcnnResnet50 => Some(DetectorConfig::FasterRcnn(FasterRcnnConfig::resnet50())),
            Self::FasterRcnnMini => Some(DetectorConfig::FasterRcnn(FasterRcnnConfig::mini())),
            Self::Densenet121
            | Self::Densenet169
            | Self::Densenet201
            | Self::DensenetMiniA
            | Self::DensenetMiniB => None,
        }
    }

    /// A classifier with weights drawn from `seed`.
    ///
    /// # Errors
    /// [`WrongTask`] for a detector.
    pub fn build_classifier(
        self,
        num_classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<DenseNet, WrongTask> {
        let config = self
            .classifier_config()
            .ok_or(WrongTask { architecture: self, expected: Task::Classification })?;
        Ok(config.with_num_classes(num_classes).init_seeded(seed, device))
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A network asked for what it is not for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{architecture} is not a network for {expected:?}")]
pub struct WrongTask {
    /// The network.
    pub architecture: Architecture,
    /// What was wanted.
    pub expected: Task,
}

/// An image that would leave no pixel in the last map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{architecture} needs an input of at least {least_px}×{least_px} px, found {height_px}×{width_px}")]
pub struct InputTooSmall {
    /// The network.
    pub architecture: Architecture,
    /// Smallest side.
    pub least_px: usize,
    /// Found.
    pub height_px: usize,
    /// Found.
    pub width_px: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_serde() {
        for architecture in Architecture::ALL {
            let json = format!("{:?}", architecture.name());
            assert_eq!(serde_json::to_string(&architecture).unwrap(), json);
            assert_eq!(serde_json::from_str::<Architecture>(&json).unwrap(), architecture);
        }
        let mini: Architecture = serde_json::from_str("\"densenet_mini\"").unwrap();
        assert_eq!(mini, Architecture::DensenetMiniA);
    }

    #[test]
    fn a_network_has_one_task() {
        for architecture in Architecture::ALL {
            let tasks =
                (architecture.classifier_config().is_some(), architecture.detector_config().is_some());
            assert!(matches!(tasks, (true, false) | (false, true)), "{architecture}");
        }
        let error = Architecture::RetinanetMini.build_classifier(1, 0, &Device::flex()).unwrap_err();
        assert_eq!(error.to_string(), "retinanet_mini is not a network for Classification");
    }

    #[test]
    fn a_small_input_is_refused_with_both_sizes() {
        let error = Architecture::DensenetMiniA.check_input(28, 100).unwrap_err();
        assert_eq!(error.to_string(), "densenet_mini_a needs an input of at least 29×29 px, found 28×100");
        assert!(Architecture::DensenetMiniA.check_input(29, 29).is_ok());
        assert!(Architecture::RetinanetMini.check_input(1, 1).is_ok());
    }
}

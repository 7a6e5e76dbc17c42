//! The two heads of RetinaNet: one says what, the other where. Weights are shared between levels, norms are
//! not, since the levels' statistics differ (as in EfficientDet, arXiv 1911.09070).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use spinexr_ops::{BatchNorm2d, BatchNorm2dConfig, Conv2d, Conv2dConfig, relu};

use crate::anchors::by_anchor;

/// Norm after each convolution of a head but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadNorm {
    /// None, as published: for pretrained backbones with frozen norms.
    None,
    /// Batch norm, one for each level.
    BatchPerLevel,
}

pub(crate) struct HeadConfig {
    pub channels: usize,
    pub convs: usize,
    pub norm: HeadNorm,
    pub levels: usize,
    pub anchors: usize,
}

impl HeadConfig {
    pub(crate) fn init(&self, num_classes: usize, device: &Device) -> Head {
        let last = |outputs| {
            Conv2dConfig::new(self.channels, self.anchors * outputs, 3).with_padding(1).init(device)
        };
        let (conv, norms) = self.tower(device);
        let classification_head = ClassificationHead { conv, norms, cls_logits: last(num_classes) };
        let (conv, norms) = self.tower(device);
        let regression_head = RegressionHead { conv, norms, bbox_reg: last(4) };
        Head { classification_head, regression_head, anchors: self.anchors }
    }

    fn tower(&self, device: &Device) -> (Vec<[Conv2d; 1]>, Vec<Vec<BatchNorm2d>>) {
        let (bias, levels) = match self.norm {
            HeadNorm::None => (true, 0),
            HeadNorm::BatchPerLevel => (false, self.levels), // the norm's shift is the bias
        };
        let conv = (0..self.convs)
            .map(|_| {
                let config = Conv2dConfig::new(self.channels, self.channels, 3).with_padding(1);
                [config.with_bias(bias).init(device)]
            })
            .collect();
        let norm = || BatchNorm2dConfig::new(self.channels).init(device);
        let norms = (0..levels).map(|_| (0..self.convs).map(|_| norm()).collect()).collect();
        (conv, norms)
    }
}

/// Both heads.
#[derive(Module, Debug)]
pub struct Head {
    /// What.
    pub classification_head: ClassificationHead,
    /// Where.
    pub regression_head: RegressionHead,
    /// Anchors at one place.
    pub anchors: usize,
}

/// From a map to class logits.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    /// 3×3 convolutions; arrays of one, for the path `conv.0.0` of torchvision.
    pub conv: Vec<[Conv2d; 1]>,
    /// Norms by level and convolution; empty without norms.
    pub norms: Vec<Vec<BatchNorm2d>>,
    /// To A·K channels.
    pub cls_logits: Conv2d,
}

/// From a map to box offsets.
#[derive(Module, Debug)]
pub struct RegressionHead {
    /// 3×3 convolutions; arrays of one, for the path `conv.0.0` of torchvision.
    pub conv: Vec<[Conv2d; 1]>,
    /// Norms by level and convolution; empty without norms.
    pub norms: Vec<Vec<BatchNorm2d>>,
    /// To A·4 channels.
    pub bbox_reg: Conv2d,
}

impl Head {
    // maps: L × [N, C, H, W] -> [N, A, K], [N, A, 4] over all levels
    pub(crate) fn forward(&self, maps: &[Tensor<4>]) -> (Tensor<3>, Tensor<3>) {
        let mut logits = Vec::with_capacity(maps.len());
        let mut deltas = Vec::with_capacity(maps.len());
        for (level, map) in maps.iter().enumerate() {
            let head = &self.classification_head;
            let x = tower(&head.conv, head.norms.get(level), map.clone());
            logits.push(by_anchor(head.cls_logits.forward(x), self.anchors));
            let head = &self.regression_head;
            let x = tower(&head.conv, head.norms.get(level), map.clone());
            deltas.push(by_anchor(head.bbox_reg.forward(x), self.anchors));
        }
        (Tensor::cat(logits, 1), Tensor::cat(deltas, 1))
    }
}

fn tower(convs: &[[Conv2d; 1]], norms: Option<&Vec<BatchNorm2d>>, x: Tensor<4>) -> Tensor<4> {
    convs.iter().enumerate().fold(x, |x, (i, [conv])| match norms {
        Some(norms) => norms[i].forward_relu(conv.forward(x)),
        None => relu(conv.forward(x)),
    })
}

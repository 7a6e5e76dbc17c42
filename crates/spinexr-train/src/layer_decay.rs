//! Learning rates that fall towards the input: what lies deeper in a pretrained backbone is changed less.
//!
//! Source: Clark et al., "ELECTRA" (arXiv 2003.10555, layer-wise learning-rate decay), as BEiT and ConvNeXt fine-tune
//! with it. A parameter at depth d of [`DEPTHS`] has its rate times `decay^(DEPTHS - d)`.

/// Depth of everything behind the backbone: pyramid, heads, classifier.
pub const DEPTHS: u32 = 5;

/// The depth of a parameter of a ResNet or DenseNet by its name, from 0 for the stem over 1 to 4 for the stages (of a
/// DenseNet, a block with the transition after it) to [`DEPTHS`] for all that is no part of a backbone.
pub fn depth(name: &str) -> u32 {
    let parts: Vec<&str> = name.split('.').collect();
    let stage = parts.iter().find_map(|part| {
        let number = ["layer", "denseblock", "transition"].iter().find_map(|kind| part.strip_prefix(kind))?;
        number.parse::<u32>().ok().filter(|stage| (1..=4).contains(stage))
    });
    if let Some(stage) = stage {
        return stage;
    }
    let [.., layer, _] = parts[..] else { return DEPTHS };
    // The stem's layers lie at the top of the backbone, beside the stages.
    let parent = parts.len().checked_sub(3).map(|i| parts[i]);
    match (parent, layer) {
        (Some("features"), "conv0" | "norm0") | (None | Some("body"), "conv1" | "bn1") => 0,
        (Some("features"), "norm5") => 4,
        _ => DEPTHS,
    }
}

/// The factor on a parameter's learning rate.
pub fn factor(name: &str, decay: f64) -> f64 {
    decay.powi((DEPTHS - depth(name)) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::named_tensors;
    use burn::tensor::Device;
    use spinexr_models::{DenseNetConfig, RetinaNetConfig};

    #[test]
    fn depth_goes_by_stage() {
        let cases = [
            ("features.conv0.weight", 0),
            ("features.norm0.bias", 0),
            ("features.denseblock1.denselayer2.conv1.weight", 1),
            ("features.transition3.norm.weight", 3),
            ("features.denseblock4.denselayer1.norm2.weight", 4),
            ("features.norm5.weight", 4),
            ("classifier.weight", 5),
            ("backbone.body.conv1.weight", 0),
            ("conv1.weight", 0),
            ("backbone.body.bn1.weight", 0),
            ("backbone.body.layer1.0.conv1.weight", 1),
            ("backbone.body.layer4.2.bn3.bias", 4),
            ("backbone.fpn.layer_blocks.3.0.weight", 5),
            ("head.classification_head.cls_logits.weight", 5),
        ];
        for (name, expected) in cases {
            assert_eq!(depth(name), expected, "{name}");
        }
        assert_eq!(factor("features.denseblock2.denselayer1.conv1.weight", 0.5), 0.125);
    }

    #[test]
    fn every_depth_is_there_in_both_kinds_of_network() {
        let device = Device::flex();
        let dense = named_tensors(&DenseNetConfig::mini().init(&device));
        let detector = named_tensors(&RetinaNetConfig::mini().init(&device));
        for names in [dense, detector] {
            let mut depths: Vec<u32> = names.keys().map(|name| depth(name)).collect();
            depths.sort_unstable();
            depths.dedup();
            assert_eq!(depths, [0, 1, 2, 3, 4, 5]);
        }
    }
}

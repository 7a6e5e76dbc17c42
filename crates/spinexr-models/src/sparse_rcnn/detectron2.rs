//! Weights under detectron2's names, as the published Sparse R-CNN has them.

use crate::weights::StateDict;

/// Whether a state dict has detectron2's names.
pub fn has_detectron2_names(state: &StateDict) -> bool {
    state.keys().any(|name| name.starts_with("backbone.bottom_up."))
}

/// A state dict with this crate's names from one with detectron2's.
pub fn from_detectron2(state: StateDict) -> StateDict {
    state.into_iter().map(|(name, entry)| (own_name(&name), entry)).collect()
}

/// This crate's name for a tensor that detectron2 calls `name`; one it does not know stays as it is.
///
/// The backbone's names are torchvision's here: `backbone.bottom_up.res3.0.conv1.norm.weight` is
/// `backbone.body.layer2.0.bn1.weight`, `backbone.fpn_lateral2.bias` is `backbone.fpn.inner_blocks.0.0.bias`. The towers of a
/// stage, sequences of linear layer, norm and ReLU, are numbered by layer: `cls_module.1.weight` is
/// `cls_module.0.norm.weight`.
pub fn own_name(name: &str) -> String {
    let segments: Vec<&str> = name.split('.').collect();
    match segments[..] {
        ["backbone", "bottom_up", "stem", "conv1", "norm", part] => format!("backbone.body.bn1.{part}"),
        ["backbone", "bottom_up", "stem", "conv1", part] => format!("backbone.body.conv1.{part}"),
        ["backbone", "bottom_up", stage, block, layer, ref rest @ ..] => {
            own_block_name(stage, block, layer, rest).unwrap_or_else(|| name.to_owned())
        }
        ["backbone", layer, part] => own_pyramid_name(layer, part).unwrap_or_else(|| name.to_owned()),
        ["head", "head_series", stage, tower @ ("cls_module" | "reg_module"), index, part] => {
            match index.parse::<usize>() {
                Ok(index) if index % 3 < 2 => {
                    let layer = ["linear", "norm"][index % 3];
                    format!("head.head_series.{stage}.{tower}.{}.{layer}.{part}", index / 3)
                }
                _ => name.to_owned(),
            }
        }
        _ => name.to_owned(),
    }
}

fn own_block_name(stage: &str, block: &str, layer: &str, rest: &[&str]) -> Option<String> {
    let stage: usize = stage.strip_prefix("res")?.parse().ok()?;
    let block = format!("backbone.body.layer{}.{block}", stage.checked_sub(1)?);
    Some(match (layer, rest) {
        ("shortcut", ["norm", part]) => format!("{block}.downsample.1.{part}"),
        ("shortcut", [part]) => format!("{block}.downsample.0.{part}"),
        (conv, ["norm", part]) => format!("{block}.bn{}.{part}", conv.strip_prefix("conv")?),
        (conv, [part]) => format!("{block}.{conv}.{part}"),
        _ => return None,
    })
}

fn own_pyramid_name(layer: &str, part: &str) -> Option<String> {
    let (blocks, level) = match layer.strip_prefix("fpn_lateral") {
        Some(level) => ("inner_blocks", level),
        None => ("layer_blocks", layer.strip_prefix("fpn_output")?),
    };
    let level = level.parse::<usize>().ok()?.checked_sub(2)?;
    Some(format!("backbone.fpn.{blocks}.{level}.0.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind() {
        for (theirs, ours) in [
            ("backbone.bottom_up.stem.conv1.weight", "backbone.body.conv1.weight"),
            ("backbone.bottom_up.stem.conv1.norm.running_var", "backbone.body.bn1.running_var"),
            ("backbone.bottom_up.res2.0.shortcut.weight", "backbone.body.layer1.0.downsample.0.weight"),
            ("backbone.bottom_up.res2.0.shortcut.norm.bias", "backbone.body.layer1.0.downsample.1.bias"),
            ("backbone.bottom_up.res5.2.conv3.norm.weight", "backbone.body.layer4.2.bn3.weight"),
            ("backbone.bottom_up.res5.2.conv3.weight", "backbone.body.layer4.2.conv3.weight"),
            ("backbone.fpn_lateral2.bias", "backbone.fpn.inner_blocks.0.0.bias"),
            ("backbone.fpn_output5.weight", "backbone.fpn.layer_blocks.3.0.weight"),
            ("head.head_series.5.reg_module.7.bias", "head.head_series.5.reg_module.2.norm.bias"),
            ("head.head_series.0.cls_module.0.weight", "head.head_series.0.cls_module.0.linear.weight"),
            ("head.head_series.0.linear1.weight", "head.head_series.0.linear1.weight"),
            ("backbone.bottom_up.res1.0", "backbone.bottom_up.res1.0"),
            ("backbone.fpn_lateral1.weight", "backbone.fpn_lateral1.weight"),
        ] {
            assert_eq!(own_name(theirs), ours);
        }
    }
}

//! The names that other programs give to the same weights.
//!
//! Module paths of this crate are those of the reference implementations, so most names agree. What differs is
//! brought to ours name by name: [`Source::candidates`] lists what a name could be here, and the network's own
//! names decide.
//!
//! | source | networks | what differs |
//! |---|---|---|
//! | torchvision | DenseNet, ResNet, RetinaNet, Faster R-CNN | `norm.1` for `norm1` in files of 2017; no `.0` in heads and pyramids of files before 0.13; a backbone alone has no prefix |
//! | timm | DenseNet, ResNet | a backbone alone has no prefix |
//! | detectron2 | ResNet and pyramid | `stem`, `res2`…`res5`, `shortcut`, `norm`; `bottom_up` for `body` |
//! | effdet | EfficientDet | `model.` before everything when saved with its loss |

use serde::{Deserialize, Serialize};

use super::StateDict;
use crate::normalisation::Normalisation;

/// The program that wrote a file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// torchvision, of any version, and this program's own names.
    #[default]
    Torchvision,
    /// timm.
    Timm,
    /// detectron2: its converted ImageNet backbones (`R-50.pkl`) and checkpoints.
    Detectron2,
    /// effdet.
    Effdet,
}

/// A name that is not one of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown source {0:?}, expected one of torchvision, timm, detectron2, effdet")]
pub struct UnknownSource(String);

impl std::str::FromStr for Source {
    type Err = UnknownSource;

    fn from_str(word: &str) -> Result<Self, UnknownSource> {
        Self::ALL.into_iter().find(|s| s.name() == word).ok_or_else(|| UnknownSource(word.to_owned()))
    }
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Torchvision, Self::Timm, Self::Detectron2, Self::Effdet];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Detectron2 => "detectron2",
            Self::Effdet => "effdet",
        }
    }

    /// What the source's weights expect of an image: ImageNet's mean and deviation of red, green, blue in units of
    /// 0 to 1; for detectron2 its default, blue, green, red with the mean alone taken off in units of 0 to 255. A
    /// network of one channel, which none of them publishes, takes [`Normalisation::film`].
    pub fn normalisation(self, in_channels: usize) -> Normalisation {
        match (self, in_channels) {
            (Self::Detectron2, 3) => Normalisation {
                mean: [103.53f32, 116.28, 123.675].map(|mean| mean / 255.0).to_vec(),
                std: vec![1.0 / 255.0; 3],
            },
            (_, 3) => Normalisation::imagenet(),
            (_, channels) => {
                let film = Normalisation::film();
                Normalisation { mean: film.mean.repeat(channels), std: film.std.repeat(channels) }
            }
        }
    }

    /// What a tensor of this name may be called here, likeliest first. `finest_level`: the finest map that the file's
    /// pyramid takes, see [`Source::finest_level`].
    pub fn candidates(self, name: &str, finest_level: usize) -> Vec<String> {
        let spelled = match self {
            Self::Torchvision | Self::Timm => vec![name.to_owned(), dense_layer(name), nested(name)],
            Self::Detectron2 => {
                vec![name.to_owned(), pyramid(&residual(&sparse_rcnn_head(name)), finest_level)]
            }
            Self::Effdet => vec![name.to_owned()],
        };
        // A backbone saved alone, for a detector that holds it under one of these.
        const PREFIXES: [&str; 4] = ["", "backbone.body.", "backbone.bottom_up.", "backbone."];
        PREFIXES.iter().flat_map(|prefix| spelled.iter().map(move |name| format!("{prefix}{name}"))).collect()
    }

    /// The finest map of the backbone that the pyramid in a file takes, 2 for C2: detectron2 numbers its layers by
    /// it, others from 0.
    pub fn finest_level<'a>(self, names: impl Iterator<Item = &'a str>) -> usize {
        let level = |name: &str| name.strip_prefix("backbone.fpn_lateral")?.split_once('.')?.0.parse().ok();
        names.filter_map(level).min().unwrap_or(2)
    }

    /// Whether a tensor that has no place here may be passed over: constants that the network has in its
    /// configuration, and the classifier of an image network that now is a backbone.
    pub(super) fn is_spare(self, name: &str, is_backbone: bool) -> bool {
        let constant = match self {
            Self::Detectron2 => {
                name.starts_with("pixel_")
                    || name.starts_with("anchor_generator.")
                    || name.starts_with("proposal_generator.anchor_generator.")
            }
            Self::Effdet => name == "anchors.boxes",
            Self::Torchvision | Self::Timm => false,
        };
        constant || (is_backbone && ["fc.", "stem.fc.", "classifier."].iter().any(|c| name.starts_with(c)))
    }
}

/// Prefixes of wrappers: data parallel, compiled, a training program's own module.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// The state without a prefix that every one of its names has.
pub fn unwrapped(mut state: StateDict) -> StateDict {
    while let Some(prefix) = WRAPPERS
        .iter()
        .find(|prefix| !state.is_empty() && state.keys().all(|name| name.starts_with(**prefix)))
    {
        state = state.into_iter().map(|(name, entry)| (name[prefix.len()..].to_owned(), entry)).collect();
    }
    state
}

/// `denselayer1.norm.1.weight`, as torchvision's files of 2017 have it, is `denselayer1.norm1.weight`.
fn dense_layer(name: &str) -> String {
    let Some((before, after)) = name.split_once(".denselayer") else { return name.to_owned() };
    let mut after = after.to_owned();
    for part in ["norm", "conv"] {
        for number in ["1", "2"] {
            after = after.replace(&format!(".{part}.{number}."), &format!(".{part}{number}."));
        }
    }
    format!("{before}.denselayer{after}")
}

/// Heads and pyramids before torchvision 0.13: `conv.4.weight`, the third of convolutions with a ReLU between them,
/// is `conv.2.0.weight`; `inner_blocks.1.weight` is `inner_blocks.1.0.weight`; `rpn.head.conv.weight` is
/// `rpn.head.conv.0.0.weight`.
fn nested(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [.., "rpn", "head", "conv", last] => format!("rpn.head.conv.0.0.{last}"),
        [ref before @ .., "conv", index, last] if before.last().is_some_and(|p| p.ends_with("_head")) => {
            match index.parse::<usize>() {
                Ok(index) if index % 2 == 0 => format!("{}.conv.{}.0.{last}", before.join("."), index / 2),
                _ => name.to_owned(),
            }
        }
        [ref before @ .., blocks @ ("inner_blocks" | "layer_blocks"), index, last] => {
            format!("{}.{blocks}.{index}.0.{last}", before.join("."))
        }
        _ => name.to_owned(),
    }
}

/// detectron2's residual network: `res2.0.conv1.norm.weight` is `layer1.0.bn1.weight`.
fn residual(name: &str) -> String {
    let (prefix, rest) = match name.strip_prefix("backbone.bottom_up.") {
        Some(rest) => ("backbone.body.", rest),
        None => ("", name),
    };
    let mut parts: Vec<String> = rest.split('.').map(str::to_owned).collect();
    match parts[0].as_str() {
        "stem" => drop(parts.remove(0)),
        stage => match stage.strip_prefix("res").and_then(|n| n.parse::<usize>().ok()) {
            Some(stage @ 2..=5) => parts[0] = format!("layer{}", stage - 1),
            _ => return name.to_owned(),
        },
    }
    if let Some(at) = parts.iter().position(|p| p == "shortcut") {
        parts[at] = "downsample".to_owned();
        match parts.get(at + 1).map(String::as_str) {
            Some("norm") => parts[at + 1] = "1".to_owned(),
            _ => parts.insert(at + 1, "0".to_owned()),
        }
    }
    if let Some(at) = parts.iter().position(|p| p == "norm").filter(|at| *at > 0) {
        let number = parts[at - 1].trim_start_matches("conv").to_owned();
        parts[at - 1] = format!("bn{number}");
        parts.remove(at);
    }
    format!("{prefix}{}", parts.join("."))
}

/// detectron2's pyramid: `backbone.fpn_lateral3` is the 1×1 convolution of C3, `fpn_output3` the 3×3 one of P3; ours
/// are counted from the finest.
fn pyramid(name: &str, finest_level: usize) -> String {
    for (theirs, ours) in [("backbone.fpn_lateral", "inner_blocks"), ("backbone.fpn_output", "layer_blocks")]
    {
        let Some((level, last)) = name.strip_prefix(theirs).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if let Some(index) = level.parse::<usize>().ok().and_then(|level| level.checked_sub(finest_level)) {
            return format!("backbone.fpn.{ours}.{index}.0.{last}");
        }
    }
    name.to_owned()
}

/// The towers of Sparse R-CNN, see [`crate::sparse_rcnn::detectron2::own_name`].
fn sparse_rcnn_head(name: &str) -> String {
    match name.starts_with("head.head_series.") {
        true => crate::sparse_rcnn::detectron2::own_name(name),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Entry;

    fn has(source: Source, theirs: &str, ours: &str) {
        let candidates = source.candidates(theirs, 3);
        assert!(candidates.iter().any(|c| c == ours), "{theirs} → {candidates:?}, expected {ours}");
    }

    #[test]
    fn names_of_every_source() {
        use Source::{Detectron2, Effdet, Timm, Torchvision};
        for (source, theirs, ours) in [
            (
                Torchvision,
                "features.denseblock1.denselayer1.norm.1.weight",
                "features.denseblock1.denselayer1.norm1.weight",
            ),
            (
                Torchvision,
                "features.denseblock4.denselayer16.conv.2.weight",
                "features.denseblock4.denselayer16.conv2.weight",
            ),
            (Torchvision, "layer1.0.bn1.weight", "backbone.body.layer1.0.bn1.weight"),
            (Torchvision, "backbone.fpn.inner_blocks.2.bias", "backbone.fpn.inner_blocks.2.0.bias"),
            (Torchvision, "head.regression_head.conv.6.weight", "head.regression_head.conv.3.0.weight"),
            (Torchvision, "rpn.head.conv.bias", "rpn.head.conv.0.0.bias"),
            (Timm, "features.norm5.bias", "features.norm5.bias"),
            (Detectron2, "stem.conv1.weight", "backbone.body.conv1.weight"),
            (Detectron2, "stem.conv1.norm.running_var", "backbone.body.bn1.running_var"),
            (Detectron2, "res2.0.shortcut.weight", "backbone.body.layer1.0.downsample.0.weight"),
            (Detectron2, "res5.2.conv3.norm.bias", "backbone.body.layer4.2.bn3.bias"),
            (
                Detectron2,
                "backbone.bottom_up.res2.0.shortcut.norm.weight",
                "backbone.body.layer1.0.downsample.1.weight",
            ),
            (Detectron2, "backbone.bottom_up.res3.1.conv2.weight", "backbone.bottom_up.res3.1.conv2.weight"),
            (Detectron2, "backbone.fpn_lateral3.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            (Detectron2, "backbone.fpn_output5.bias", "backbone.fpn.layer_blocks.2.0.bias"),
            (Detectron2, "head.head_series.5.reg_module.7.bias", "head.head_series.5.reg_module.2.norm.bias"),
            (Effdet, "fpn.cell.0.fnode.0.combine.edge_weights", "fpn.cell.0.fnode.0.combine.edge_weights"),
        ] {
            has(source, theirs, ours);
        }
    }

    #[test]
    fn detectron2_counts_a_pyramid_by_its_finest_map() {
        let names = ["backbone.fpn_lateral2.weight", "backbone.fpn_lateral5.weight", "stem.conv1.weight"];
        assert_eq!(Source::Detectron2.finest_level(names.into_iter()), 2);
        let of = |finest| Source::Detectron2.candidates("backbone.fpn_lateral5.bias", finest);
        assert!(of(2).contains(&"backbone.fpn.inner_blocks.3.0.bias".to_owned()));
        assert!(of(3).contains(&"backbone.fpn.inner_blocks.2.0.bias".to_owned()));
    }

    #[test]
    fn a_prefix_goes_only_when_every_name_has_it() {
        let entry = || Entry { shape: vec![1], values: vec![1.0] };
        let state =
            |names: &[&str]| -> StateDict { names.iter().map(|n| ((*n).to_owned(), entry())).collect() };
        let names = |state: StateDict| state.into_keys().collect::<Vec<_>>();
        assert_eq!(names(unwrapped(state(&["module.model.a", "module.model.b"]))), ["a", "b"]);
        assert_eq!(names(unwrapped(state(&["model.a", "b"]))), ["b", "model.a"]);
        assert!(unwrapped(state(&[])).is_empty());
    }

    #[test]
    fn detectron2_takes_blue_first() {
        let normalisation = Source::Detectron2.normalisation(3);
        assert!(
            (normalisation.mean[0] - 0.406).abs() < 1e-6 && (normalisation.std[0] * 255.0 - 1.0).abs() < 1e-6
        );
        assert_eq!(Source::Timm.normalisation(3), Normalisation::imagenet());
        assert_eq!(Source::Torchvision.normalisation(1), Normalisation::film());
    }
}

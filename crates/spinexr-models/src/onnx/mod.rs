//! Networks as ONNX files, from their measures and a state dict.
//!
//! Weights keep their state-dict names. The input is `images`, `[N, C, H, W]`, normalised, of any batch size, height
//! and width; the caller's `metadata` goes into the file's properties. A classifier has the output `logits`, `[N, K]`.
//! RetinaNet has `class_logits`, `[N, A, K]`, and `box_deltas`, `[N, A, 4]`, in the order of
//! [`crate::anchors::AnchorConfig::generate`]; like the module, it pads its input to a multiple of 32.
//!
//! Each function follows the module's `forward` line by line; tests hold both to the same outputs.

mod graph;
mod proto;

use std::collections::BTreeMap;

use graph::{Graph, Value};
use proto::Dimension;

use crate::densenet::{DenseNetConfig, Pooling};
use crate::fpn::ExtraLevels;
use crate::resnet::{BlockKind, ResNetConfig, Stem};
use crate::retinanet::{HeadNorm, RetinaNetConfig, SIZE_DIVISOR};
use crate::weights::StateDict;

/// Why a network cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The state dict lacks a tensor, or has it in another number of dimensions.
    #[error("tensor {name:?} is missing or not of the network's form")]
    Missing {
        /// Its name.
        name: String,
    },
}

/// The `eps` of every batch norm of these networks, `torch.nn.BatchNorm2d`'s.
const EPS: f32 = 1e-5;

const IMAGES: &str = "images";

fn images(in_channels: usize) -> [Dimension<'static>; 4] {
    [
        Dimension::Any("batch"),
        Dimension::Fixed(in_channels),
        Dimension::Any("height"),
        Dimension::Any("width"),
    ]
}

/// A DenseNet as the bytes of an ONNX file.
///
/// # Errors
/// [`OnnxError::Missing`] when `state` is not of this network.
pub fn densenet(
    config: &DenseNetConfig,
    state: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, OnnxError> {
    let mut g = Graph::new(state, EPS);
    let x = g.conv(&g.input(IMAGES), "features.conv0", 2, 3)?;
    let x = g.norm_relu(&x, "features.norm0")?;
    let mut x = g.max_pool(&x, 3, 2, 1);
    for (block, layers) in (1..).zip(config.block_config) {
        for layer in 1..=layers {
            let prefix = format!("features.denseblock{block}.denselayer{layer}");
            let y = g.norm_relu(&x, &format!("{prefix}.norm1"))?;
            let y = g.conv(&y, &format!("{prefix}.conv1"), 1, 0)?;
            let y = g.norm_relu(&y, &format!("{prefix}.norm2"))?;
            let new = g.conv(&y, &format!("{prefix}.conv2"), 1, 1)?;
            x = g.concat(&[&x, &new], 1);
        }
        if block < config.block_config.len() {
            let prefix = format!("features.transition{block}");
            let y = g.norm_relu(&x, &format!("{prefix}.norm"))?;
            let y = g.conv(&y, &format!("{prefix}.conv"), 1, 0)?;
            x = g.average_pool(&y, 2, 2);
        }
    }
    let mut x = g.norm(&x, "features.norm5")?;
    if config.final_relu {
        x = g.relu(&x);
    }
    let mut pooled = g.node("GlobalAveragePool", &[&x], &[]);
    if config.pooling == Pooling::AverageAndMax {
        let highest = g.node("GlobalMaxPool", &[&x], &[]);
        pooled = g.concat(&[&pooled, &highest], 1);
    }
    let flat = g.node("Flatten", &[&pooled], &[]);
    let (weight, bias) = (g.weight("classifier.weight")?, g.weight("classifier.bias")?);
    let logits = g.node("Gemm", &[&flat, &weight, &bias], &[("transB", proto::Attribute::Int(1))]);
    g.output("logits", &logits);
    Ok(g.into_model(
        "densenet",
        &[(IMAGES, &images(config.in_channels))],
        &[("logits", &[Dimension::Any("batch"), Dimension::Fixed(config.num_classes)])],
        metadata,
    ))
}

/// A RetinaNet as the bytes of an ONNX file.
///
/// # Errors
/// [`OnnxError::Missing`] when `state` is not of this network.
pub fn retinanet(
    config: &RetinaNetConfig,
    state: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, OnnxError> {
    let mut g = Graph::new(state, EPS);
    let x = g.pad_to_multiple(&g.input(IMAGES), SIZE_DIVISOR as i64);
    let maps = residual_maps(&mut g, &config.backbone, &x)?;
    let maps = pyramid(&mut g, &maps[config.finest_level - 2..], config.extra_levels)?;
    let (mut logits, mut deltas) = (Vec::new(), Vec::new());
    for (level, map) in maps.iter().enumerate() {
        let (prefix, norm) = ("head.classification_head", config.head_norm);
        let x = tower(&mut g, prefix, config.head_convs, norm, level, map)?;
        let x = g.conv(&x, &format!("{prefix}.cls_logits"), 1, 1)?;
        logits.push(g.by_place(&x, config.num_classes as i64));
        let prefix = "head.regression_head";
        let x = tower(&mut g, prefix, config.head_convs, norm, level, map)?;
        let x = g.conv(&x, &format!("{prefix}.bbox_reg"), 1, 1)?;
        deltas.push(g.by_place(&x, 4));
    }
    for (name, levels) in [("class_logits", &logits), ("box_deltas", &deltas)] {
        let all = g.concat(&levels.iter().collect::<Vec<_>>(), 1);
        g.output(name, &all);
    }
    let output = |last| [Dimension::Any("batch"), Dimension::Any("anchors"), Dimension::Fixed(last)];
    Ok(g.into_model(
        "retinanet",
        &[(IMAGES, &images(config.backbone.in_channels))],
        &[("class_logits", &output(config.num_classes)), ("box_deltas", &output(4))],
        metadata,
    ))
}

/// C2 to C5.
fn residual_maps(g: &mut Graph<'_>, config: &ResNetConfig, x: &Value) -> Result<Vec<Value>, OnnxError> {
    let body = "backbone.body";
    let padding = match config.stem {
        Stem::Conv7 => 3,
        Stem::Conv3 => 1,
    };
    let x = g.conv(x, &format!("{body}.conv1"), 2, padding)?;
    let x = g.norm_relu(&x, &format!("{body}.bn1"))?;
    let mut x = g.max_pool(&x, 3, 2, 1);
    let mut maps = Vec::with_capacity(4);
    let mut channels = config.widths[0];
    for (index, (layers, width)) in config.layers.into_iter().zip(config.widths).enumerate() {
        let out_channels = config.block.out_channels(width);
        for block in 0..layers {
            let stride = if index > 0 && block == 0 { 2 } else { 1 };
            let prefix = format!("{body}.layer{}.{block}", index + 1);
            let at = |part: &str| format!("{prefix}.{part}");
            let y = match config.block {
                BlockKind::Basic => {
                    let y = g.conv(&x, &at("conv1"), stride, 1)?;
                    let y = g.norm_relu(&y, &at("bn1"))?;
                    let y = g.conv(&y, &at("conv2"), 1, 1)?;
                    g.norm(&y, &at("bn2"))?
                }
                BlockKind::Bottleneck => {
                    let y = g.conv(&x, &at("conv1"), 1, 0)?;
                    let y = g.norm_relu(&y, &at("bn1"))?;
                    let y = g.conv(&y, &at("conv2"), stride, 1)?;
                    let y = g.norm_relu(&y, &at("bn2"))?;
                    let y = g.conv(&y, &at("conv3"), 1, 0)?;
                    g.norm(&y, &at("bn3"))?
                }
            };
            let short_cut = if stride != 1 || channels != out_channels {
                let z = g.conv(&x, &at("downsample.0"), stride, 0)?;
                g.norm(&z, &at("downsample.1"))?
            } else {
                x
            };
            let sum = g.node("Add", &[&y, &short_cut], &[]);
            x = g.relu(&sum);
            channels = out_channels;
        }
        maps.push(x.clone());
    }
    Ok(maps)
}

/// The maps of the pyramid, finest first, over `maps`, finest first.
fn pyramid(g: &mut Graph<'_>, maps: &[Value], extra: ExtraLevels) -> Result<Vec<Value>, OnnxError> {
    let fpn = "backbone.fpn";
    let mut outputs = Vec::new();
    let mut above: Option<Value> = None;
    for (index, map) in maps.iter().enumerate().rev() {
        let mut merged = g.conv(map, &format!("{fpn}.inner_blocks.{index}.0"), 1, 0)?;
        if let Some(above) = above {
            let larger = g.upsample_nearest(&above, &merged);
            merged = g.node("Add", &[&merged, &larger], &[]);
        }
        outputs.push(g.conv(&merged, &format!("{fpn}.layer_blocks.{index}.0"), 1, 1)?);
        above = Some(merged);
    }
    outputs.reverse();
    let p5 = outputs.last().expect("a pyramid has at least one map").clone();
    match extra {
        ExtraLevels::None => {}
        ExtraLevels::MaxPool => outputs.push(g.max_pool(&p5, 1, 2, 0)),
        ExtraLevels::P6P7OnP5 | ExtraLevels::P6P7OnC5 => {
            let c5 = maps.last().expect("a pyramid has at least one map");
            let from = if extra == ExtraLevels::P6P7OnC5 { c5 } else { &p5 };
            let p6 = g.conv(from, &format!("{fpn}.extra_blocks.p6"), 2, 1)?;
            let active = g.relu(&p6);
            let p7 = g.conv(&active, &format!("{fpn}.extra_blocks.p7"), 2, 1)?;
            outputs.extend([p6, p7]);
        }
    }
    Ok(outputs)
}

fn tower(
    g: &mut Graph<'_>,
    prefix: &str,
    convs: usize,
    norm: HeadNorm,
    level: usize,
    map: &Value,
) -> Result<Value, OnnxError> {
    let mut x = map.clone();
    for i in 0..convs {
        let y = g.conv(&x, &format!("{prefix}.conv.{i}.0"), 1, 1)?;
        x = match norm {
            HeadNorm::None => g.relu(&y),
            HeadNorm::BatchPerLevel => g.norm_relu(&y, &format!("{prefix}.norms.{level}.{i}"))?,
        };
    }
    Ok(x)
}

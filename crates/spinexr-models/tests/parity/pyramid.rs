//! The feature pyramid on odd map sizes.

use burn::tensor::{Device, Tensor};
use spinexr_models::fpn::{ExtraLevels, FpnConfig};
use spinexr_models::weights::{Strictness, load_state_dict};

use crate::case::Case;

#[test]
fn fpn() {
    let case = Case::open("fpn");
    let device = Device::flex();
    let all = [("c2", 32), ("c3", 64), ("c4", 128), ("c5", 256)];
    for (variant, first, extra, names) in [
        ("p6p7_on_p5", 1, ExtraLevels::P6P7OnP5, vec!["c3", "c4", "c5", "p6", "p7"]),
        ("p6p7_on_c5", 1, ExtraLevels::P6P7OnC5, vec!["c3", "c4", "c5", "p6", "p7"]),
        ("maxpool", 0, ExtraLevels::MaxPool, vec!["c2", "c3", "c4", "c5", "pool"]),
    ] {
        let levels = &all[first..];
        let config = FpnConfig { in_channels: levels.iter().map(|l| l.1).collect(), out_channels: 48, extra };
        let state = case.state(&format!("/state/{variant}"));
        let model = load_state_dict(config.init_seeded(0, &device), &state, Strictness::Exact).unwrap();
        let maps: Vec<Tensor<4>> =
            levels.iter().map(|l| case.input(&format!("input_{}", l.0), &device)).collect();
        let outputs = model.forward(maps);
        assert_eq!(outputs.len(), names.len());
        assert_eq!(outputs.len(), config.levels());
        for (name, output) in names.iter().zip(&outputs) {
            case.check(&format!("{variant}/{name}"), output);
        }
    }
}

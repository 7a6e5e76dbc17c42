//! EfficientDet: a box's logit is read from the map of its anchor's level behind the last BiFPN cell by the class net.

use burn::tensor::Tensor;

use super::{Contributions, EvidenceMap, ExplainBoxes, READ_FROM, explain_each, size_of_one};
use crate::detector::{DetectConfig, NotFinite, RawDetection};
use crate::efficientdet::{EfficientDet, EfficientDetOutput};

impl ExplainBoxes for EfficientDet {
    fn box_evidence(
        &self,
        image: Tensor<4>,
        content_px: (f32, f32),
        config: &DetectConfig,
        most: usize,
    ) -> Result<Vec<(RawDetection, EvidenceMap)>, NotFinite> {
        let image = self.padded_input(image);
        let size = size_of_one(&image);
        let maps = self.pyramid(image);
        let output = self.of_maps(&maps, size);
        let output = EfficientDetOutput {
            class_logits: output.class_logits.inner(),
            box_offsets: output.box_offsets.inner(),
            ..output
        };
        let found = output.detect(&[content_px], config).pop().expect("one image, one list")?;
        Ok(explain_each(found, most, size, |detection| {
            let anchor = output.anchor_of(detection, content_px).expect(READ_FROM);
            let (level, place) = output.anchors.level_of(anchor);
            Contributions::of_one(&maps[level], |map| {
                let logits = self.class_logits(level, map); // [1, A of the level, K]
                logits.narrow(1, place, 1).narrow(2, detection.class, 1).sum()
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::numeric::{LOW, check_places, explained, first, noise};
    use super::*;
    use crate::EfficientDetConfig;
    use crate::weights::{Strictness, load_state_dict, state_dict};

    #[test]
    fn box_evidence_is_what_each_place_adds_to_the_logit() {
        // Drawn weights bring hardly anything through the pyramid: the class net's last layer makes more of it, the norms
        // of the coarser levels other things than the finest's.
        let config = EfficientDetConfig::mini();
        let mut state = state_dict(&config.init_seeded(3, &Device::flex()));
        for (name, factor) in [("predict.conv_pw", 1000.0), ("bn_rep.0.1.bn", 10.0), ("bn_rep.0.2.bn", 30.0)]
        {
            let weights = state.get_mut(&format!("class_net.{name}.weight")).unwrap();
            weights.values.iter_mut().for_each(|value| *value *= factor);
        }
        let init = |device: &Device| load_state_dict(config.init(device), &state, Strictness::Exact).unwrap();
        let (size, content) = ([96, 64], (96.0, 60.0));
        let all = DetectConfig { top_k_per_level: 10_000, max_detections: 500, nms_iou: 0.3, ..LOW };
        let explained = explained(init, size, content, &all, 500);
        let plain = init(&Device::flex());
        let output = plain.forward(noise(size, &Device::flex()));
        let maps = plain.pyramid(noise(size, &Device::flex()));
        let mut speaking = [0; 3];
        for (detection, evidence) in explained {
            let anchor = output.anchor_of(&detection, content).unwrap();
            let (level, place) = output.anchors.level_of(anchor);
            if speaking[level] > 0 {
                continue;
            }
            assert_eq!(evidence.covers_px, (96.0, 64.0));
            let logit = |maps: &[Tensor<4>]| {
                let logits = plain.class_logits(level, maps[level].clone());
                first(logits.narrow(1, place, 1).narrow(2, detection.class, 1))
            };
            speaking[level] += check_places(&detection, &evidence, &maps, level, &logit);
        }
        assert!(speaking[..2].iter().all(|places| *places > 1), "places that speak, by map: {speaking:?}");
    }
}

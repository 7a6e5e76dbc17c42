//! RetinaNet: a box's logit is read from the map of its anchor's level by the class head.

use burn::tensor::Tensor;

use super::{Contributions, EvidenceMap, ExplainBoxes, READ_FROM, explain_each, size_of_one};
use crate::detector::{DetectConfig, NotFinite, RawDetection};
use crate::retinanet::{RetinaNet, RetinaNetOutput, padded_input};

impl ExplainBoxes for RetinaNet {
    fn box_evidence(
        &self,
        image: Tensor<4>,
        content_px: (f32, f32),
        config: &DetectConfig,
        most: usize,
    ) -> Result<Vec<(RawDetection, EvidenceMap)>, NotFinite> {
        let image = padded_input(image);
        let size = size_of_one(&image);
        let maps = self.pyramid(image);
        let output = self.of_maps(&maps, size);
        let output = RetinaNetOutput {
            class_logits: output.class_logits.inner(),
            box_deltas: output.box_deltas.inner(),
            ..output
        };
        let found = output.detect(&[content_px], config).pop().expect("one image, one list")?;
        Ok(explain_each(found, most, size, |detection| {
            let anchor = output.anchor_of(detection, content_px).expect(READ_FROM);
            let (level, place) = output.anchors.level_of(anchor);
            Contributions::of_one(&maps[level], |map| {
                let logits = self.head.class_logits(level, map); // [1, A of the level, K]
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
    use crate::RetinaNetConfig;

    #[test]
    fn box_evidence_is_what_each_place_adds_to_the_logit() {
        let init = |device: &Device| RetinaNetConfig::mini().init_seeded(3, device);
        let (size, content) = ([96, 64], (96.0, 60.0));
        let explained = explained(init, size, content, &LOW, 4);
        assert_eq!(explained.len(), 4);
        let plain = init(&Device::flex());
        let output = plain.forward(noise(size, &Device::flex()));
        let maps = plain.pyramid(noise(size, &Device::flex()));
        let mut speaking = 0;
        for (detection, evidence) in explained {
            let anchor = output.anchor_of(&detection, content).unwrap();
            let (level, place) = output.anchors.level_of(anchor);
            assert_eq!(evidence.covers_px, (96.0, 64.0));
            let logit = |maps: &[Tensor<4>]| {
                let logits = plain.head.class_logits(level, maps[level].clone());
                first(logits.narrow(1, place, 1).narrow(2, detection.class, 1))
            };
            speaking += check_places(&detection, &evidence, &maps, level, &logit);
        }
        assert!(speaking > 4, "{speaking} places speak for their boxes");
    }
}

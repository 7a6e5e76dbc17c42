//! Faster R-CNN: a box's logit is read from the pooled features of its proposal, which come from one map.
//!
//! Proposals are held fixed, as in training: the map says what spoke for the class of what lies in the proposal, not
//! why the first stage proposed it.
//!
//! Explained is the class against all else, `ln(p / (1 - p))` of the softmax: [`RawDetection::logit`], whose sigmoid is
//! the score. A softmax knows its logits only up to a number added to all of them, so a single one may rise where the
//! score does not; and what speaks against the background or another class speaks for the box.

use burn::tensor::Tensor;

use super::{Contributions, EvidenceMap, ExplainBoxes, READ_FROM, explain_each, size_of_one};
use crate::detector::{DetectConfig, NotFinite, RawDetection};
use crate::faster_rcnn::FasterRcnn;
use crate::faster_rcnn::detect::detect;
use crate::retinanet::padded_input;

impl ExplainBoxes for FasterRcnn {
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
        let output = self.of_maps(&maps, size, &[content_px], config).pop();
        let output = output.expect("one image, one output")?;
        let found = detect(vec![Ok(output.clone())], &[content_px], config).pop();
        let found = found.expect("one image, one list")?;
        Ok(explain_each(found, most, size, |detection| {
            let proposal = output.proposal_of(detection, content_px).expect(READ_FROM);
            self.contributions(&maps, output.proposals[proposal].xyxy.into(), detection.class)
        }))
    }
}

impl FasterRcnn {
    /// What each place of the map that a proposal is pooled from adds to the logit of a class.
    fn contributions(&self, maps: &[Tensor<4>], proposal: [f32; 4], class: usize) -> Contributions {
        let level = self.pooled_level(proposal);
        Contributions::of_one(&maps[level], |map| {
            let mut maps = maps.to_vec();
            maps[level] = map;
            let rois = self.roi_heads.forward(self.pool(&maps, &[vec![proposal]]));
            against_the_others(rois.class_logits, 1 + class)
        })
    }
}

/// The logit of one class less `ln Σ exp` of the others', of one box: `[1, 1 + K]` -> `[1]`.
fn against_the_others(logits: Tensor<2>, class: usize) -> Tensor<1> {
    let [_, outputs] = logits.dims();
    let mut others = vec![];
    if class > 0 {
        others.push(logits.clone().narrow(1, 0, class));
    }
    if class + 1 < outputs {
        others.push(logits.clone().narrow(1, class + 1, outputs - class - 1));
    }
    let others = Tensor::cat(others, 1); // [1, K]
    let highest = others.clone().detach().max_dim(1); // [1, 1]
    let of_others = (others - highest.clone()).exp().sum_dim(1).log() + highest;
    (logits.narrow(1, class, 1) - of_others).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::super::numeric::{LOW, check_places, explained, first, noise};
    use super::*;
    use crate::FasterRcnnConfig;
    use crate::faster_rcnn::RoiConfig;

    /// With P2, so that proposals of 112 px are pooled from another map than smaller ones.
    fn config() -> FasterRcnnConfig {
        let mut config = FasterRcnnConfig::mini();
        config.finest_level = 2;
        config.rpn.anchors.sizes_px = [18.0, 40.0, 80.0, 150.0].map(|side| vec![side]).into();
        config.roi = RoiConfig { pooled_levels: 4, ..config.roi };
        config
    }

    #[test]
    fn box_evidence_is_what_each_place_adds_to_the_logit() {
        let init = |device: &Device| config().init_seeded(3, device);
        let (size, content) = ([160, 128], (160.0, 120.0));
        let detect = DetectConfig { max_detections: 100, ..LOW };
        let explained = explained(init, size, content, &detect, 100);
        let plain = init(&Device::flex());
        let image = noise(size, &Device::flex());
        let output = plain.forward(image.clone(), &[content], &detect).pop().unwrap().unwrap();
        let maps = plain.pyramid(image);
        let mut speaking = [0; 4];
        for (detection, evidence) in explained {
            let proposal = output.proposals[output.proposal_of(&detection, content).unwrap()].xyxy.into();
            let level = plain.pooled_level(proposal);
            if speaking[level] > 0 {
                continue;
            }
            assert_eq!(evidence.covers_px, (160.0, 128.0));
            let logit = |maps: &[Tensor<4>]| {
                let rois = plain.roi_heads.forward(plain.pool(maps, &[vec![proposal]]));
                let p = f64::from(first(burn::tensor::activation::softmax(rois.class_logits, 1).narrow(
                    1,
                    1 + detection.class,
                    1,
                )));
                (p / (1.0 - p)).ln() as f32
            };
            speaking[level] += check_places(&detection, &evidence, &maps, level, &logit);
        }
        assert!(speaking[..2].iter().all(|places| *places > 1), "places that speak, by map: {speaking:?}");
    }

    #[test]
    fn the_logit_is_the_detections() {
        let logits = [0.5f32, -1.0, 40.0, 2.0];
        for class in 0..4 {
            let tensor = Tensor::from_data(TensorData::new(logits.to_vec(), [1, 4]), &Device::flex());
            let others = logits.iter().enumerate().filter(|(i, _)| *i != class);
            let others: f64 = others.map(|(_, z)| f64::from(*z).exp()).sum();
            let expected = f64::from(logits[class]) - others.ln();
            let logit = first(against_the_others(tensor, class));
            assert!((f64::from(logit) - expected).abs() < 1e-5, "{class}: {logit} for {expected}");
        }
    }
}

//! Sparse R-CNN: a box's logit is the last stage's, which every stage has a part in.
//!
//! The gradient goes through all stages, by the proposals' features, and so reaches what each stage pooled, for the
//! box's own proposal and for those that it looked at: the last stage alone would leave out what its features hold from
//! the stages before. The boxes that each stage pools at are held fixed, as in training.
//!
//! Proposals are pooled from the map that suits their size, so several maps have a part. They are brought onto the grid
//! of the finest: a place of a coarser one gives equal shares to the finest places under it, and the sum over places
//! stays what they add to the logit. Layer norms cancel most of a factor that all features of a place share, so
//! values are small beside what the logit loses when the place is blotted out; their order tells.

use burn::tensor::Tensor;

use super::{Contributions, EvidenceMap, ExplainBoxes, READ_FROM, explain_each, size_of_one};
use crate::detector::{DetectConfig, NotFinite, RawDetection};
use crate::retinanet::padded_input;
use crate::sparse_rcnn::SparseRcnn;

impl ExplainBoxes for SparseRcnn {
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
        let output = self.refine(&maps, &[content_px]);
        let found = output.detect(config).pop().expect("one image, one list")?;
        Ok(explain_each(found, most, size, |detection| {
            let proposal = output.proposal_of(detection).expect(READ_FROM);
            on_finest(&self.contributions(&maps, content_px, proposal, detection.class))
        }))
    }
}

impl SparseRcnn {
    /// What each place of each map adds to the last stage's logit of a proposal and class.
    fn contributions(
        &self,
        maps: &[Tensor<4>],
        content_px: (f32, f32),
        proposal: usize,
        class: usize,
    ) -> Vec<Contributions> {
        Contributions::of(maps, |maps| {
            // Boxes are detached between stages.
            let last = self.refine(maps, &[content_px]).stages.pop().expect("a Sparse R-CNN has a stage");
            last.class_logits.narrow(1, proposal, 1).narrow(2, class, 1).sum()
        })
    }
}

/// The sum over the maps, finest first, of which each place divides into a whole number of the finest's.
fn on_finest(levels: &[Contributions]) -> Contributions {
    let mut sum = levels[0].clone();
    for level in &levels[1..] {
        let (rows, columns) = (sum.height / level.height, sum.width / level.width);
        let share = 1.0 / (rows * columns) as f32;
        for (i, value) in sum.values.iter_mut().enumerate() {
            let (y, x) = (i / sum.width, i % sum.width);
            *value += share * level.values[y / rows * level.width + x / columns];
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::numeric::{LOW, check_places, explained, first, noise};
    use super::*;
    use crate::SparseRcnnConfig;
    use crate::explain::for_explaining;
    use crate::sparse_rcnn::boxes_by_image;

    #[test]
    fn box_evidence_is_what_each_place_adds_to_the_logit() {
        let init = |device: &Device| SparseRcnnConfig::mini().init_seeded(3, device);
        let (size, content) = ([96, 64], (96.0, 60.0));
        let explained = explained(init, size, content, &LOW, 2);
        assert_eq!(explained.len(), 2);
        let device = Device::flex();
        let plain = init(&device);
        let maps = plain.pyramid(noise(size, &device));
        let autodiff = for_explaining(init(&device.clone().autodiff()));
        let own_maps = autodiff.pyramid(noise(size, &device.clone().autodiff()));
        let own = autodiff.refine(&own_maps, &[content]);
        // The boxes that each stage begins with, which are held.
        let output = plain.refine(&maps, &[content]);
        let mut held = vec![plain.first_boxes(&[content])];
        held.extend(output.stages.iter().map(|stage| stage.boxes.clone()));
        let last_logits = |maps: &[Tensor<4>]| {
            let mut features = plain.init_proposal_features.weight.val();
            let mut logits = None;
            for (stage, boxes) in plain.head.head_series.iter().zip(&held) {
                let pooled = plain.pooler().forward(maps, &boxes_by_image(boxes));
                let output = stage.forward(pooled, boxes.clone(), features);
                features = output.features;
                logits = Some(output.class_logits);
            }
            logits.unwrap()
        };
        for (detection, evidence) in explained {
            let proposal = own.proposal_of(&detection).unwrap();
            let of_levels = autodiff.contributions(&own_maps, content, proposal, detection.class);
            let logit = |maps: &[Tensor<4>]| {
                first(last_logits(maps).narrow(1, proposal, 1).narrow(2, detection.class, 1))
            };
            let mut speaking = 0;
            for (level, of_level) in of_levels.iter().enumerate() {
                let evidence = of_level.clone().evidence((96.0, 64.0));
                speaking += check_places(&detection, &evidence, &maps, level, &logit);
            }
            assert!(speaking > 4, "{speaking} places speak for their box");
            assert_eq!(evidence, on_finest(&of_levels).evidence((96.0, 64.0)));
        }
    }

    #[test]
    fn on_one_grid_each_place_keeps_what_it_adds() {
        let fine =
            Contributions { height: 2, width: 4, values: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0] };
        let coarse = Contributions { height: 1, width: 2, values: vec![8.0, -4.0] };
        let sum = on_finest(&[fine, coarse]);
        assert_eq!(sum.values, [3.0, 2.0, -1.0, -1.0, 2.0, 2.0, -1.0, -4.0]);
    }
}

//! What Faster R-CNN does beyond parity: it is independent of the batch and of threads, survives odd inputs, and its
//! prepared form is the module.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::faster_rcnn::detect::ImageOutput;
use spinexr_models::faster_rcnn::{Proposal, ProposalConfig, RoiConfig, RpnConfig, SampleOrder};
use spinexr_models::fpn::ExtraLevels;
use spinexr_models::resnet::{NormMode, ResNetConfig};
use spinexr_models::weights::{Strictness, from_safetensors, load_state_dict, state_dict, to_safetensors};
use spinexr_models::{
    Architecture, Detect, DetectConfig, Detector, DetectorConfig, FasterRcnn, FasterRcnnConfig,
    FasterRcnnInference, NotFinite, RawDetection, Target, Task,
};
use std::collections::BTreeMap;

/// Grey noise that is other for every image.
fn images(n: usize, height: usize, width: usize, device: &Device) -> Tensor<4> {
    images_of(n, 1, height, width, device)
}

fn images_of(n: usize, c: usize, height: usize, width: usize, device: &Device) -> Tensor<4> {
    let values = (0..n * c * height * width).map(|i| ((i * 7919 + i / 13 * 31) % 257) as f32 / 128.0 - 1.0);
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), [n, c, height, width]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

/// Of untrained networks each class has about an eighth of the probability.
const EVERYTHING: DetectConfig =
    DetectConfig { score_threshold: 0.0, max_detections: 2000, nms_iou: 0.9, ..DetectConfig::FASTER_RCNN };
const FILE_ORDER: SampleOrder = SampleOrder::ByIndex;

fn parts(model: &FasterRcnn, x: Tensor<4>, targets: &[Vec<Target>], order: SampleOrder) -> [f32; 4] {
    let [n, _, height, width] = x.dims();
    let loss = model.loss(x, &vec![(height as f32, width as f32); n], targets, order);
    [loss.objectness, loss.proposal_boxes, loss.classification, loss.regression]
        .map(|part| part.into_scalar::<f32>())
}

#[test]
fn the_published_network_has_torchvisions_names_and_parameters() {
    let config = FasterRcnnConfig::resnet50().with_num_classes(90);
    let state = state_dict(&config.init(&Device::flex()));
    // torchvision counts 41,755,286 for 91 classes; its frozen norms are buffers.
    let norm = |name: &str| name.contains("bn") || name.contains("downsample.1");
    let count: usize =
        state.iter().filter(|(name, _)| !norm(name)).map(|(_, entry)| entry.values.len()).sum();
    assert_eq!(count, 41_755_286);
    assert_eq!(state["roi_heads.box_predictor.bbox_pred.weight"].shape, [364, 1024]);
}

#[test]
fn a_film_alone_gives_what_it_gives_in_a_batch_on_any_number_of_threads() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init_seeded(3, &device);
    let prepared = FasterRcnnInference::new(&model);
    let x = images(3, 64, 96, &device);
    let sizes = [(64.0, 96.0), (40.0, 96.0), (64.0, 33.0)];
    let on = |threads: usize, detector: &(dyn Detect + Sync), x: Tensor<4>, sizes: &[(f32, f32)]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| detector.detect(x, sizes, &EVERYTHING))
    };
    for detector in [&model as &(dyn Detect + Sync), &prepared] {
        let together = on(1, detector, x.clone(), &sizes);
        assert_eq!(together, on(3, detector, x.clone(), &sizes));
        for film in 0..3 {
            let alone = on(2, detector, x.clone().narrow(0, film, 1), &sizes[film..film + 1]);
            assert_eq!(alone[0], together[film], "film {film}");
            let found = alone[0].as_ref().unwrap();
            assert!(!found.is_empty());
            let (height, width) = sizes[film];
            assert!(found.iter().all(|d| d.xyxy.x1 >= 0.0 && d.xyxy.x2 <= width && d.xyxy.y2 <= height));
        }
    }
}

/// Small networks that between them have every part there is.
fn networks() -> Vec<FasterRcnnConfig> {
    let mini = FasterRcnnConfig::mini();
    let one_size = |levels: usize| {
        let mut anchors = mini.rpn.anchors.clone();
        anchors.sizes_px = (0..levels).map(|level| vec![16.0 * (level + 1) as f32]).collect();
        anchors
    };
    let like_published = FasterRcnnConfig {
        backbone: ResNetConfig { widths: [8, 16, 24, 32], ..FasterRcnnConfig::resnet50().backbone },
        finest_level: 2,
        fpn_channels: 16,
        extra_levels: ExtraLevels::MaxPool,
        rpn: RpnConfig { anchors: one_size(5), ..mini.rpn.clone() },
        roi: RoiConfig { pooled_levels: 4, sampling_ratio: 0, ..mini.roi.clone() },
        ..mini.clone()
    };
    let bare = FasterRcnnConfig {
        backbone: mini.backbone.clone().with_norm(NormMode::Frozen),
        rpn: RpnConfig { convs: 0, ..mini.rpn.clone() },
        roi: RoiConfig { bins: 3, ..mini.roi.clone() },
        ..mini.clone()
    };
    let deep = FasterRcnnConfig {
        extra_levels: ExtraLevels::P6P7OnC5,
        rpn: RpnConfig { convs: 2, anchors: one_size(5), ..mini.rpn.clone() },
        ..mini.clone()
    };
    vec![mini, like_published, bare, deep]
}

#[test]
fn the_prepared_network_is_the_module() {
    let device = Device::flex().autodiff();
    for config in networks() {
        let model = config.init_seeded(3, &device);
        let channels = config.backbone.in_channels;
        // A training pass, so that the running statistics are those of a network in use.
        model.pyramid(images_of(2, channels, 64, 96, &device));
        let model = model.valid();
        let prepared = FasterRcnnInference::new(&model);
        for (height, width) in [(97usize, 131usize), (33, 64), (1, 1)] {
            let x = images_of(2, channels, height, width, &Device::flex());
            let sizes = [(height as f32, width as f32), (height as f32 * 0.7, width as f32)];
            let run = |outputs: Vec<Result<ImageOutput, NotFinite>>| -> Vec<ImageOutput> {
                outputs.into_iter().map(Result::unwrap).collect()
            };
            let expected = run(model.forward(x.clone(), &sizes, &EVERYTHING));
            let found = run(prepared.forward(x, &sizes, &EVERYTHING));
            for (found, expected) in found.into_iter().zip(expected) {
                let what = format!("{config:?} at {height}×{width}");
                same_output(&what, found, expected);
            }
        }
    }
}

/// Proposals in order and what is said of them, up to rounding.
fn same_output(what: &str, found: ImageOutput, expected: ImageOutput) {
    assert_eq!(found.proposals.len(), expected.proposals.len(), "{what}");
    for (a, b) in found.proposals.iter().zip(&expected.proposals) {
        assert!((a.logit - b.logit).abs() < 1e-4, "{what}: {a:?} {b:?}");
        let (a, b) = (<[f32; 4]>::from(a.xyxy), <[f32; 4]>::from(b.xyxy));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-2), "{what}: {a:?} {b:?}");
    }
    let (found, expected) = (found.rois.unwrap(), expected.rois.unwrap());
    for (found, expected) in
        [(found.class_logits, expected.class_logits), (found.box_deltas, expected.box_deltas)]
    {
        let (found, expected) = (values(found), values(expected));
        let largest = expected.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        assert!(largest > 0.0, "{what} says nothing");
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * largest;
        assert!(found.iter().zip(&expected).all(close), "{what}");
    }
}

#[test]
fn buffers_of_another_size_do_not_show() {
    let device = Device::flex();
    let prepared = FasterRcnnInference::new(&FasterRcnnConfig::mini().init_seeded(5, &device));
    let small = || prepared.detect(images(1, 64, 64, &device), &[(64.0, 64.0)], &EVERYTHING);
    let first = small();
    prepared.detect(images(2, 130, 90, &device), &[(130.0, 90.0); 2], &EVERYTHING);
    assert_eq!(first, small());
}

#[test]
fn images_of_any_size_can_be_searched() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    for (height, width) in [(1usize, 1usize), (3, 40), (33, 31)] {
        let (h, w) = (height as f32, width as f32);
        let found =
            model.detect(images(1, height, width, &device), &[(h, w)], &EVERYTHING).remove(0).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|d| d.xyxy.x2 <= w && d.xyxy.y2 <= h && d.xyxy.is_proper()));
    }
}

/// A film without content leaves no proposal: nothing is found, and the film beside it is not touched.
#[test]
fn no_proposal_is_no_detection_and_no_panic() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    let x = images(2, 32, 32, &device);
    for detector in [&model as &dyn Detect, &FasterRcnnInference::new(&model)] {
        let found = detector.detect(x.clone(), &[(0.0, 0.0), (32.0, 32.0)], &EVERYTHING);
        assert_eq!(found[0], Ok(vec![]));
        assert!(!found[1].as_ref().unwrap().is_empty());
        let none = DetectConfig { top_k_per_level: 0, ..EVERYTHING };
        assert_eq!(detector.detect(x.clone(), &[(32.0, 32.0); 2], &none), [Ok(vec![]), Ok(vec![])]);
    }

    let device = Device::flex().autodiff();
    let mut config = FasterRcnnConfig::mini();
    config.rpn.training = ProposalConfig { max_proposals: 0, ..config.rpn.training };
    let model = config.init(&device);
    let x = images(2, 32, 32, &device);
    let loss = model.loss(x.clone(), &[(32.0, 32.0); 2], &[vec![], vec![]], FILE_ORDER);
    assert_eq!(loss.classification.clone().into_scalar::<f32>(), 0.0);
    let grads = loss.total().backward();
    let weight = model.roi_heads.box_predictor.cls_score.weight.val();
    assert!(values(weight.grad(&grads).expect("a gradient, though zero")).iter().all(|g| *g == 0.0));
    // The true box is the only one to learn from.
    let target = Target { class: 2, xyxy: [4.0, 4.0, 20.0, 28.0] };
    let [.., classification, regression] = parts(&model, x, &[vec![target], vec![]], FILE_ORDER);
    assert!(classification > 1.0 && regression.is_finite(), "{classification} {regression}");
}

#[test]
fn background_films_and_crowded_films_have_finite_losses() {
    let device = Device::flex().autodiff();
    let model = FasterRcnnConfig::mini().init(&device);
    let x = images(2, 64, 96, &device);

    let loss = model.loss(x.clone(), &[(64.0, 96.0); 2], &[vec![], vec![]], FILE_ORDER);
    let scalar = |part: &Tensor<1>| part.clone().into_scalar::<f32>();
    assert_eq!((scalar(&loss.proposal_boxes), scalar(&loss.regression)), (0.0, 0.0));
    assert!((scalar(&loss.objectness) - 2f32.ln()).abs() < 0.1, "an untrained network is in doubt");
    assert!((scalar(&loss.classification) - 8f32.ln()).abs() < 0.3);
    let grads = loss.total().backward();
    let still = model.roi_heads.box_predictor.bbox_pred.weight.val();
    assert!(values(still.grad(&grads).expect("a gradient, though zero")).iter().all(|g| *g == 0.0));

    let crowd: Vec<Target> = (0..500)
        .map(|i| {
            let (x, y) = ((i % 25) as f32 * 3.0, (i / 25) as f32 * 2.5);
            Target { class: i % 7, xyxy: [x, y, x + 9.0, y + 12.0] }
        })
        .collect();
    let no_boxes =
        vec![Target { class: 0, xyxy: [5.0, 5.0, 5.0, 9.0] }, Target { class: 0, xyxy: [f32::NAN; 4] }];
    let crowded = parts(&model, x.clone(), &[crowd.clone(), no_boxes], FILE_ORDER);
    assert!(crowded.iter().all(|part| part.is_finite() && *part > 0.0), "{crowded:?}");
    // What is no box is as good as absent.
    assert_eq!(crowded, parts(&model, x, &[crowd, vec![]], FILE_ORDER));
}

#[test]
fn the_same_draw_gives_the_same_losses() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    let x = images(2, 64, 96, &device);
    let targets = vec![vec![Target { class: 1, xyxy: [10.0, 8.0, 50.0, 40.0] }]; 2];
    let losses = |draw: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let parts = pool.install(|| model.losses(x.clone(), &[(64.0, 96.0); 2], &targets, draw));
        parts.into_iter().map(|(name, part)| (name, part.into_scalar::<f32>())).collect::<Vec<_>>()
    };
    let first = losses(5, 1);
    assert_eq!(
        first.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["objectness", "proposal_boxes", "classification", "regression"]
    );
    assert_eq!(first, losses(5, 3));
    assert_ne!(first, losses(6, 1));
}

#[test]
fn true_boxes_are_proposals_and_samples_keep_their_share() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    let truth = Target { class: 4, xyxy: [10.0, 8.0, 50.0, 40.0] };
    let near = |dx: f32| Proposal {
        logit: 0.0,
        xyxy: [10.0 + dx, 8.0, 50.0 + dx, 40.0].into(), // IoU of 40 - dx to 40 + dx
    };
    let proposals: Vec<Proposal> = (0..200).map(|i| near(i as f32)).collect();
    let proposals = [proposals.clone(), proposals];
    let rois = model.training_rois(&proposals, &[vec![truth], vec![]], FILE_ORDER);
    let foreground: Vec<_> = rois[0].iter().filter(|roi| roi.truth.is_some()).collect();
    // dx up to 13 has an IoU of 0.5, and the true box itself: 15, less than a quarter of 64.
    assert_eq!((foreground.len(), rois[0].len()), (15, 64));
    assert!(foreground.iter().all(|roi| roi.truth == Some((4, truth.xyxy.into()))));
    assert_eq!(rois[0].last().unwrap().xyxy, truth.xyxy.into(), "after the proposals");
    assert!(rois[1].len() == 64 && rois[1].iter().all(|roi| roi.truth.is_none()));

    let drawn = model.training_rois(&proposals, &[vec![], vec![]], SampleOrder::Drawn(3));
    assert_ne!(drawn[0], drawn[1], "each image has a draw of its own");
}

#[test]
#[should_panic(expected = "target of class 7 for a network of 7 classes")]
fn a_class_beyond_the_network_is_refused() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    let target = Target { class: 7, xyxy: [0.0, 0.0, 9.0, 9.0] };
    model.loss(images(1, 32, 32, &device), &[(32.0, 32.0)], &[vec![target]], FILE_ORDER);
}

/// A pixel that is no number spoils its image alone in detection, and is not hidden in the loss.
#[test]
fn an_image_that_gives_no_numbers_is_named() {
    let device = Device::flex();
    let model = FasterRcnnConfig::mini().init(&device);
    let x = images(2, 32, 32, &device);
    let x = x.slice_assign([1..2, 0..1, 4..5, 4..5], Tensor::<4>::full([1, 1, 1, 1], f32::NAN, &device));
    let sizes = [(32.0, 32.0); 2];
    for detector in [&model as &dyn Detect, &FasterRcnnInference::new(&model)] {
        let found = detector.detect(x.clone(), &sizes, &EVERYTHING);
        assert!(found[0].is_ok());
        assert_eq!(found[1], Err(NotFinite("objectness logits")));
    }
    let targets = vec![vec![Target { class: 1, xyxy: [3.0, 3.0, 20.0, 20.0] }]; 2];
    let losses = model.losses(x, &sizes, &targets, 0);
    assert!(losses.iter().any(|(_, part)| !part.clone().into_scalar::<f32>().is_finite()));
}

#[test]
fn weights_go_out_and_come_back_and_a_wrong_number_of_classes_is_named() {
    let device = Device::flex();
    let config = Architecture::FasterRcnnMini.detector_config().unwrap();
    assert_eq!(Architecture::FasterRcnnResnet50.task(), Task::Detection);
    assert_eq!(config.detect_config(), DetectConfig::FASTER_RCNN);
    let state = config.state_dict_seeded(1);
    let bytes = to_safetensors(&state, BTreeMap::new());
    let loaded = config.load(&from_safetensors(&bytes).unwrap(), &device).unwrap();
    let module = FasterRcnnConfig::mini().init_seeded(2, &device);
    let module = load_state_dict(module, &state, Strictness::Exact).unwrap();
    let x = || images(1, 64, 64, &device);
    let (a, b) = (
        loaded.detect(x(), &[(64.0, 64.0)], &EVERYTHING).remove(0).unwrap(),
        module.detect(x(), &[(64.0, 64.0)], &EVERYTHING).remove(0).unwrap(),
    );
    let close =
        |(a, b): (&RawDetection, &RawDetection)| a.class == b.class && (a.score - b.score).abs() < 1e-4;
    assert!(a.len() == b.len() && a.iter().zip(&b).all(close));

    let DetectorConfig::FasterRcnn(mini) = config else { panic!("{config:?}") };
    let other = DetectorConfig::FasterRcnn(mini.with_num_classes(3));
    let message = other.load(&state, &device).unwrap_err().to_string();
    assert!(
        message.contains("roi_heads.box_predictor.cls_score.bias has shape [8], expected [4]"),
        "{message}"
    );
}

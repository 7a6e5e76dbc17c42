//! What Sparse R-CNN does beyond parity: independence of the batch, odd inputs, its own weights and foreign ones.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::sparse_rcnn::detectron2::{from_detectron2, own_name};
use spinexr_models::weights::{StateDict, Strictness, WeightsError, load_state_dict, state_dict};
use spinexr_models::{
    Architecture, Detect, DetectConfig, Detector, DetectorConfig, NotFinite, SparseRcnn, SparseRcnnConfig,
    Target, Task,
};

/// Grey noise that is other for every image.
fn images(n: usize, height: usize, width: usize, device: &Device) -> Tensor<4> {
    let values = (0..n * height * width).map(|i| ((i * 7919 + i / 13 * 31) % 257) as f32 / 128.0 - 1.0);
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), [n, 1, height, width]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

const EVERYTHING: DetectConfig = DetectConfig { nms_iou: 1.0, ..DetectConfig::SPARSE_RCNN };

/// Up to rounding: the engine's matrix products add in an order that depends on the number of rows.
#[test]
fn a_film_alone_gives_what_it_gives_in_a_batch() {
    let device = Device::flex();
    let model = SparseRcnnConfig::mini().init_seeded(3, &device);
    let x = images(3, 64, 96, &device);
    let sizes = [(64.0, 96.0), (40.0, 96.0), (64.0, 33.0)];
    let together = model.forward(x.clone(), &sizes);
    let of_film = |part: &Tensor<3>, film: usize| values(part.clone().narrow(0, film, 1));
    let close = |a: Vec<f32>, b: Vec<f32>, tolerance: f32| {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= tolerance), "{a:?} {b:?}");
    };
    for film in 0..3 {
        let alone = model.forward(x.clone().narrow(0, film, 1), &sizes[film..film + 1]);
        let (one, all) = (alone.stages.last().unwrap(), together.stages.last().unwrap());
        close(values(one.class_logits.clone()), of_film(&all.class_logits, film), 1e-4);
        close(values(one.boxes.clone()), of_film(&all.boxes, film), 1e-2);
        let found = alone.detect(&EVERYTHING).remove(0).unwrap();
        assert!(!found.is_empty());
        let (height, width) = sizes[film];
        assert!(found.iter().all(|d| d.xyxy.x1 >= 0.0 && d.xyxy.x2 <= width && d.xyxy.y2 <= height));
    }
}

#[test]
fn images_of_any_size_can_be_searched() {
    let device = Device::flex();
    let model = SparseRcnnConfig::mini().init(&device);
    for (height, width) in [(1usize, 1usize), (3, 40), (33, 31)] {
        let output = model.forward(images(1, height, width, &device), &[(height as f32, width as f32)]);
        let last = output.stages.last().unwrap();
        assert_eq!((last.class_logits.dims(), last.boxes.dims()), ([1, 30, 7], [1, 30, 4]));
        for detection in output.detect(&EVERYTHING).remove(0).unwrap() {
            assert!(detection.xyxy.x2 <= width as f32 && detection.xyxy.y2 <= height as f32);
        }
    }
}

#[test]
fn background_films_and_crowded_films_have_finite_losses() {
    let device = Device::flex().autodiff();
    let model = SparseRcnnConfig::mini().init(&device);
    let sizes = [(64.0, 64.0); 2];
    let forward = || model.forward(images(2, 64, 64, &device), &sizes);
    let output = forward();
    let none = model.loss(&output, &[vec![], vec![]]);
    let [(_, classification), (_, l1), (_, giou)] = none.parts();
    assert_eq!((l1.into_scalar::<f32>(), giou.into_scalar::<f32>()), (0.0, 0.0));
    let value: f32 = classification.into_scalar();
    assert!(value.is_finite() && value > 0.0);
    let grads = none.total().backward();
    let delta = &model.head.head_series[0].bboxes_delta.weight.val();
    assert!(values(delta.grad(&grads).expect("a gradient, though zero")).iter().all(|g| *g == 0.0));

    // More boxes than proposals: each proposal answers for another one.
    let crowd: Vec<Target> = (0..500)
        .map(|i| {
            let (x, y) = ((i % 25) as f32 * 2.0, (i / 25) as f32 * 2.5);
            Target { class: i % 7, xyxy: [x, y, x + 9.0, y + 12.0] }
        })
        .collect();
    let no_boxes =
        vec![Target { class: 0, xyxy: [5.0, 5.0, 5.0, 9.0] }, Target { class: 0, xyxy: [f32::NAN; 4] }];
    let targets = [crowd, no_boxes];
    let output = forward();
    for stage in model.matches(&output, &targets) {
        let proposals: Vec<usize> = stage[0].iter().map(|pair| pair.0).collect();
        assert_eq!(proposals, (0..30).collect::<Vec<_>>());
        assert!(stage[1].is_empty());
    }
    let loss = model.loss(&output, &targets).total();
    assert!(loss.clone().into_scalar::<f32>().is_finite());
    let grads = loss.backward();
    let first =
        values(model.init_proposal_boxes.weight.val().grad(&grads).expect("the first stage moves them"));
    assert!(first.iter().all(|g| g.is_finite()) && first.iter().any(|g| *g != 0.0));
}

#[test]
#[should_panic(expected = "target of class 7 for a network of 7 classes")]
fn a_class_beyond_the_network_is_refused() {
    let device = Device::flex();
    let model = SparseRcnnConfig::mini().init(&device);
    let output = model.forward(images(1, 32, 32, &device), &[(32.0, 32.0)]);
    model.loss(&output, &[vec![Target { class: 7, xyxy: [0.0, 0.0, 9.0, 9.0] }]]);
}

/// A pixel that is no number spoils its image alone, in detection as in the loss.
#[test]
fn an_image_that_gives_no_numbers_is_named() {
    let device = Device::flex();
    let model = SparseRcnnConfig::mini().init(&device);
    let x = images(2, 32, 32, &device);
    let x = x.slice_assign([1..2, 0..1, 4..5, 4..5], Tensor::<4>::full([1, 1, 1, 1], f32::NAN, &device));
    let sizes = [(32.0, 32.0); 2];
    let found = model.detect(x.clone(), &sizes, &EVERYTHING);
    assert!(found[0].is_ok());
    assert!(matches!(found[1], Err(NotFinite(_))), "{:?}", found[1]);

    let targets = vec![vec![Target { class: 1, xyxy: [3.0, 3.0, 20.0, 20.0] }]; 2];
    let losses = model.losses(x, &sizes, &targets, 0);
    assert_eq!(
        losses.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["classification", "box_l1", "box_giou"]
    );
    assert!(losses.into_iter().any(|(_, loss)| !loss.into_scalar::<f32>().is_finite()));
}

#[test]
fn an_untrained_network_expects_few_findings_and_proposes_whole_images() {
    let device = Device::flex();
    let model = SparseRcnnConfig::mini().init(&device);
    let output = model.forward(images(1, 64, 64, &device), &[(64.0, 48.0)]);
    let logits = values(output.stages[0].class_logits.clone());
    let mean = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).sum::<f32>() / logits.len() as f32;
    assert!((0.002..0.05).contains(&mean), "mean probability {mean}");
    let first = values(model.first_boxes(&[(64.0, 48.0)]));
    assert!(first.chunks(4).all(|b| b == [0.0, 0.0, 48.0, 64.0]), "{first:?}");
}

#[test]
fn weights_of_other_classes_are_refused_by_name() {
    let config = |classes| DetectorConfig::SparseRcnn(SparseRcnnConfig::mini().with_num_classes(classes));
    let state = config(7).state_dict_seeded(1);
    assert!(config(7).load(&state, &Device::flex()).is_ok());
    let error = config(8).load(&state, &Device::flex()).unwrap_err();
    let WeightsError::Mismatch(mismatch) = error else { panic!("{error}") };
    let names: Vec<&str> = mismatch.shapes.iter().map(|(name, _, _)| name.as_str()).collect();
    assert!(names.contains(&"head.head_series.0.class_logits.weight"), "{names:?}");
    assert_eq!(names.len(), 2 * 3);
    assert_eq!(Architecture::SparseRcnnMini.task(), Task::Detection);
}

#[test]
fn every_name_of_detectron2_is_one_of_the_networks() {
    let manifest = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sparse_rcnn/manifest.json"),
    );
    let manifest: serde_json::Value = serde_json::from_str(&manifest.unwrap()).unwrap();
    let theirs = manifest["state"]["shapes"].as_object().unwrap();
    let model: SparseRcnn = SparseRcnnConfig::resnet50().init(&Device::flex());
    let ours = state_dict(&model);
    let mut renamed: Vec<String> = theirs.keys().map(|name| own_name(name)).collect();
    renamed.sort_unstable();
    assert_eq!(renamed, ours.keys().cloned().collect::<Vec<_>>());

    // Names of this crate stay as they are.
    let mini: StateDict = state_dict(&SparseRcnnConfig::mini().init_seeded(1, &Device::flex()));
    let again = from_detectron2(mini.clone());
    assert_eq!(again, mini);
    let other = SparseRcnnConfig::mini().init_seeded(2, &Device::flex());
    assert_eq!(state_dict(&load_state_dict(other, &again, Strictness::Exact).unwrap()), mini);
}

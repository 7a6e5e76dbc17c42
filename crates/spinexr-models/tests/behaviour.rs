//! What the networks do beyond parity: they learn, they are independent of the batch, they survive odd inputs,
//! and their weights go out and come back.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use spinexr_models::densenet::{DenseNet, DenseNetConfig, Pooling};
use spinexr_models::losses::bce_with_logits;
use spinexr_models::weights::{
    Strictness, WeightsError, from_safetensors, load_state_dict, named_tensors, state_dict, to_safetensors,
};
use spinexr_models::{Architecture, Task};
use spinexr_models::{DetectConfig, RetinaNet, RetinaNetConfig, Target};
use spinexr_ops::Precision;

/// Gradient descent with momentum left out: enough to memorise, and nothing to configure.
struct Descent<'a> {
    grads: &'a Gradients,
    rate: f64,
}

impl ModuleMapper for Descent<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let value = match value.grad(self.grads) {
            Some(gradient) => {
                let step = gradient.mul_scalar(self.rate);
                (value.inner() - step).autodiff().require_grad()
            }
            None => value,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Four grey films with a bright rectangle each: `[4, 1, height, width]` and the rectangles.
fn films(height: usize, width: usize) -> (Vec<f32>, Vec<[f32; 4]>) {
    let boxes = [
        [8.0, 8.0, 26.0, 24.0],
        [60.0, 10.0, 78.0, 44.0],
        [20.0, 40.0, 60.0, 60.0],
        [70.0, 66.0, 92.0, 90.0],
    ];
    let mut pixels = Vec::with_capacity(4 * height * width);
    for (film, [x1, y1, x2, y2]) in boxes.iter().enumerate() {
        for y in 0..height {
            for x in 0..width {
                let (fx, fy) = (x as f32, y as f32);
                let inside = fx >= *x1 && fx < *x2 && fy >= *y1 && fy < *y2;
                let texture = ((x * 7 + y * 13 + film * 29) % 17) as f32 / 170.0;
                pixels.push(if inside { 1.5 } else { -0.5 } + texture);
            }
        }
    }
    (pixels, boxes.to_vec())
}

fn batch(device: &Device) -> (Tensor<4>, Vec<[f32; 4]>) {
    let (pixels, boxes) = films(96, 96);
    (Tensor::from_data(TensorData::new(pixels, [4, 1, 96, 96]), device), boxes)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

#[test]
fn a_small_classifier_memorises_four_films() {
    let device = Device::flex().autodiff();
    for (architecture, precision) in [
        (Architecture::DensenetMiniA, Precision::F32),
        (Architecture::DensenetMiniB, Precision::F32),
        (Architecture::DensenetMiniA, Precision::Bf16),
        (Architecture::DensenetMiniB, Precision::Bf16),
    ] {
        let mut model = architecture.build_classifier(1, 1, &device).unwrap();
        let (x, _) = batch(&device);
        let y = Tensor::<2>::from_floats([[0.0], [1.0], [0.0], [1.0]], &device);
        let mut losses = Vec::new();
        for _ in 0..20 {
            let logits = precision.within(|| model.forward(x.clone()));
            let loss = bce_with_logits(logits, y.clone(), None).mean();
            losses.push(loss.clone().into_scalar::<f32>());
            model = model.map(&mut Descent { grads: &loss.backward(), rate: 0.1 });
        }
        let last = losses[losses.len() - 1];
        assert!(last < 0.1 && last < 0.2 * losses[0], "{architecture}, {precision}: {losses:?}");
    }
}

#[test]
fn a_small_detector_memorises_four_films() {
    detector_memorises_four_films(Precision::F32);
}

#[test]
fn a_small_detector_memorises_four_films_in_bf16() {
    detector_memorises_four_films(Precision::Bf16);
}

fn detector_memorises_four_films(precision: Precision) {
    let device = Device::flex().autodiff();
    let mut model = RetinaNetConfig::mini().with_num_classes(2).init_seeded(1, &device);
    let (x, boxes) = batch(&device);
    let targets: Vec<Vec<Target>> =
        boxes.iter().enumerate().map(|(i, xyxy)| vec![Target { class: i % 2, xyxy: *xyxy }]).collect();
    let mut losses = Vec::new();
    for _ in 0..60 {
        let output = precision.within(|| model.forward(x.clone()));
        let loss = model.loss(&output, &targets).total();
        losses.push(loss.clone().into_scalar::<f32>());
        model = model.map(&mut Descent { grads: &loss.backward(), rate: 0.02 });
    }
    assert!(losses[losses.len() - 1] < 0.2 * losses[0], "{losses:?}");

    // On the batch statistics it learned with: running ones need more steps.
    let output = model.forward(x);
    let config = DetectConfig { score_threshold: 0.3, ..DetectConfig::RETINANET };
    let found = output.detect(&[(96.0, 96.0); 4], &config);
    for (film, (found, truth)) in found.iter().zip(&boxes).enumerate() {
        let found = found.as_ref().expect("finite outputs");
        let best = found.first().unwrap_or_else(|| panic!("nothing found on film {film}: {losses:?}"));
        assert_eq!(best.class, film % 2, "film {film}");
        let iou = best.xyxy.iou(&(*truth).into());
        assert!(iou > 0.5, "film {film}: {best:?} for {truth:?}, IoU {iou}");
    }
}

#[test]
fn a_film_alone_gives_what_it_gives_in_a_batch() {
    let device = Device::flex();
    let (x, _) = batch(&device);
    let classifier = Architecture::DensenetMiniA.build_classifier(1, 3, &device).unwrap();
    let detector = RetinaNetConfig::mini().init_seeded(3, &device);
    let together = values(classifier.forward(x.clone()));
    let boxes_together = detector.forward(x.clone());
    for film in 0..4 {
        let one = x.clone().narrow(0, film, 1);
        assert_eq!(values(classifier.forward(one.clone())), together[film..film + 1]);
        let alone = detector.forward(one);
        assert_eq!(
            values(alone.class_logits),
            values(boxes_together.class_logits.clone().narrow(0, film, 1))
        );
        assert_eq!(values(alone.box_deltas), values(boxes_together.box_deltas.clone().narrow(0, film, 1)));
    }
}

#[test]
fn background_films_and_crowded_films_have_finite_losses() {
    let device = Device::flex().autodiff();
    let model = RetinaNetConfig::mini().init_seeded(0, &device);
    let (x, _) = batch(&device);
    let x = x.narrow(0, 0, 2);
    let output = model.forward(x.clone());

    let none = model.loss(&output, &[vec![], vec![]]);
    assert_eq!(none.foreground, 0);
    assert_eq!(none.regression.clone().into_scalar::<f32>(), 0.0);
    let value = none.classification.clone().into_scalar::<f32>();
    assert!(value.is_finite() && value > 0.0);
    let grads = none.total().backward();
    let bias = model.head.regression_head.bbox_reg.bias.as_ref().unwrap().val();
    assert!(values(bias.grad(&grads).expect("a gradient, though zero")).iter().all(|g| *g == 0.0));

    let crowd: Vec<Target> = (0..500)
        .map(|i| {
            let (x, y) = ((i % 25) as f32 * 3.0, (i / 25) as f32 * 4.0);
            Target { class: i % 7, xyxy: [x, y, x + 9.0, y + 12.0] }
        })
        .collect();
    let empty_boxes =
        vec![Target { class: 0, xyxy: [5.0, 5.0, 5.0, 9.0] }, Target { class: 0, xyxy: [f32::NAN; 4] }];
    let loss = model.loss(&model.forward(x), &[crowd, empty_boxes]);
    assert!(loss.foreground >= 100, "{}", loss.foreground);
    assert!(loss.total().into_scalar::<f32>().is_finite());
}

#[test]
#[should_panic(expected = "target of class 7 for a network of 7 classes")]
fn a_class_beyond_the_network_is_refused() {
    let device = Device::flex();
    let model = RetinaNetConfig::mini().init(&device);
    let output = model.forward(Tensor::zeros([1, 1, 64, 64], &device));
    model.loss(&output, &[vec![Target { class: 7, xyxy: [0.0, 0.0, 9.0, 9.0] }]]);
}

#[test]
fn images_of_any_size_can_be_searched() {
    let device = Device::flex();
    let model = RetinaNetConfig::mini().init(&device);
    for (height, width) in [(1usize, 1usize), (7, 40), (33, 31), (96, 100)] {
        let output = model.forward(Tensor::ones([1, 1, height, width], &device));
        let [_, a, k] = output.class_logits.dims();
        let places = height.next_multiple_of(32) * width.next_multiple_of(32) / 64;
        let at_a_place = model.config.anchors.per_location();
        assert_eq!((a, k), (at_a_place * (places + places / 4 + places / 16), 7));
        assert_eq!(output.anchors.boxes.len(), a);
        let everything = DetectConfig { score_threshold: 0.0, ..DetectConfig::RETINANET };
        let found = output.detect(&[(height as f32, width as f32)], &everything);
        let found = found[0].as_ref().unwrap();
        assert!(found.iter().all(|d| d.xyxy.x2 <= width as f32 && d.xyxy.y2 <= height as f32));
    }
}

#[test]
#[should_panic(expected = "a DenseNet needs at least 29×29 px, found 28×64")]
fn a_film_too_small_for_the_strides_is_refused() {
    let device = Device::flex();
    DenseNetConfig::mini().init(&device).forward(Tensor::zeros([1, 1, 28, 64], &device));
}

#[test]
fn the_smallest_film_is_taken() {
    let device = Device::flex();
    let px = DenseNetConfig::MIN_INPUT_PX;
    let logits = DenseNetConfig::mini().init(&device).forward(Tensor::ones([1, 1, px, px], &device));
    assert!(values(logits)[0].is_finite());
}

#[test]
fn an_untrained_detector_expects_few_findings() {
    let device = Device::flex();
    let (x, _) = batch(&device);
    let output = RetinaNetConfig::mini().init(&device).forward(x);
    let logits = values(output.class_logits);
    let mean = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).sum::<f32>() / logits.len() as f32;
    assert!((0.005..0.02).contains(&mean), "mean probability {mean}");
}

#[test]
fn places_of_a_map_average_to_the_logits_of_the_film() {
    let device = Device::flex();
    let config = DenseNetConfig { pooling: Pooling::Average, ..DenseNetConfig::mini_b() }.with_num_classes(3);
    let model = config.init_seeded(5, &device);
    let features = model.features(batch(&device).0);
    let [n, _, h, w] = features.dims();
    let places = model.classify_places(features.clone());
    assert_eq!(places.dims(), [n, h * w, 3]);
    let (mean, whole) = (values(places.mean_dim(1).reshape([n, 3])), values(model.classify(features)));
    assert!(mean.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5), "{mean:?} {whole:?}");
}

#[test]
fn weights_depend_on_the_seed_alone() {
    let device = Device::flex();
    let weights = |seed| state_dict(&Architecture::DensenetMiniA.build_classifier(1, seed, &device).unwrap());
    let first = weights(5);
    let on_other_thread = std::thread::scope(|s| s.spawn(|| weights(5)).join().unwrap());
    assert_eq!(first, on_other_thread);
    assert_ne!(first, weights(6));
}

#[test]
fn published_networks_have_the_published_number_of_parameters() {
    let device = Device::flex();
    let trained = |names: Vec<spinexr_models::weights::NamedTensor>| -> usize {
        names.iter().filter(|t| !t.is_statistic).map(|t| t.shape.iter().product::<usize>()).sum()
    };
    // torchvision, 1000 classes
    let classes =
        |config: DenseNetConfig| trained(named_tensors(&config.with_num_classes(1000).init(&device)));
    assert_eq!(classes(DenseNetConfig::densenet121()), 7_978_856);
    assert_eq!(classes(DenseNetConfig::densenet169()), 14_149_480);
}

#[test]
fn a_state_dict_comes_back_from_bytes() {
    let device = Device::flex().autodiff();
    let original = RetinaNetConfig::mini().init_seeded(1, &device);
    let (x, _) = batch(&device);
    original.forward(x.clone()); // moves the running statistics
    let state = state_dict(&original);
    let mean = &state["backbone.body.bn1.running_mean"];
    assert!(mean.values.iter().any(|v| *v != 0.0), "statistics are part of it");

    let bytes = to_safetensors(&state, BTreeMap::new());
    let other = RetinaNetConfig::mini().init_seeded(2, &device);
    let copy = load_state_dict(other, &from_safetensors(&bytes).unwrap(), Strictness::Exact).unwrap();
    assert_eq!(state_dict(&copy), state);
    let x = x.inner();
    let (a, b) = (original.valid().forward(x.clone()), copy.valid().forward(x));
    assert_eq!(values(a.class_logits), values(b.class_logits));

    let weight = copy.head.classification_head.cls_logits.weight.val();
    assert!(weight.is_require_grad(), "loaded parameters are still trained");
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let build = |config: DenseNetConfig| -> DenseNet { config.init(&device) };
    let mut state = state_dict(&build(DenseNetConfig::mini_a()));
    let kernel = state.remove("features.conv0.weight").unwrap();
    state.insert("features.conv9.weight".to_owned(), kernel);
    state.get_mut("classifier.bias").unwrap().shape = vec![1, 1];
    let error = load_state_dict(build(DenseNetConfig::mini_a()), &state, Strictness::Exact).unwrap_err();
    let WeightsError::Mismatch(mismatch) = error else { panic!("{error}") };
    assert_eq!(mismatch.missing, ["features.conv0.weight"]);
    assert_eq!(mismatch.unexpected, ["features.conv9.weight"]);
    assert_eq!(mismatch.shapes, [("classifier.bias".to_owned(), vec![1], vec![1, 1])]);

    state.get_mut("classifier.bias").unwrap().shape = vec![1];
    assert!(load_state_dict(build(DenseNetConfig::mini_a()), &state, Strictness::Partial).is_ok());
    assert!(load_state_dict(build(DenseNetConfig::mini_a()), &state, Strictness::IgnoreUnexpected).is_err());
}

#[test]
fn frozen_norms_give_no_gradients_and_keep_their_statistics() {
    let device = Device::flex().autodiff();
    let config = RetinaNetConfig::resnet18().with_num_classes(1);
    let model: RetinaNet = config.init(&device);
    let output = model.forward(Tensor::ones([1, 3, 64, 64], &device));
    let grads = model.loss(&output, &[vec![]]).total().backward();
    assert!(model.backbone.body.bn1.weight.val().grad(&grads).is_none());
    assert!(model.backbone.body.conv1.weight.val().grad(&grads).is_some());
    assert_eq!(values(model.backbone.body.bn1.running_mean.value()), vec![0.0; 64]);
    assert_eq!(Architecture::RetinanetResnet18.task(), Task::Detection);
}

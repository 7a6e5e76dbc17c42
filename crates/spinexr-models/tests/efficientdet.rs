//! EfficientDet beyond parity: the published sizes, films without boxes and crowded ones, images of any size, weights of
//! another network.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use spinexr_models::resnet::NormMode;
use spinexr_models::weights::{
    Strictness, WeightsError, from_safetensors, load_state_dict, named_tensors, state_dict, to_safetensors,
};
use spinexr_models::{
    Architecture, Detect, DetectConfig, Detector, DetectorConfig, EfficientDetConfig, EfficientDetInference,
    NotFinite, Target,
};

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

/// A texture that differs from place to place.
fn images(n: usize, height: usize, width: usize, device: &Device) -> Tensor<4> {
    let pixels: Vec<f32> =
        (0..n * height * width).map(|i| ((i * 7919 + i / 13) % 251) as f32 / 125.0 - 1.0).collect();
    Tensor::<1>::from_floats(&pixels[..], device).reshape([n, 1, height, width])
}

#[test]
fn names_shapes_and_numbers_of_parameters_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/efficientdet_sizes.json");
    let table: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let published = [
        EfficientDetConfig::d0(),
        EfficientDetConfig::d1(),
        EfficientDetConfig::d2(),
        EfficientDetConfig::d3(),
        EfficientDetConfig::d4(),
    ];
    for (name, wanted) in table["networks"].as_object().unwrap() {
        let size: usize = name[name.len() - 1..].parse().unwrap();
        let config = published[size].clone();
        let config = if name.starts_with("tf_") { config } else { config.with_symmetric_padding() };
        let mut tensors = named_tensors(&config.init(&Device::flex()));
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let numel = |shape: &[usize]| shape.iter().product::<usize>();
        let parameters: usize = tensors.iter().filter(|t| !t.is_statistic).map(|t| numel(&t.shape)).sum();
        assert_eq!(parameters as u64, wanted["parameters"].as_u64().unwrap(), "{name}");
        assert_eq!(tensors.len() as u64, wanted["entries"].as_u64().unwrap(), "{name}");
        let lines: String = tensors.iter().map(|t| format!("{} {:?}\n", t.name, t.shape)).collect();
        let hash = lines
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(format!("{hash:016x}"), wanted["names_and_shapes"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn background_films_and_crowded_films_have_finite_losses() {
    let device = Device::flex().autodiff();
    let model = EfficientDetConfig::mini().init_seeded(1, &device);
    let output = model.forward(images(2, 96, 96, &device));
    let none = model.loss(&output, &[vec![], vec![]]);
    assert_eq!(none.foreground, 0);
    assert_eq!(none.boxes.clone().into_scalar::<f32>(), 0.0);
    let value = none.classification.clone().into_scalar::<f32>();
    assert!(value.is_finite() && value > 0.0);
    let grads = none.total(&model.config.loss).backward();
    let bias = model.box_net.predict.conv_pw.bias.as_ref().unwrap().val();
    assert!(values(bias.grad(&grads).expect("a gradient, though zero")).iter().all(|g| *g == 0.0));

    let crowd: Vec<Target> = (0..500)
        .map(|i| {
            let (x, y) = ((i % 25) as f32 * 3.0, (i / 25) as f32 * 4.0);
            Target { class: i % 7, xyxy: [x, y, x + 9.0, y + 12.0] }
        })
        .collect();
    let empty_boxes =
        vec![Target { class: 0, xyxy: [5.0, 5.0, 5.0, 9.0] }, Target { class: 0, xyxy: [f32::NAN; 4] }];
    let losses = model.losses(images(2, 96, 96, &device), &[(96.0, 96.0); 2], &[crowd, empty_boxes], 3);
    assert_eq!(losses.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["classification", "boxes"]);
    for (name, loss) in losses {
        let value = loss.into_scalar::<f32>();
        assert!(value.is_finite() && value > 0.0, "{name}: {value}");
    }
}

#[test]
#[should_panic(expected = "target of class 7 for a network of 7 classes")]
fn a_class_beyond_the_network_is_refused() {
    let device = Device::flex();
    let model = EfficientDetConfig::mini().init(&device);
    let output = model.forward(images(1, 64, 64, &device));
    model.loss(&output, &[vec![Target { class: 7, xyxy: [0.0, 0.0, 9.0, 9.0] }]]);
}

#[test]
fn images_of_any_size_can_be_searched() {
    let device = Device::flex();
    let d0 = DetectorConfig::EfficientDet(EfficientDetConfig::d0()).with_in_channels(1);
    let DetectorConfig::EfficientDet(d0) = d0 else { panic!("another network") };
    for config in [EfficientDetConfig::mini(), d0] {
        let model = config.init(&device);
        let divisor = 1 << config.coarsest_level;
        for (height, width) in [(1usize, 1usize), (7, 40), (129, 31)] {
            let output = model.forward(images(1, height, width, &device));
            let [_, a, k] = output.class_logits.dims();
            let pixels = height.next_multiple_of(divisor) * width.next_multiple_of(divisor);
            let places: usize = (3..=config.coarsest_level).map(|level| pixels >> (2 * level)).sum();
            assert_eq!((a, k), (9 * places, 7));
            assert_eq!((output.anchors.boxes.len(), output.box_offsets.dims()), (a, [1, a, 4]));
            let found = output.detect(&[(height as f32, width as f32)], &DetectConfig::EFFICIENTDET);
            let found = found[0].as_ref().unwrap();
            assert!(!found.is_empty() && found.len() <= 100);
            assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score), "best first");
            assert!(found.iter().all(|d| d.xyxy.x2 <= width as f32 && d.xyxy.y2 <= height as f32));
        }
    }
}

#[test]
fn zeros_beyond_the_film_are_all_the_padding_adds() {
    let device = Device::flex();
    let model = EfficientDetConfig::mini().init_seeded(2, &device);
    let x = images(1, 50, 70, &device);
    let wide =
        Tensor::<4>::zeros([1, 1, 64, 96], &device).slice_assign([0..1, 0..1, 0..50, 0..70], x.clone());
    assert_eq!(values(model.forward(x).class_logits), values(model.forward(wide).class_logits));
}

#[test]
fn a_film_alone_gives_what_it_gives_in_a_batch() {
    let device = Device::flex();
    let model = EfficientDetConfig::mini().init_seeded(3, &device);
    let x = images(3, 64, 96, &device);
    let together = model.forward(x.clone());
    for film in 0..3 {
        let alone = model.forward(x.clone().narrow(0, film, 1));
        assert_eq!(values(alone.class_logits), values(together.class_logits.clone().narrow(0, film, 1)));
        assert_eq!(values(alone.box_offsets), values(together.box_offsets.clone().narrow(0, film, 1)));
    }
}

#[test]
fn a_film_that_is_not_finite_is_an_error_of_its_own() {
    let device = Device::flex();
    let model = EfficientDetConfig::mini().init(&device);
    let x = images(2, 64, 64, &device);
    let spoilt = x.clone().slice_fill([1..2, 0..1, 5..6, 5..6], f32::NAN);
    let found = model.detect(spoilt, &[(64.0, 64.0); 2], &DetectConfig::EFFICIENTDET);
    assert!(found[0].is_ok());
    assert_eq!(found[1], Err(NotFinite("class logits")));
}

#[test]
fn an_untrained_network_expects_few_findings() {
    let device = Device::flex();
    let output = EfficientDetConfig::mini().init(&device).forward(images(1, 96, 96, &device));
    let logits = values(output.class_logits);
    let mean = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).sum::<f32>() / logits.len() as f32;
    assert!((0.003..0.04).contains(&mean), "mean probability {mean}");
}

#[test]
fn weights_come_back_from_bytes_and_others_are_refused_by_name() {
    let device = Device::flex();
    let config = DetectorConfig::EfficientDet(EfficientDetConfig::mini());
    let state = config.state_dict_seeded(5);
    let bytes = to_safetensors(&state, Default::default());
    let network = config.load(&from_safetensors(&bytes).unwrap(), &device).unwrap();
    let x = images(1, 64, 64, &device);
    let detect = DetectConfig::EFFICIENTDET;
    let original = EfficientDetConfig::mini().init_seeded(5, &device);
    assert_eq!(state_dict(&original), state);
    assert_eq!(
        network.detect(x.clone(), &[(64.0, 64.0)], &detect),
        EfficientDetInference::new(&original).detect(x, &[(64.0, 64.0)], &detect)
    );

    let error = config.clone().with_num_classes(3).load(&state, &device).unwrap_err();
    let WeightsError::Mismatch(mismatch) = error else { panic!("{error}") };
    let names: Vec<&str> = mismatch.shapes.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["class_net.predict.conv_pw.weight", "class_net.predict.conv_pw.bias"]);
    assert_eq!(mismatch.shapes[1].1, [27]);
    assert_eq!(mismatch.shapes[1].2, [63]);

    // Another size, and the other variant of the same size.
    assert!(Architecture::EfficientdetD0.detector_config().unwrap().load(&state, &device).is_err());
    let d0 = EfficientDetConfig::d0();
    let symmetric = state_dict(&d0.clone().with_symmetric_padding().init(&device));
    let error = load_state_dict(d0.init(&device), &symmetric, Strictness::Exact).unwrap_err().to_string();
    assert!(error.contains("fpn.resample.3.conv.conv.bias"), "{error}");
}

#[test]
fn frozen_norms_of_the_backbone_give_no_gradients_and_keep_their_statistics() {
    let device = Device::flex().autodiff();
    let config = DetectorConfig::EfficientDet(EfficientDetConfig::mini()).with_norms(NormMode::Frozen);
    let DetectorConfig::EfficientDet(config) = config else { panic!("another network") };
    let model = config.init(&device);
    let output = model.forward(images(1, 64, 64, &device));
    let target = Target { class: 1, xyxy: [10.0, 10.0, 40.0, 40.0] };
    let grads = model.loss(&output, &[vec![target]]).total(&config.loss).backward();
    assert!(model.backbone.bn1.weight.val().grad(&grads).is_none());
    assert!(model.backbone.conv_stem.weight.val().grad(&grads).is_some());
    assert!(values(model.backbone.bn1.running_mean.value()).iter().all(|v| *v == 0.0));
    let node = &model.fpn.cell[0].fnode[0];
    assert!(node.after_combine.conv.bn.as_ref().unwrap().weight.val().grad(&grads).is_some());
    let edges = node.combine.edge_weights.val().grad(&grads).expect("edges are trained");
    assert!(values(edges).iter().any(|g| *g != 0.0));
    assert!(model.valid().backbone.bn1.weight.val().dims() == [8]);
}

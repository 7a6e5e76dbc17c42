//! The networks prepared for the CPU are the modules: at odd sizes, with every variant of their parts, for films
//! alone and together, on any number of threads.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use spinexr_models::densenet::{DenseNetConfig, Pooling};
use spinexr_models::fpn::ExtraLevels;
use spinexr_models::resnet::NormMode;
use spinexr_models::retinanet::{HeadNorm, RetinaNetConfig, RetinaNetOutput};
use spinexr_models::{DenseNetInference, EfficientDetConfig, EfficientDetInference, RetinaNetInference};

fn images(shape: [usize; 4]) -> Tensor<4> {
    let device = Device::flex();
    device.seed(7);
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

/// Runs training passes, so that the running statistics are those of a network in use.
fn warmed<M: Module>(model: M, mut pass: impl FnMut(&M)) -> M {
    (0..3).for_each(|_| pass(&model));
    model.valid()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "{what} says nothing: {largest}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 2e-5 * largest, "{what} [{i}]: {found}, expected {expected}");
    }
}

#[test]
fn classifiers_agree_with_their_modules() {
    let device = Device::flex().autodiff();
    let pooled = |pooling| DenseNetConfig { pooling, ..DenseNetConfig::mini_a() };
    for config in [
        pooled(Pooling::Average).with_num_classes(3),
        pooled(Pooling::AverageAndMax).with_final_relu(false),
        DenseNetConfig::mini_b().with_in_channels(3),
    ] {
        for (height, width) in [(97, 131), (29, 29), (64, 200)] {
            let x = images([2, config.in_channels, height, width]);
            let model = warmed(config.init_seeded(1, &device), |model| {
                model.forward(x.clone().autodiff());
            });
            let prepared = DenseNetInference::new(&model);
            let what = format!("{config:?} at {height}×{width}");
            assert_close(&what, &values(prepared.forward(x.clone())), &values(model.forward(x)));
        }
    }
}

#[test]
fn published_classifiers_agree_with_their_modules() {
    let device = Device::flex();
    for config in
        [DenseNetConfig::densenet121(), DenseNetConfig::densenet169(), DenseNetConfig::densenet201()]
    {
        let (model, x) = (config.init_seeded(2, &device), images([1, 3, 97, 131]));
        let found = values(DenseNetInference::new(&model).forward(x.clone()));
        assert_close(&format!("{config:?}"), &found, &values(model.forward(x)));
    }
}

/// Small detectors that between them have every part there is.
fn detectors() -> Vec<RetinaNetConfig> {
    let mini = RetinaNetConfig::mini();
    let levels = |extra: ExtraLevels, finest_level: usize| {
        let mut anchors = mini.anchors.clone();
        let levels = 6 - finest_level + extra.count();
        anchors.sizes_px = (0..levels).map(|level| vec![16.0 * (level + 1) as f32]).collect();
        RetinaNetConfig { extra_levels: extra, finest_level, anchors, ..mini.clone() }
    };
    let mut frozen = levels(ExtraLevels::P6P7OnC5, 3);
    frozen.backbone = frozen.backbone.with_norm(NormMode::Frozen);
    frozen.head_norm = HeadNorm::None;
    frozen.head_convs = 2;
    let bottleneck = RetinaNetConfig {
        backbone: spinexr_models::resnet::ResNetConfig {
            widths: [8, 16, 24, 32],
            ..RetinaNetConfig::resnet50().backbone
        },
        ..levels(ExtraLevels::P6P7OnP5, 3)
    };
    let bare = RetinaNetConfig { head_convs: 0, ..levels(ExtraLevels::None, 4) };
    vec![mini.clone(), levels(ExtraLevels::MaxPool, 2), frozen, bottleneck, bare]
}

fn parts(output: RetinaNetOutput) -> [Vec<f32>; 2] {
    [values(output.class_logits), values(output.box_deltas)]
}

#[test]
fn detectors_agree_with_their_modules() {
    let device = Device::flex().autodiff();
    for config in detectors() {
        for (height, width) in [(97, 131), (33, 64), (128, 160)] {
            let x = images([2, config.backbone.in_channels, height, width]);
            let model = warmed(config.init_seeded(3, &device), |model| {
                model.forward(x.clone().autodiff());
            });
            let expected = model.forward(x.clone());
            let found = RetinaNetInference::new(&model).forward(x);
            assert_eq!(found.anchors, expected.anchors);
            assert_eq!(found.class_logits.dims(), expected.class_logits.dims());
            for (what, (found, expected)) in
                ["logits", "deltas"].iter().zip(parts(found).iter().zip(&parts(expected)))
            {
                assert_close(&format!("{what} of {config:?} at {height}×{width}"), found, expected);
            }
        }
    }
}

#[test]
fn a_film_alone_and_any_number_of_threads_give_the_same_bits() {
    let device = Device::flex();
    let classifier = DenseNetInference::new(&DenseNetConfig::mini_a().init_seeded(4, &device));
    let detector = RetinaNetInference::new(&RetinaNetConfig::mini().init_seeded(4, &device));
    let x = images([3, 1, 150, 110]);
    let all = |x: Tensor<4>, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let [logits, deltas] = parts(detector.forward(x.clone()));
            [values(classifier.forward(x.clone())), logits, deltas]
        })
    };
    let together = all(x.clone(), 1);
    assert_eq!(together, all(x.clone(), 2));
    assert_eq!(together, all(x.clone(), 3));
    for film in 0..3 {
        for (alone, together) in all(x.clone().narrow(0, film, 1), 2).iter().zip(&together) {
            assert_eq!(alone[..], together[film * alone.len()..][..alone.len()], "film {film}");
        }
    }
}

#[test]
fn buffers_of_another_size_do_not_show() {
    let device = Device::flex();
    let classifier = DenseNetInference::new(&DenseNetConfig::mini_b().init_seeded(5, &device));
    let detector = RetinaNetInference::new(&RetinaNetConfig::mini().init_seeded(5, &device));
    let (small, large) = (images([1, 1, 64, 64]), images([2, 1, 130, 90]));
    let first = (values(classifier.forward(small.clone())), parts(detector.forward(small.clone())));
    classifier.forward(large.clone());
    detector.forward(large);
    assert_eq!(first, (values(classifier.forward(small.clone())), parts(detector.forward(small))));
}

#[test]
#[should_panic(expected = "a DenseNet needs at least 29×29 px, found 28×64")]
fn a_film_too_small_for_the_strides_is_refused() {
    let model = DenseNetConfig::mini().init(&Device::flex());
    DenseNetInference::new(&model).forward(images([1, 1, 28, 64]));
}

/// Small EfficientDets that between them have every part there is.
fn efficient_detectors() -> Vec<EfficientDetConfig> {
    let mini = EfficientDetConfig::mini();
    vec![
        mini.clone(),
        mini.clone().with_symmetric_padding(),
        EfficientDetConfig { coarsest_level: 7, redundant_bias: true, head_repeats: 2, ..mini.clone() },
        EfficientDetConfig { coarsest_level: 6, fpn_repeats: 1, ..mini.clone() },
        EfficientDetConfig { head_repeats: 0, ..mini },
    ]
}

#[test]
fn efficient_detectors_agree_with_their_modules() {
    let device = Device::flex().autodiff();
    for config in efficient_detectors() {
        for (height, width) in [(97, 131), (29, 29), (64, 200)] {
            let x = images([2, 1, height, width]);
            let model = warmed(config.init_seeded(1, &device), |model| {
                model.forward(x.clone().autodiff());
            });
            let prepared = EfficientDetInference::new(&model);
            let what = format!("{config:?} at {height}×{width}");
            let expected = model.forward(x.clone());
            // Twice: the second call finds the buffers of the first.
            for _ in 0..2 {
                let found = prepared.forward(x.clone());
                assert_eq!(found.anchors.boxes, expected.anchors.boxes, "{what}");
                assert_close(&what, &values(found.class_logits), &values(expected.class_logits.clone()));
                assert_close(&what, &values(found.box_offsets), &values(expected.box_offsets.clone()));
            }
        }
    }
}

#[test]
fn the_published_efficientdet_agrees_with_its_module() {
    let model = EfficientDetConfig::d0().init_seeded(2, &Device::flex());
    let x = images([1, 3, 128, 192]);
    let (found, expected) = (EfficientDetInference::new(&model).forward(x.clone()), model.forward(x));
    assert_close("logits", &values(found.class_logits), &values(expected.class_logits));
    assert_close("offsets", &values(found.box_offsets), &values(expected.box_offsets));
}

#[test]
fn efficientdets_films_do_not_depend_on_each_other_or_on_threads() {
    let prepared = EfficientDetInference::new(&EfficientDetConfig::mini().init_seeded(3, &Device::flex()));
    let x = images([3, 1, 97, 131]);
    let run = |x: Tensor<4>| {
        let output = prepared.forward(x);
        (values(output.class_logits), values(output.box_offsets))
    };
    let (logits, offsets) = run(x.clone());
    let (of_one, of_one_box) = run(x.clone().narrow(0, 1, 1));
    assert_eq!(logits[of_one.len()..][..of_one.len()], of_one);
    assert_eq!(offsets[of_one_box.len()..][..of_one_box.len()], of_one_box);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| run(x.clone())), (logits.clone(), offsets.clone()), "{threads} threads");
    }
}

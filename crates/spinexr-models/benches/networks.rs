//! A training step (forward, loss, backward) and inference of the small networks.
//! `cargo bench -p spinexr-models`

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use divan::{Bencher, black_box};
use spinexr_models::losses::bce_with_logits;
use spinexr_models::{
    Architecture, DenseNetInference, Detect, DetectConfig, EfficientDetConfig, EfficientDetInference,
    FasterRcnnConfig, FasterRcnnInference, RetinaNetConfig, RetinaNetInference, Target,
};

const FILMS: usize = 8;
/// Height and width, px.
const SIZES: [(usize, usize); 2] = [(256, 176), (384, 256)];

fn main() {
    divan::main();
}

fn images(n: usize, (height, width): (usize, usize), device: &Device) -> Tensor<4> {
    device.seed(1);
    Tensor::random([n, 1, height, width], Distribution::Normal(0.0, 1.0), device)
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn classifier_training_step(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex().autodiff();
    let model = Architecture::DensenetMiniA.build_classifier(1, 0, &device).expect("a classifier");
    let (x, y) = (images(FILMS, size, &device), Tensor::<2>::zeros([FILMS, 1], &device));
    bencher.bench_local(|| {
        let loss = bce_with_logits(model.forward(x.clone()), y.clone(), None).mean();
        black_box(loss.backward());
    });
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn classifier_b_training_step(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex().autodiff();
    let model = Architecture::DensenetMiniB.build_classifier(1, 0, &device).expect("a classifier");
    let (x, y) = (images(FILMS, size, &device), Tensor::<2>::zeros([FILMS, 1], &device));
    bencher.bench_local(|| {
        let loss = bce_with_logits(model.forward(x.clone()), y.clone(), None).mean();
        black_box(loss.backward());
    });
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn classifier_inference(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex();
    let model = Architecture::DensenetMiniA.build_classifier(1, 0, &device).expect("a classifier").valid();
    let x = images(FILMS, size, &device);
    bencher.bench_local(|| black_box(model.forward(x.clone())));
}

/// DenseNet-121 at 224², prepared, as it is served.
#[divan::bench(args = [1, 8], sample_count = 20, sample_size = 1)]
fn densenet121_inference(bencher: Bencher, films: usize) {
    let device = Device::flex();
    let model = Architecture::Densenet121.build_classifier(1, 0, &device).expect("a classifier").valid();
    let model = DenseNetInference::new(&model);
    device.seed(1);
    let x = Tensor::random([films, 3, 224, 224], Distribution::Normal(0.0, 1.0), &device);
    bencher.bench_local(|| black_box(model.forward(x.clone())));
}

fn boxes() -> Vec<Vec<Target>> {
    let film = |i: usize| {
        let at = |j: usize| Target {
            class: (i + j) % 7,
            xyxy: [20.0, 30.0, 20.0 + 12.0 * (j + 1) as f32, 60.0 + 5.0 * i as f32],
        };
        (0..i % 4).map(at).collect()
    };
    (0..FILMS).map(film).collect()
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn detector_training_step(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex().autodiff();
    let model = RetinaNetConfig::mini().init(&device);
    let (x, targets) = (images(FILMS, size, &device), boxes());
    bencher.bench_local(|| {
        let loss = model.loss(&model.forward(x.clone()), &targets).total();
        black_box(loss.backward());
    });
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn detector_inference(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex();
    let model = RetinaNetConfig::mini().init(&device).valid();
    let x = images(FILMS, size, &device);
    let sizes = [(size.0 as f32, size.1 as f32); FILMS];
    bencher.bench_local(|| {
        black_box(model.detect(x.clone(), &sizes, &DetectConfig::RETINANET));
    });
}

/// RetinaNet-ResNet-50-FPN on one film of 800×1216, prepared, as it is served, boxes included.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn retinanet_resnet50_inference(bencher: Bencher) {
    let device = Device::flex();
    let model = RetinaNetConfig::resnet50().init(&device).valid();
    let model = RetinaNetInference::new(&model);
    device.seed(1);
    let x = Tensor::random([1, 3, 800, 1216], Distribution::Normal(0.0, 1.0), &device);
    bencher.bench_local(|| black_box(model.detect(x.clone(), &[(800.0, 1216.0)], &DetectConfig::RETINANET)));
}

/// Faster R-CNN-ResNet-50-FPN, likewise, with a thousand proposals.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn faster_rcnn_resnet50_inference(bencher: Bencher) {
    let device = Device::flex();
    let model = FasterRcnnInference::new(&FasterRcnnConfig::resnet50().init(&device).valid());
    device.seed(1);
    let x = Tensor::random([1, 3, 800, 1216], Distribution::Normal(0.0, 1.0), &device);
    let config = DetectConfig::FASTER_RCNN;
    bencher.bench_local(|| black_box(model.detect(x.clone(), &[(800.0, 1216.0)], &config)));
}

/// EfficientDet-D0 on one film of 512×512 and -D2 of 768×768, the sizes they were made for: as it is served, and the
/// module.
#[divan::bench(args = [0, 2], consts = [true, false], sample_count = 10, sample_size = 1)]
fn efficientdet_inference<const PREPARED: bool>(bencher: Bencher, size: usize) {
    let device = Device::flex();
    let (config, side) =
        if size == 0 { (EfficientDetConfig::d0(), 512) } else { (EfficientDetConfig::d2(), 768) };
    let module = config.init(&device).valid();
    let model: Box<dyn Detect + Send + Sync> =
        if PREPARED { Box::new(EfficientDetInference::new(&module)) } else { Box::new(module) };
    device.seed(1);
    let x = Tensor::random([1, 3, side, side], Distribution::Normal(0.0, 1.0), &device);
    let content = [(side as f32, side as f32)];
    bencher.bench_local(|| black_box(model.detect(x.clone(), &content, &DetectConfig::EFFICIENTDET)));
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn efficientdet_training_step(bencher: Bencher, size: (usize, usize)) {
    let device = Device::flex().autodiff();
    let model = EfficientDetConfig::mini().init(&device);
    let (x, targets) = (images(FILMS, size, &device), boxes());
    bencher.bench_local(|| {
        let loss = model.loss(&model.forward(x.clone()), &targets).total(&model.config.loss);
        black_box(loss.backward());
    });
}

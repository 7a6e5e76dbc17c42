//! What a training step keeps for its backward step, in bytes that are allocated: in f32 and in bf16, with maps kept and
//! made again. Run with `--nocapture` to see the figures of docs/scale.md.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but does not see their helpers

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::tensor::{Device, Tensor, TensorData};
use spinexr_models::losses::bce_with_logits;
use spinexr_models::{DenseNetConfig, Detector, EfficientDetConfig, RetinaNetConfig, Target};
use spinexr_ops::{Precision, recompute};

/// The system's allocator, counting.
struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; `pointer` came from `alloc` above, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// MiB that the graph holds when the loss is known, and the most that the whole step held.
#[derive(Clone, Copy)]
struct Memory {
    kept: f64,
    most: f64,
}

fn measure(precision: Precision, again: bool, loss: &dyn Fn() -> Tensor<1>) -> Memory {
    let _guard = again.then(recompute::on);
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let loss = precision.within(loss);
    let kept = mib(HELD.load(Relaxed) - before);
    drop(loss.backward());
    Memory { kept, most: mib(MOST.load(Relaxed) - before) }
}

/// The four ways; the first is f32 with maps kept.
fn four_ways(name: &str, loss: &dyn Fn() -> Tensor<1>) -> [Memory; 4] {
    // What is allocated once in a program is allocated here.
    measure(Precision::Bf16, true, loss);
    let ways =
        [(Precision::F32, false), (Precision::F32, true), (Precision::Bf16, false), (Precision::Bf16, true)];
    let found = ways.map(|(precision, again)| measure(precision, again, loss));
    for ((precision, again), Memory { kept, most }) in ways.iter().zip(found) {
        let maps = if *again { "made again" } else { "kept" };
        println!("| {name} | {precision}, {maps} | {kept:.1} | {most:.1} |");
    }
    found
}

fn images(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let values = (0..shape.iter().product()).map(|i: usize| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), device)
}

fn detector<D: Detector>(model: &D, x: &Tensor<4>) -> Tensor<1> {
    let targets: Vec<Vec<Target>> = (0..x.dims()[0])
        .map(|film| vec![Target { class: film % 2, xyxy: [20.0, 24.0, 60.0, 90.0] }])
        .collect();
    let [n, _, h, w] = x.dims();
    let parts = model.losses(x.clone(), &vec![(h as f32, w as f32); n], &targets, 1);
    parts.into_iter().map(|(_, part)| part).reduce(|a, b| a + b).unwrap()
}

#[test]
fn bf16_keeps_about_half() {
    let device = Device::flex().autodiff();
    let x = images([2, 3, 160, 128], &device);

    let densenet = DenseNetConfig::densenet121().with_num_classes(1).init(&device);
    let y = Tensor::<2>::from_floats([[0.0], [1.0]], &device);
    let [f32, f32_again, bf16, bf16_again] =
        four_ways("DenseNet-121", &|| bce_with_logits(densenet.forward(x.clone()), y.clone(), None).mean());
    assert!(bf16.kept < 0.56 * f32.kept, "{} of {}", bf16.kept, f32.kept);
    assert!(f32_again.kept < 0.6 * f32.kept, "{} of {}", f32_again.kept, f32.kept);
    assert!(bf16_again.kept < 0.6 * f32_again.kept, "{} of {}", bf16_again.kept, f32_again.kept);
    assert!(bf16.most < f32.most && bf16_again.most < f32_again.most);
    drop(densenet);

    let retinanet = RetinaNetConfig::resnet50().with_num_classes(2).init_seeded(1, &device);
    let [f32, _, bf16, bf16_again] = four_ways("RetinaNet, ResNet-50", &|| detector(&retinanet, &x));
    assert!(bf16.kept < 0.7 * f32.kept, "{} of {}", bf16.kept, f32.kept);
    assert!(bf16_again.kept < bf16.kept, "{} of {}", bf16_again.kept, bf16.kept);
    drop(retinanet);

    let efficientdet = EfficientDetConfig::d0().with_num_classes(2).init_seeded(1, &device);
    let x = images([2, 3, 128, 128], &device);
    let [f32, _, bf16, _] = four_ways("EfficientDet-D0", &|| detector(&efficientdet, &x));
    assert!(bf16.kept < 0.7 * f32.kept, "{} of {}", bf16.kept, f32.kept);
}

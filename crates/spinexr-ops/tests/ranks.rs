//! Norms over two processes: two threads stand for them, each with half of the batch, and must get the outputs
//! and gradients of one with the whole batch. One test: the group is the whole program's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use spinexr_ops::{BatchNorm2d, BatchNorm2dConfig, ranks};
use std::sync::{Arc, Barrier, Mutex};
use support::{signed, tensor};

const DIMS: [usize; 4] = [4, 5, 7, 6];
const HALF: [usize; 4] = [2, 5, 7, 6];

/// Adds up what `size` threads bring.
fn sum_of_threads(size: usize) -> ranks::SumOverRanks {
    let (barrier, total) = (Barrier::new(size), Mutex::new(Vec::new()));
    Arc::new(move |values: &mut [f64]| {
        {
            let mut total = total.lock().unwrap();
            total.resize(values.len(), 0.0);
            total.iter_mut().zip(values.iter()).for_each(|(total, value)| *total += value);
        }
        barrier.wait();
        values.copy_from_slice(&total.lock().unwrap());
        if barrier.wait().is_leader() {
            total.lock().unwrap().clear();
        }
        barrier.wait();
    })
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.without_autodiff().cast(self.0).autodiff().require_grad())
    }
}

#[derive(Default)]
struct Step {
    y: Vec<f64>,
    dx: Vec<f64>,
    dweight: Vec<f64>,
    dbias: Vec<f64>,
    running: Vec<f64>,
}

fn f64s<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}[{i}] = {got}, expected {expected}");
    }
}

/// One forward and backward pass on films `first..` of the batch.
fn step(first: usize, dims: [usize; 4], relu: bool, dtype: FloatDType) -> Step {
    let device = Device::flex();
    let part = |seed: u64, offset: f32| -> Tensor<4> {
        let film = dims[1] * dims[2] * dims[3];
        let all = signed(seed, DIMS.iter().product());
        let values: Vec<f32> = all[first * film..][..dims[0] * film].iter().map(|v| v + offset).collect();
        tensor(&values, dims, &device).cast(dtype)
    };
    let layer = BatchNorm2dConfig::new(5).init(&device.clone().autodiff());
    let BatchNorm2d { weight, bias, .. } = layer.clone();
    let layer = BatchNorm2d {
        weight: weight.map(|_| tensor(&signed(2, 5), [5], &device).autodiff().require_grad()),
        bias: bias.map(|_| tensor(&signed(3, 5), [5], &device).autodiff().require_grad()),
        ..layer
    };
    let layer = layer.map(&mut Cast(dtype));
    let x = part(1, 3.0).autodiff().require_grad();
    let y = if relu { layer.forward_relu(x.clone()) } else { layer.forward(x.clone()) };
    let grads = (y.clone() * part(4, 0.0).autodiff()).sum().backward();
    let running = [layer.running_mean.value(), layer.running_var.value()];
    Step {
        y: f64s(y),
        dx: f64s(x.grad(&grads).unwrap()),
        dweight: f64s(layer.weight.val().grad(&grads).unwrap()),
        dbias: f64s(layer.bias.val().grad(&grads).unwrap()),
        running: running.into_iter().flat_map(f64s).collect(),
    }
}

#[test]
fn two_processes_normalise_as_one_with_the_whole_batch() {
    // f32 takes the kernels, f64 the engine's ops, as another backend would.
    for (dtype, tolerance) in [(FloatDType::F32, 2e-5), (FloatDType::F64, 1e-7)] {
        for relu in [false, true] {
            let whole = step(0, DIMS, relu, dtype);
            let joined = ranks::join(2, sum_of_threads(2));
            assert_eq!(ranks::size(), 2);
            let halves = std::thread::scope(|scope| {
                let half = |first| scope.spawn(move || step(first, HALF, relu, dtype));
                let halves = [half(0), half(2)];
                halves.map(|half| half.join().unwrap())
            });
            // A loss that divides by a count: 3 in one process and none in the other are 1.5 each.
            let counts = std::thread::scope(|scope| {
                let divisor = |count| scope.spawn(move || ranks::count_to_divide_by(count));
                [divisor(3.0), divisor(0.0)].map(|divisor| divisor.join().unwrap())
            });
            assert_eq!(counts, [1.5, 1.5]);
            drop(joined);
            assert_eq!((ranks::size(), ranks::count_to_divide_by(0.0)), (1, 1.0));

            let both = |part: fn(&Step) -> &Vec<f64>| [&part(&halves[0])[..], part(&halves[1])].concat();
            let summed = |part: fn(&Step) -> &Vec<f64>| -> Vec<f64> {
                part(&halves[0]).iter().zip(part(&halves[1])).map(|(a, b)| a + b).collect()
            };
            assert_close("y", &both(|s| &s.y), &whole.y, tolerance);
            assert_close("dx", &both(|s| &s.dx), &whole.dx, tolerance);
            assert_close("dweight", &summed(|s| &s.dweight), &whole.dweight, 10.0 * tolerance);
            assert_close("dbias", &summed(|s| &s.dbias), &whole.dbias, 10.0 * tolerance);
            assert_close("running", &halves[0].running, &whole.running, tolerance);
            assert_eq!(halves[0].running, halves[1].running, "all processes have the same statistics");
            // Half a batch alone is not the same thing.
            let alone = step(0, HALF, relu, dtype);
            assert!(alone.running.iter().zip(&whole.running).any(|(a, b)| (a - b).abs() > 1e-3));
        }
    }
}

//! Two processes that train together, played by two threads: they come to the weights of one process with twice
//! the batch. One test: batch norm's group is the whole program's. `.ci/mpi` does the same with real processes.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

mod films;

use films::{experiment, films};
use spinexr_train::ranks::Sums;
use spinexr_train::{
    Checkpoint, Device, Experiment, Ranks, RunState, TrainData, TrainError, TrainOptions, TrainOutcome, train,
};
use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

thread_local! {
    /// Of the process that this thread plays a worker of.
    static RANK: Cell<usize> = const { Cell::new(0) };
}

/// `size` processes that add up their values in the order of their numbers.
fn threads_as_ranks(size: usize) -> Vec<Ranks> {
    let barrier = Arc::new(Barrier::new(size));
    let brought: Arc<Mutex<Vec<Vec<f64>>>> = Arc::new(Mutex::new(vec![Vec::new(); size]));
    let sum = move |values: Vec<f64>| -> Vec<f64> {
        // Batch norm's group, one for the program, may be the other's: the thread knows better.
        brought.lock().unwrap()[RANK.get()] = values;
        barrier.wait();
        let brought = brought.lock().unwrap().clone();
        barrier.wait();
        let len = brought[0].len();
        assert!(brought.iter().all(|values| values.len() == len), "all bring equally many values");
        (0..len).map(|i| brought.iter().map(|values| values[i]).sum()).collect()
    };
    let sum = Arc::new(sum);
    let rank = |rank: usize| {
        let sum = Arc::clone(&sum);
        Ranks::new(rank, size, move |sums| match sums {
            Sums::F64(values) => values.copy_from_slice(&sum(values.to_vec())),
            Sums::F32(values) => {
                let summed = sum(values.iter().map(|v| f64::from(*v)).collect());
                values.iter_mut().zip(summed).for_each(|(value, sum)| *value = sum as f32);
            }
        })
    };
    (0..size).map(rank).collect()
}

fn run(
    experiment: &Experiment,
    data: &TrainData,
    out: &Path,
    ranks: &Ranks,
    resume: bool,
    stop_after: Option<u64>,
) -> Result<TrainOutcome, TrainError> {
    let options = TrainOptions {
        out: out.to_owned(),
        resume,
        device: Device::flex(),
        ranks,
        threads: 1,
        on_event: &mut |_| {},
        stop_after,
    };
    // A process has a pool of its own.
    let rank = usize::from(!ranks.is_first());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).start_handler(move |_| RANK.set(rank));
    let pool = pool.build().unwrap();
    pool.install(|| train(experiment, data, options))
}

fn run_together(
    experiment: &Experiment,
    data: &TrainData,
    out: &Path,
    resume: bool,
    stop_after: Option<u64>,
) -> Vec<Result<TrainOutcome, TrainError>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = threads_as_ranks(2)
            .into_iter()
            .map(|ranks| scope.spawn(move || run(experiment, data, out, &ranks, resume, stop_after)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// How far two runs ended from each other, as a share of the way from `begin` to `a`: L2 over all weights, running
/// statistics and averages. A unit of a ReLU may be on in one and off in the other by rounding, so that a largest
/// single difference would say less.
fn distance(begin: &Path, a: &Path, b: &Path) -> f64 {
    let [begin, a, b] = [begin, a, b].map(|run| {
        let checkpoint = Checkpoint::read(&run.join("checkpoints/last.ckpt")).unwrap();
        let all = checkpoint.model.into_values().chain(checkpoint.ema.unwrap().into_values());
        all.flat_map(|entry| entry.values).collect::<Vec<f32>>()
    });
    assert!(begin.len() == a.len() && a.len() == b.len());
    let l2 =
        |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt();
    l2(&a, &b) / l2(&begin, &a)
}

#[test]
fn two_processes_train_as_one_with_twice_the_batch() {
    for (architecture, sets, tolerance) in [
        ("densenet_mini_a", &["model.finding_loss=0.5", "training.accumulation=2"][..], 2e-3),
        ("retinanet_mini", &["model.norms=frozen"][..], 2e-3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sets = sets.to_vec();
        // Plain SGD: an adaptive rule turns the rounding of a gradient near 0 into a whole step.
        sets.extend([
            "schedule.total_steps=4",
            "training.checkpoint_every=2",
            "optimiser.lr=0.02",
            "optimiser.rule={ sgd = { momentum = 0.9, nesterov = false } }",
        ]);
        let half = experiment(architecture, dir.path(), &[&sets[..], &["training.batch_size=2"]].concat());
        let whole = experiment(architecture, dir.path(), &sets);
        let data = films(dir.path(), &half);
        let path = |name: &str| dir.path().join(name);

        let alone = run(&whole, &data, &path("alone"), &Ranks::alone(), false, None).unwrap();
        let together = run_together(&half, &data, &path("together"), false, None);
        let [first, second] = together.as_slice() else { panic!("two processes") };
        let (first, second) = (first.as_ref().unwrap(), second.as_ref().unwrap());
        assert_eq!(first.final_weights_hash, second.final_weights_hash, "both hold the same weights");
        assert_eq!((first.steps, second.steps), (4, 4));
        assert_eq!(first.history.len(), alone.history.len());
        assert!(second.history.is_empty(), "the first evaluates");
        run(&whole, &data, &path("begin"), &Ranks::alone(), false, Some(0)).unwrap();
        let found = distance(&path("begin"), &path("alone"), &path("together"));
        println!("{architecture}: apart by {found:.1e} of the way, allowed {tolerance:.0e}");
        assert!(found < tolerance, "{architecture}: {found}");

        // Half the batch alone goes elsewhere.
        run(&half, &data, &path("half"), &Ranks::alone(), false, None).unwrap();
        assert!(distance(&path("begin"), &path("alone"), &path("half")) > 0.1);

        // Stopped and resumed by the same number of processes: the same bits.
        for outcome in run_together(&half, &data, &path("parted"), false, Some(3)) {
            assert_eq!(outcome.unwrap().state, RunState::Stopped);
        }
        let message =
            run(&half, &data, &path("parted"), &Ranks::alone(), true, None).unwrap_err().to_string();
        assert!(message.contains("with 1 processes: it was trained by 2"), "{message}");
        for outcome in run_together(&half, &data, &path("parted"), true, None) {
            assert_eq!(outcome.unwrap().final_weights_hash, first.final_weights_hash);
        }

        // Processes that were given different experiments do not begin.
        let pair = threads_as_ranks(2);
        let apart = std::thread::scope(|scope| {
            let (data, out) = (&data, path("apart"));
            let threads: Vec<_> = [&half, &whole]
                .into_iter()
                .zip(&pair)
                .map(|(experiment, ranks)| {
                    let out = out.clone();
                    scope.spawn(move || run(experiment, data, &out, ranks, false, None))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for outcome in apart {
            assert!(matches!(outcome, Err(TrainError::RanksDiffer { what: "experiment", .. })));
        }
    }
}

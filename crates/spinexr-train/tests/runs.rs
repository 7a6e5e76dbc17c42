//! Whole runs on a few small films: repeatable, resumable, and stopped where they must be.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

mod films;

use films::{experiment, films};
use spinexr_core::Split;
use spinexr_train::logs::{self, Record};
use spinexr_train::{
    Checkpoint, Device, Event, Experiment, LeftOut, Manifest, Ranks, RunState, TrainData, TrainError,
    TrainOptions, TrainOutcome, train,
};
use std::path::Path;

fn run(
    experiment: &Experiment,
    data: &TrainData,
    out: &Path,
    resume: bool,
    stop_after: Option<u64>,
) -> Result<TrainOutcome, TrainError> {
    let options = TrainOptions {
        out: out.to_owned(),
        resume,
        device: Device::flex(),
        ranks: &Ranks::alone(),
        threads: 2,
        on_event: &mut |_| {},
        stop_after,
    };
    train(experiment, data, options)
}

const BF16: &str = "training.precision=bf16";

fn log_without_times(out: &Path) -> Vec<Record> {
    logs::read(&out.join("log.jsonl")).unwrap().into_iter().map(Record::without_times).collect()
}

fn resumed_equals_uninterrupted(architecture: &str, sets: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment(architecture, dir.path(), sets);
    let data = films(dir.path(), &experiment);
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));

    let expected = run(&experiment, &data, &whole, false, None).unwrap();
    assert_eq!((expected.steps, expected.state), (12, RunState::Finished));
    assert_eq!(expected.history.iter().map(|e| e.step).collect::<Vec<_>>(), [4, 8, 12]);
    assert!(expected.metric.is_some(), "both kinds of films are there");

    let stopped = run(&experiment, &data, &parted, false, Some(7)).unwrap();
    assert_eq!((stopped.steps, stopped.state), (7, RunState::Stopped));
    assert_ne!(stopped.final_weights_hash, expected.final_weights_hash);
    // What a kill leaves behind the checkpoint: lines of steps that will be made again, half a line.
    let log = parted.join("log.jsonl");
    let mut text = std::fs::read_to_string(&log).unwrap();
    text.push_str("{\"kind\":\"step\",\"step\":8");
    std::fs::write(&log, text).unwrap();

    let resumed = run(&experiment, &data, &parted, true, None).unwrap();
    assert_eq!(resumed.final_weights_hash, expected.final_weights_hash);
    assert_eq!(resumed.weights_hash, expected.weights_hash);
    assert_eq!(resumed.history, expected.history);
    assert_eq!(log_without_times(&parted), log_without_times(&whole));
    assert_eq!(log_without_times(&whole).len(), 12 + 3);
    let last = |out: &Path| Checkpoint::read(&out.join("checkpoints/last.ckpt")).unwrap();
    let (a, b) = (last(&whole), last(&parted));
    assert_eq!((&a.model, &a.ema, &a.optimiser, &a.best), (&b.model, &b.ema, &b.optimiser, &b.best));

    // A finished run resumes to itself.
    let again = run(&experiment, &data, &parted, true, None).unwrap();
    assert_eq!(again.weights_hash, expected.weights_hash);
    assert_eq!(log_without_times(&parted), log_without_times(&whole));

    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(parted.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.state, RunState::Finished);
    assert_eq!(manifest.experiment, experiment);
    assert_eq!(manifest.hold_out, data.hold_out);
    assert_eq!(manifest.weights_hash, Some(expected.weights_hash));
    let resolved = Experiment::load(&parted.join("config.toml"), &[]).unwrap();
    assert_eq!(resolved, experiment);
}

#[test]
fn a_resumed_classifier_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("densenet_mini_a", &[]);
}

#[test]
fn a_resumed_detector_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("retinanet_mini", &[]);
}

#[test]
fn a_resumed_faster_rcnn_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("faster_rcnn_mini", &[]);
}

#[test]
fn a_resumed_sparse_rcnn_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("sparse_rcnn_mini", &[]);
}

#[test]
fn a_resumed_efficientdet_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("efficientdet_mini", &[]);
}

#[test]
fn a_resumed_run_in_bf16_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("retinanet_mini", &[BF16]);
}

#[test]
fn one_seed_gives_one_hash_for_any_number_of_threads() {
    let f32s =
        ["densenet_mini_b", "retinanet_mini", "sparse_rcnn_mini", "faster_rcnn_mini", "efficientdet_mini"]
            .map(|architecture| (architecture, "training.precision=f32"));
    let bf16s = ["retinanet_mini", "sparse_rcnn_mini", "efficientdet_mini"].map(|a| (a, BF16));
    for (architecture, precision) in f32s.into_iter().chain(bf16s) {
        let dir = tempfile::tempdir().unwrap();
        let sets = ["schedule.total_steps=4", "training.accumulation=2", precision];
        let experiment = experiment(architecture, dir.path(), &sets);
        let data = films(dir.path(), &experiment);
        let hash = |threads: usize, seed: u64| {
            let out = dir.path().join(format!("run-{threads}-{seed}"));
            let experiment = Experiment { seed, ..experiment.clone() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&experiment, &data, &out, false, None)).unwrap().final_weights_hash
        };
        let one = hash(1, 7);
        assert_eq!(one, hash(3, 7), "{architecture}");
        assert_ne!(one, hash(1, 8), "{architecture}: the seed counts");
    }
}

#[test]
fn checkpointing_changes_no_weight_of_a_densenet() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |name: &str, sets: &[&str]| {
        let sets = [&["schedule.total_steps=3", "schedule.warmup_steps=1"][..], sets].concat();
        let experiment = experiment("densenet_mini_b", dir.path(), &sets);
        let data = films(dir.path(), &experiment);
        run(&experiment, &data, &dir.path().join(name), false, None).unwrap().final_weights_hash
    };
    assert_eq!(hash("kept", &[]), hash("again", &["training.checkpointing=true"]));
    let in_bf16 = hash("kept in bf16", &[BF16]);
    assert_eq!(in_bf16, hash("again in bf16", &["training.checkpointing=true", BF16]));
    assert_ne!(in_bf16, hash("kept once more", &[]));
}

#[test]
fn parameters_in_a_bf16_run_are_f32_and_no_small_update_is_lost() {
    let bf16 = |v: f32| {
        let bits = v.to_bits();
        f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
    };
    for architecture in ["retinanet_mini", "densenet_mini_b", "sparse_rcnn_mini"] {
        let dir = tempfile::tempdir().unwrap();
        // AdamW moves every parameter by about the rate: a thousandth of bf16's step of most.
        let sets = [
            "schedule.total_steps=3",
            "schedule.warmup_steps=0",
            "schedule.decay=constant",
            "optimiser.lr=1e-6",
            "optimiser.weight_decay=0.0",
            BF16,
        ];
        let experiment = experiment(architecture, dir.path(), &sets);
        let data = films(dir.path(), &experiment);
        let out = dir.path().join("run");
        let at = |stop| {
            run(&experiment, &data, &out, stop > 0, Some(stop)).unwrap();
            Checkpoint::read(&out.join("checkpoints/last.ckpt")).unwrap()
        };
        let (before, after) = (at(0), at(3));
        let (mut weights, mut moved, mut lost_in_bf16) = (0, 0, 0);
        for (name, entry) in before.model.iter().filter(|(_, entry)| entry.shape.len() == 4) {
            for (&old, &new) in entry.values.iter().zip(&after.model[name].values) {
                weights += 1;
                moved += usize::from(old != new);
                lost_in_bf16 += usize::from(old != new && bf16(old) == bf16(new));
                assert!((old - new).abs() < 4e-6, "{name}: {old} to {new}");
            }
        }
        // Some have no gradient at first: they lie behind ReLUs that are off.
        assert!(moved * 4 > weights * 3, "{architecture}: {moved} of {weights} moved");
        assert!(
            lost_in_bf16 * 10 > moved * 9,
            "{architecture}: {lost_in_bf16} of {moved} by less than bf16 has"
        );
        // Parameters, their average and the optimiser's state have digits that bf16 has not.
        for state in [&after.model, after.ema.as_ref().unwrap(), &after.optimiser] {
            let values = || state.values().flat_map(|entry| &entry.values).filter(|v| **v != 0.0);
            let coarse = values().filter(|v| bf16(**v) == **v).count();
            assert!(coarse * 4 < values().count(), "{architecture}: {coarse} of {}", values().count());
        }
    }
}

#[test]
fn the_first_loss_in_bf16_is_that_in_f32_but_for_rounding() {
    for architecture in
        ["densenet_mini_b", "retinanet_mini", "sparse_rcnn_mini", "faster_rcnn_mini", "efficientdet_mini"]
    {
        let dir = tempfile::tempdir().unwrap();
        let record = |name: &str, precision: &str| {
            let sets = ["schedule.total_steps=1", "schedule.warmup_steps=0", precision];
            let experiment = experiment(architecture, dir.path(), &sets);
            let data = films(dir.path(), &experiment);
            run(&experiment, &data, &dir.path().join(name), false, None).unwrap();
            match log_without_times(&dir.path().join(name)).remove(0) {
                Record::Step(step) => step,
                other => panic!("{other:?}"),
            }
        };
        let (f32, bf16) = (record("f32", "training.precision=f32"), record("bf16", BF16));
        println!(
            "| {architecture} | {} | {} | {} | {} |",
            f32.loss, bf16.loss, f32.grad_norm, bf16.grad_norm
        );
        assert_ne!(bf16.loss, f32.loss, "{architecture}");
        // Norms of the last levels have four values a channel here, one a film: they magnify a rounding.
        assert!((bf16.loss - f32.loss).abs() < 0.03 * f32.loss, "{architecture}: {bf16:?}, {f32:?}");
        assert!((bf16.grad_norm / f32.grad_norm - 1.0).abs() < 0.15, "{architecture}: {bf16:?}, {f32:?}");
    }
}

#[test]
fn training_lowers_the_loss_and_tells_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "schedule.total_steps=40",
        "training.eval_every=40",
        "training.checkpoint_every=20",
        "augment.flip=0.0",
    ];
    let experiment = experiment("densenet_mini_a", dir.path(), &sets);
    let data = films(dir.path(), &experiment);
    let mut events = Vec::new();
    let options = TrainOptions {
        out: dir.path().join("run"),
        resume: false,
        device: Device::flex(),
        ranks: &Ranks::alone(),
        threads: 1,
        on_event: &mut |event| events.push(event),
        stop_after: None,
    };
    let outcome = train(&experiment, &data, options).unwrap();
    let losses: Vec<f64> =
        events.iter().filter_map(|e| if let Event::Step(s) = e { Some(s.loss) } else { None }).collect();
    assert_eq!(losses.len(), 40);
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    assert!(mean(&losses[30..]) < 0.5 * mean(&losses[..10]), "{losses:?}");
    let checkpoints: Vec<u64> = events
        .iter()
        .filter_map(|e| if let Event::Checkpoint { step, .. } = e { Some(*step) } else { None })
        .collect();
    assert_eq!(checkpoints, [0, 20, 40]);
    assert!(events.iter().any(|e| matches!(e, Event::Evaluated { best: true, .. })));
    assert_eq!(outcome.metric, Some(1.0), "a bright square is easy to tell");
}

#[test]
fn a_small_sparse_rcnn_memorises_four_films() {
    memorises_four_films("sparse_rcnn_mini", "f32");
}

#[test]
fn a_small_sparse_rcnn_memorises_four_films_in_bf16() {
    memorises_four_films("sparse_rcnn_mini", "bf16");
}

#[test]
fn a_small_retinanet_memorises_four_films_in_bf16() {
    memorises_four_films("retinanet_mini", "bf16");
}

#[test]
fn a_small_efficientdet_memorises_four_films() {
    memorises_four_films("efficientdet_mini", "f32");
}

#[test]
fn a_small_faster_rcnn_memorises_four_films() {
    memorises_four_films("faster_rcnn_mini", "f32");
}

fn memorises_four_films(architecture: &str, precision: &str) {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        &format!("training.precision={precision}"),
        "schedule.total_steps=150",
        "training.eval_every=150",
        "training.checkpoint_every=150",
        "augment.flip=0.0",
        "augment.brightness=0.0",
    ];
    let experiment = experiment(architecture, dir.path(), &sets);
    let TrainData { cache, train: films, classes, hold_out, .. } = films(dir.path(), &experiment);
    // Shown and asked for the same four.
    let four: Vec<_> = films.into_iter().filter(|film| film.abnormal).take(4).collect();
    assert_eq!(four.len(), 4);
    let data = TrainData::new(cache, four.clone(), four, classes, hold_out, vec![]).unwrap();
    let mut losses = Vec::new();
    let options = TrainOptions {
        out: dir.path().join("run"),
        resume: false,
        device: Device::flex(),
        threads: 2,
        on_event: &mut |event| {
            if let Event::Step(step) = event {
                losses.push(step.loss);
            }
        },
        stop_after: None,
        ranks: &Ranks::alone(),
    };
    let outcome = train(&experiment, &data, options).unwrap();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (first, last) = (mean(&losses[..3]), mean(&losses[147..]));
    assert!(last < 0.2 * first, "{first} to {last}: {losses:?}");
    assert!(outcome.metric > Some(0.9), "mAP@0.5 {:?}, loss {first} to {last}", outcome.metric);
}

#[test]
fn films_that_cannot_be_prepared_are_left_out_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["schedule.total_steps=1", "schedule.warmup_steps=0"];
    let experiment = experiment("densenet_mini_b", dir.path(), &sets);
    let dataset = films::draw(dir.path());
    for broken in [3, 14] {
        std::fs::write(&dataset.films[broken].path, b"no film").unwrap();
    }
    let data = films::prepare(&experiment, dataset).unwrap();
    assert_eq!((data.train.len(), data.validation.len()), (11, 3));
    let out = dir.path().join("run");
    run(&experiment, &data, &out, false, None).unwrap();
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let image_ids = vec!["film03".to_owned(), "film14".to_owned()];
    assert_eq!(manifest.left_out, LeftOut { count: 2, image_ids });
}

#[test]
fn a_split_whose_films_all_fail_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment("densenet_mini_b", dir.path(), &[]);
    let dataset = films::draw(dir.path());
    for film in dataset.of(Split::Validation) {
        std::fs::write(&film.path, b"no film").unwrap();
    }
    let error = films::prepare(&experiment, dataset).unwrap_err();
    let TrainError::NonePrepared { split: Split::Validation, failed: 4, ref first } = error else {
        panic!("{error}")
    };
    assert!(first.contains("film12.png"), "{first}");
}

#[test]
fn a_loss_that_is_not_finite_stops_with_step_and_films() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["optimiser.lr=1e30", "schedule.warmup_steps=0", "training.clip=none"];
    let experiment = experiment("densenet_mini_a", dir.path(), &sets);
    let data = films(dir.path(), &experiment);
    let out = dir.path().join("run");
    let error = run(&experiment, &data, &out, false, None).unwrap_err();
    let TrainError::NotFinite { step, ref part, ref image_ids, .. } = error else { panic!("{error}") };
    assert!((2..=3).contains(&step), "{error}");
    assert!(part.starts_with("loss bce") || part.starts_with("gradient of "), "{error}");
    assert_eq!(image_ids.len(), 4);
    let message = error.to_string();
    assert!(message.contains(&format!("step {step}")) && message.contains(&image_ids[0]), "{message}");
    assert!(Checkpoint::read(&out.join("checkpoints/last.ckpt")).is_ok(), "what was there before remains");
}

#[test]
fn a_run_is_never_overwritten_nor_resumed_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let experiment_a =
        experiment("densenet_mini_b", dir.path(), &["schedule.total_steps=2", "schedule.warmup_steps=0"]);
    let data = films(dir.path(), &experiment_a);
    let out = dir.path().join("run");

    let nothing = run(&experiment_a, &data, &out, true, None).unwrap_err();
    assert!(matches!(nothing, TrainError::NothingToResume { .. }), "{nothing}");
    run(&experiment_a, &data, &out, false, Some(1)).unwrap();
    let exists = run(&experiment_a, &data, &out, false, None).unwrap_err();
    assert!(matches!(exists, TrainError::RunExists { .. }), "{exists}");

    for (key, set) in [("optimiser.lr", "optimiser.lr=1"), ("training.precision", BF16)] {
        let sets = ["schedule.total_steps=2", "schedule.warmup_steps=0", set];
        let other = experiment("densenet_mini_b", dir.path(), &sets);
        let differs = run(&other, &data, &out, true, None).unwrap_err();
        assert!(
            matches!(&differs, TrainError::ExperimentDiffers { key: found, .. } if found == key),
            "{differs}"
        );
    }

    let mut fewer = data.clone();
    fewer.train.pop();
    let TrainData { cache, train, validation, classes, hold_out, .. } = fewer;
    let fewer = TrainData::new(cache, train, validation, classes, hold_out, vec![]).unwrap();
    let films_differ = run(&experiment_a, &fewer, &out, true, None).unwrap_err();
    assert!(matches!(films_differ, TrainError::DataDiffers { .. }), "{films_differ}");

    let last = out.join("checkpoints/last.ckpt");
    let mut bytes = std::fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&last, &bytes).unwrap();
    let altered = run(&experiment_a, &data, &out, true, None).unwrap_err().to_string();
    assert!(altered.contains("last.ckpt") && altered.contains("altered: expected SHA-256"), "{altered}");
}

#[test]
fn frozen_layers_keep_weights_and_statistics() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "schedule.total_steps=2",
        "schedule.warmup_steps=0",
        "model.frozen=[\"features.conv0\", \"features.norm0\"]",
    ];
    let experiment_a = experiment("densenet_mini_b", dir.path(), &sets);
    let data = films(dir.path(), &experiment_a);
    let out = dir.path().join("run");
    let checkpoint = |stop| {
        run(&experiment_a, &data, &out, stop > 0, Some(stop)).unwrap();
        Checkpoint::read(&out.join("checkpoints/last.ckpt")).unwrap().model
    };
    let (before, after) = (checkpoint(0), checkpoint(2));
    for (name, tensor) in &before {
        let frozen = name.starts_with("features.conv0.") || name.starts_with("features.norm0.");
        assert_eq!(tensor == &after[name], frozen, "{name}");
    }
    let misspelt = experiment("densenet_mini_b", dir.path(), &["model.frozen=[\"features.conv1\"]"]);
    let error = run(&misspelt, &data, &dir.path().join("other"), false, None).unwrap_err().to_string();
    assert!(error.contains("model.frozen") && error.contains("features.conv1"), "{error}");
}

//! `spinexr train`: one model from a configuration file, by one process or by several together (docs/scale.md).

use crate::Global;
use crate::console::{Bar, list_failures};
#[cfg(feature = "mpi")]
use crate::exit;
use crate::exit::{CommandResult, Done, usage};
use crate::processes;
use crate::training;
use anyhow::Context;
#[cfg(feature = "mpi")]
use spinexr_train::mpi::World;
use spinexr_train::{Experiment, Precision, Ranks, RunState};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr train configs/improved/densenet121.toml --set data.dir=/data/vindr-spinexr\n  \
    spinexr train configs/improved/retinanet_r50.toml --set schedule.total_steps=2000 --out runs/short\n  \
    spinexr train runs/short/config.toml --resume --out runs/short     goes on after an interruption\n\n\
    The run's folder gets config.toml (as resolved), manifest.json, log.jsonl, TensorBoard events,\n\
    checkpoints and, at the end, <name>.spinexr: the bundle for predict. Films that cannot be read are listed\n\
    and left out; the run then ends with exit code 1.")]
pub struct Args {
    /// Configuration file
    config: PathBuf,
    /// Change one key, for example optimiser.lr=0.001
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the run; runs/NAME by default
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint in the run's folder
    #[arg(long)]
    resume: bool,
    /// Write a checkpoint and stop after this many steps of the whole run
    #[arg(long, value_name = "STEP")]
    stop_after: Option<u64>,
    /// Where to train: cpu, or a GPU backend this build has
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Seed of weights, order of films and augmentation; the configuration's by default
    #[arg(long)]
    seed: Option<u64>,
}

/// Trains alone, or with the processes that `mpirun` or `srun` started beside this one.
#[cfg(feature = "mpi")]
pub fn run(args: Args, global: &Global) -> CommandResult {
    let world = World::start().map_err(anyhow::Error::new)?;
    let ranks = world.ranks();
    processes::check(ranks.size())?;
    if ranks.size() == 1 {
        return train(args, global, ranks);
    }
    match train(args, global, ranks) {
        Ok(done) => Ok(done),
        // The others would wait for this process for ever.
        Err(error) => {
            exit::report(Err(error), global.json);
            world.abort(exit::FAILED)
        }
    }
}

/// Trains.
#[cfg(not(feature = "mpi"))]
pub fn run(args: Args, global: &Global) -> CommandResult {
    processes::check(1)?;
    train(args, global, &Ranks::alone())
}

fn train(args: Args, global: &Global, ranks: &Ranks) -> CommandResult {
    // One process speaks for all.
    let global = &Global { quiet: global.quiet || !ranks.is_first(), ..global.clone() };
    let mut sets = args.sets;
    sets.extend(args.seed.map(|seed| format!("seed={seed}")));
    let experiment = Experiment::load(&args.config, &sets).map_err(usage)?;
    let device = spinexr_infer::parse_device(&args.device).map_err(usage)?;
    spinexr_train::check_device(&experiment, &device).map_err(usage)?;
    let on_cpu = matches!(args.device.as_str(), "cpu" | "flex");
    if on_cpu && ranks.is_first() && experiment.training.precision == Precision::Bf16 {
        eprintln!(
            "NOTE: training.precision = \"bf16\" is meant for GPUs: the processor computes it by way of f32, in less \
             memory and more time"
        );
    }
    let out = args.out.unwrap_or_else(|| PathBuf::from("runs").join(&experiment.name));

    let bar = Bar::new("preparing films", global.quiet);
    let data = spinexr_train::load(&experiment, ranks, global.thread_count(), &|p| bar.update(p))
        .with_context(|| format!("loading the data set {}", experiment.data.dir.display()))?;
    bar.finish();
    if ranks.is_first() && !data.left_out.is_empty() {
        eprintln!("WARNING: films that cannot be prepared are left out ({}):", data.left_out.len());
        list_failures(data.left_out.iter().map(|film| &film.error));
    }
    if ranks.is_first() {
        eprintln!("{} training films, {} validation films", data.train.len(), data.validation.len());
        if ranks.size() > 1 {
            let films = experiment.training.batch_size * ranks.size();
            eprintln!("{} processes, {films} films a forward pass together", ranks.size());
        }
    }

    let outcome = training::run(&training::Session {
        experiment: &experiment,
        data: &data,
        out: &out,
        resume: args.resume,
        stop_after: args.stop_after,
        device: &args.device,
        ranks,
        threads: global.thread_count(),
        quiet: global.quiet,
    })?;
    let done = if data.left_out.is_empty() { Done::All } else { Done::SomeFailed };
    if !ranks.is_first() {
        return Ok(done);
    }
    let bundle = match outcome.state {
        RunState::Finished => {
            let path = out.join(format!("{}.spinexr", experiment.name));
            training::bundle(&experiment, &outcome, false)?
                .save(&path)
                .with_context(|| format!("writing the bundle {}", path.display()))?;
            eprintln!("{}: ready for `spinexr predict --model`", path.display());
            Some(path)
        }
        RunState::Running | RunState::Stopped => {
            eprintln!("stopped after step {}; go on with --resume", outcome.steps);
            None
        }
    };
    global.print_json(&serde_json::json!({
        "run": out,
        "bundle": bundle,
        "steps": outcome.steps,
        "best": outcome.best,
        "weights_hash": outcome.weights_hash,
        "final_weights_hash": outcome.final_weights_hash,
        "data_hash": outcome.data_hash,
        "failed": data.left_out,
    }))?;
    Ok(done)
}

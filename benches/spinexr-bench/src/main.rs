//! Our side of `cargo xtask bench-peers`.
//!
//! `inputs` makes what both sides read: weights, images, films, boxes and scores. `run` times one case and prints
//! one JSON line; `benches/peers/peers.py run` does the same case with the Python stack and prints the same line.
//! Reading inputs and building models is outside the time of every case.

mod cases;
mod inputs;
#[expect(dead_code, reason = "only the test split is asked for")]
#[path = "../../../crates/spinexr-eval/tests/made_up/mod.rs"]
mod made_up; // the records that spinexr-eval is tested and benchmarked on
mod measure;
mod sizes;

use anyhow::{Context, Result};
use cases::Case;
use clap::Parser;
use measure::{Outcome, Plan};
use sizes::Sizes;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "spinexr-bench", about = "Our side of `cargo xtask bench-peers`")]
enum Command {
    /// Make what both sides read, in a new or empty folder
    Inputs {
        /// Folder to fill
        dir: PathBuf,
        /// Sizes that run in seconds, to try the cases out
        #[arg(long)]
        tiny: bool,
    },
    /// Time one case and print one JSON line
    Run {
        /// Which case
        case: Case,
        /// The folder that `inputs` filled
        #[arg(long)]
        inputs: PathBuf,
        /// Threads of the pool
        #[arg(long, default_value = "2")]
        threads: NonZeroUsize,
        /// Runs before the first that counts
        #[arg(long, default_value_t = 1)]
        warmup: usize,
        /// Runs that count
        #[arg(long, default_value = "5")]
        iterations: NonZeroUsize,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Inputs { dir, tiny } => inputs::make(&dir, if tiny { &Sizes::TINY } else { &Sizes::FULL }),
        Command::Run { case, inputs, threads, warmup, iterations } => {
            // As the program itself starts.
            spinexr_ops::allocation::keep_freed_memory();
            rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
            let plan = Plan { threads: threads.get(), warmup, iterations: iterations.get() };
            let sizes = Sizes::read(&inputs)?;
            let (seconds, check) =
                case.run(&inputs, &sizes, &plan).with_context(|| format!("case {case}"))?;
            println!("{}", Outcome::new(case.to_string(), seconds, check).to_json());
            Ok(())
        }
    }
}

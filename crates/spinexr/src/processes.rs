//! What the environment says of processes started together.

use crate::exit::{CommandError, usage};
use anyhow::anyhow;

/// Where launchers write the number of processes: Open MPI's and PRRTE's `mpirun`, then MPICH's, Intel's and
/// Slurm's `srun --mpi=pmi2`.
const LAUNCHERS: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// That as many processes train together as were launched. Otherwise each of them would be a run of its own, all
/// in one folder.
pub fn check(training: usize) -> Result<(), CommandError> {
    let launched = LAUNCHERS.iter().find_map(|name| Some((*name, std::env::var(name).ok()?.parse().ok()?)));
    match launched {
        Some((name, launched)) if launched != training => {
            Err(usage(anyhow!(difference(name, launched, training))))
        }
        _ => Ok(()),
    }
}

fn difference(name: &str, launched: usize, training: usize) -> String {
    let remedy = if cfg!(feature = "mpi") {
        "the launcher and the MPI this program is linked with do not know each other"
    } else {
        "this build trains in one process: build it with `--features mpi`"
    };
    format!("expected the {launched} processes of {name} to train together, found {training}; {remedy}")
}

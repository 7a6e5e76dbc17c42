//! The processes that `mpirun` or `srun` started, over the system's MPI.

use crate::ranks::{Ranks, Sums};
use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};

/// MPI, from its start to its end. A process that leaves it in a panic takes all others down with it, so that
/// none waits for a sum that never comes.
pub struct World {
    // Dropping it ends MPI, which waits for all processes.
    _universe: Universe,
    ranks: Ranks,
}

/// MPI did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MpiError {
    /// It was started before, or has ended.
    #[error("MPI cannot be started twice in a process")]
    Twice,
    /// It does not allow calls from the thread that trains.
    #[error(
        "expected an MPI that takes calls from any one thread (MPI_THREAD_SERIALIZED), found one with {0:?}"
    )]
    Threads(String),
}

impl World {
    /// Starts MPI; waits for the processes started with this one.
    ///
    /// # Errors
    /// [`MpiError`].
    pub fn start() -> Result<Self, MpiError> {
        // The loop runs on a worker of the thread pool, and all calls of MPI come from it.
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Serialized).ok_or(MpiError::Twice)?;
        if threading < Threading::Serialized {
            return Err(MpiError::Threads(format!("{threading:?}")));
        }
        let world = universe.world();
        let ranks = Ranks::new(world.rank() as usize, world.size() as usize, |sums| match sums {
            Sums::F32(values) => sum(values),
            Sums::F64(values) => sum(values),
        });
        Ok(Self { _universe: universe, ranks })
    }

    /// The processes.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Ends all processes at once, with exit code `code`.
    pub fn abort(&self, code: u8) -> ! {
        SimpleCommunicator::world().abort(i32::from(code))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && self.ranks.size() > 1 {
            self.abort(101); // what a panic ends a Rust program with
        }
    }
}

fn sum<T: Equivalence + Copy>(values: &mut [T]) {
    let own = values.to_vec();
    SimpleCommunicator::world().all_reduce_into(&own[..], values, SystemOperation::sum());
}

//! The processes that train one model together, one a device.
//!
//! Every process holds the whole model, takes its share of each batch ([`spinexr_data::Share`]), and sums what
//! it found with the others: gradients once an update, sums of batch norms and counts of losses on the way
//! ([`spinexr_ops::ranks`]). All of them then make the same update. Only the first writes files.

use crate::error::TrainError;
use crate::state::sha256_hex;
use burn::tensor::{Device, Tensor, TensorData};
use spinexr_data::Share;
use spinexr_ops::ranks::SumOverRanks;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Values of gradients in one message: 4 MiB.
const BUCKET: usize = 1 << 20;

/// Values to be summed over all processes, in place.
#[derive(Debug)]
pub enum Sums<'a> {
    /// Gradients.
    F32(&'a mut [f32]),
    /// Statistics and counts.
    F64(&'a mut [f64]),
}

/// The processes, seen from one of them.
#[derive(Clone)]
pub struct Ranks {
    rank: usize,
    size: usize,
    sum: Arc<dyn Fn(Sums<'_>) + Send + Sync>,
}

impl Ranks {
    /// One process.
    pub fn alone() -> Self {
        Self { rank: 0, size: 1, sum: Arc::new(|_| {}) }
    }

    /// Process `rank` of `size`. `sum` adds up the values of all processes in place: a collective call, which
    /// all of them make equally often, in the same order and with equally many values, and from which all get the
    /// same bits. For a given size the order of summation must be fixed, so that a run can be repeated.
    ///
    /// # Panics
    /// When `rank` is not below `size`.
    pub fn new(rank: usize, size: usize, sum: impl Fn(Sums<'_>) + Send + Sync + 'static) -> Self {
        assert!(rank < size, "process {rank} of {size}");
        Self { rank, size, sum: Arc::new(sum) }
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This is the process that writes files, evaluates and speaks.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Waits for all processes.
    pub fn wait(&self) {
        self.sum(&mut [0.0]);
    }

    /// This process's share of the batches.
    pub(crate) fn share(&self) -> Share {
        Share { rank: self.rank as u64, of: self.size as u64 }
    }

    /// The sum for statistics and counts inside a step.
    pub(crate) fn sum_within_step(&self) -> SumOverRanks {
        let sum = Arc::clone(&self.sum);
        Arc::new(move |values| sum(Sums::F64(values)))
    }

    fn sum(&self, values: &mut [f64]) {
        (self.sum)(Sums::F64(values));
    }

    /// The first process's value, on all of them: what depends on the clock is decided once.
    pub(crate) fn decided_by_first(&self, value: bool) -> bool {
        let mut decision = [if self.is_first() && value { 1.0 } else { 0.0 }];
        self.sum(&mut decision);
        decision[0] > 0.0
    }

    /// Mean over the processes of values by name; the names are the same in all of them.
    pub(crate) fn mean_of_parts(&self, parts: &mut BTreeMap<String, f64>) {
        if self.size > 1 {
            let mut values: Vec<f64> = parts.values().copied().collect();
            self.sum(&mut values);
            parts.values_mut().zip(values).for_each(|(part, sum)| *part = sum / self.size as f64);
        }
    }

    /// That all processes have the same `text`.
    ///
    /// # Errors
    /// [`TrainError::RanksDiffer`], in all processes, with this one's hash of the text.
    pub(crate) fn check_same(&self, what: &'static str, text: &str) -> Result<(), TrainError> {
        if self.size == 1 {
            return Ok(());
        }
        let hash = sha256_hex(&[text]);
        // Of n numbers, n times the sum of squares is the square of the sum exactly when all are equal.
        let digits = || hash.bytes().map(f64::from);
        let mut sums: Vec<f64> = digits().chain(digits().map(|d| d * d)).collect();
        self.sum(&mut sums);
        let (first, second) = sums.split_at(hash.len());
        let n = self.size as f64;
        if first.iter().zip(second).all(|(sum, squares)| sum * sum == n * squares) {
            return Ok(());
        }
        Err(TrainError::RanksDiffer { what, rank: self.rank, size: self.size, hash })
    }

    /// Sums `gradients` (flat, by name) over the processes. `trainable`: name and length of every parameter, the
    /// same in all of them. A parameter without a gradient here counts as zeros where another process has one.
    pub(crate) fn sum_gradients(
        &self,
        trainable: &[(String, usize)],
        gradients: &mut BTreeMap<String, Tensor<1>>,
        device: &Device,
    ) {
        if self.size == 1 {
            return;
        }
        let mut held: Vec<f64> =
            trainable.iter().map(|(name, _)| f64::from(u8::from(gradients.contains_key(name)))).collect();
        self.sum(&mut held);
        let summed: Vec<&(String, usize)> = trainable
            .iter()
            .zip(held)
            .filter(|(_, held)| *held > 0.0)
            .map(|(parameter, _)| parameter)
            .collect();
        if summed.is_empty() {
            return;
        }
        let parts = summed
            .iter()
            .map(|(name, numel)| gradients.remove(name).unwrap_or_else(|| Tensor::zeros([*numel], device)));
        let mut flat: Vec<f32> = Tensor::cat(parts.collect(), 0).into_data().iter::<f32>().collect();
        flat.chunks_mut(BUCKET).for_each(|bucket| (self.sum)(Sums::F32(bucket)));
        let len = flat.len();
        let flat = Tensor::<1>::from_data(TensorData::new(flat, [len]), device);
        let mut start = 0;
        for (name, numel) in summed {
            gradients.insert(name.clone(), flat.clone().narrow(0, start, *numel));
            start += numel;
        }
    }
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {}", self.rank, self.size)
    }
}

//! The processes that train together: what must be summed over all of them in the middle of a step.
//!
//! Gradients are averaged once a step by the trainer. Two things cannot wait that long: the batch statistics of
//! a norm, with the sums of its backward step, and a count that a loss divides by. Both come here, so that n
//! processes with a batch of N each compute what one process computes with a batch of n·N.
//!
//! There is one such group a process, hence one for the whole program: [`join`] names it, and it holds until the
//! guard is dropped. Without one every function here returns what it was given.

use std::sync::{Arc, PoisonError, RwLock};

/// Adds up the values of all processes, in place. All of them must call it equally often, in the same order and
/// with equally many values; all get the same bits.
pub type SumOverRanks = Arc<dyn Fn(&mut [f64]) + Send + Sync>;

#[derive(Clone)]
struct Group {
    size: usize,
    sum: SumOverRanks,
}

static GROUP: RwLock<Option<Group>> = RwLock::new(None);

// The group is replaced as a whole: a panic elsewhere leaves it as it was.
fn group() -> Option<Group> {
    GROUP.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_group(group: Option<Group>) {
    *GROUP.write().unwrap_or_else(PoisonError::into_inner) = group;
}

/// While it lives, this process trains with others.
#[derive(Debug)]
#[must_use = "the group is left when this is dropped"]
pub struct Joined(());

impl Drop for Joined {
    fn drop(&mut self) {
        set_group(None);
    }
}

/// Joins the group of `size` processes whose values `sum` adds up. A group joined before is left.
///
/// # Panics
/// When `size` is 0.
pub fn join(size: usize, sum: SumOverRanks) -> Joined {
    assert!(size > 0, "a group has at least one process");
    set_group((size > 1).then_some(Group { size, sum }));
    Joined(())
}

/// Processes in the group; 1 without one.
pub fn size() -> usize {
    group().map_or(1, |group| group.size)
}

/// Adds up the values of all processes, in place.
pub fn sum(values: &mut [f64]) {
    if let Some(group) = group() {
        (group.sum)(values);
    }
}

/// What a loss divides by when its divisor is a count over the whole batch, at least 1: this process's share of
/// the count over all processes.
///
/// The trainer takes the mean of the processes' losses. With `total` the count over all of them, the mean of
/// `part / (max(total, 1) / size)` is the sum of the parts over `max(total, 1)`, as one process computes it.
pub fn count_to_divide_by(count: f64) -> f64 {
    let mut total = [count];
    sum(&mut total);
    total[0].max(1.0) / size() as f64
}

/// Mean and biased variance of channels over all processes, from this one's means and sums of squared distances
/// from them over `count` values a channel.
///
/// # Panics
/// When the processes have not equally many values: their batches are then not of one kind, and the mean of
/// their gradients would not be that of the joint batch.
pub(crate) fn join_moments(count: usize, moments: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let Some(group) = group() else {
        return moments.into_iter().map(|(mean, squares)| (mean, squares.max(0.0) / count as f64)).collect();
    };
    let n = count as f64;
    let mut sums = vec![n];
    sums.extend(moments.iter().flat_map(|&(mean, squares)| [n * mean, squares + n * mean * mean]));
    (group.sum)(&mut sums);
    let total = sums[0];
    assert!(
        total == n * group.size as f64,
        "batch norm: {count} values a channel here, {total} over {} processes; all need equally many",
        group.size
    );
    // In f64 the difference of the two squares keeps eight digits of a variance 1e8 times smaller than them.
    let (pairs, _) = sums[1..].as_chunks::<2>();
    let joint = |&[first, second]: &[f64; 2]| {
        let mean = first / total;
        (mean, (second / total - mean * mean).max(0.0))
    };
    pairs.iter().map(joint).collect()
}

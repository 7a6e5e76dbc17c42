//! How a library tells its caller how far it is: a callback, since only the binary prints.

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Items finished.
    pub done: usize,
    /// Items in all.
    pub total: usize,
}

/// Called from any thread, after each item.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// Tells no one.
pub fn silent(_: Progress) {}

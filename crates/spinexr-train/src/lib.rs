//! Training engine: experiments, optimisers, schedules, checkpoints, loggers

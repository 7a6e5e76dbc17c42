//! What a command ends with: 0 done, 1 some inputs failed, 2 wrong usage or configuration.

use std::process::ExitCode;

/// Exit code when some inputs, or the work itself, failed.
pub const FAILED: u8 = 1;
/// Exit code for wrong usage or configuration.
pub const USAGE: u8 = 2;

/// How a command that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Everything asked for was done.
    All,
    /// Some inputs failed; they were listed.
    SomeFailed,
}

/// Why a command did not run to its end.
#[derive(Debug)]
pub enum CommandError {
    /// The command line or a configuration file is wrong.
    Usage(anyhow::Error),
    /// As [`CommandError::Usage`], with a document on stdout that tells of it already.
    Told(anyhow::Error),
    /// The work failed.
    Failed(anyhow::Error),
}

/// What every command returns.
pub type CommandResult = Result<Done, CommandError>;

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Marks an error as one of usage or configuration.
pub fn usage(error: impl Into<anyhow::Error>) -> CommandError {
    CommandError::Usage(error.into())
}

/// An error and its causes, each said once: the text of many already holds their cause's.
fn in_words(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = vec![];
    for cause in error.chain() {
        let text = cause.to_string();
        if !said.last().is_some_and(|before| before.contains(&text)) {
            said.push(text);
        }
    }
    said.join(": ")
}

/// Prints the error, if any, and gives the exit code.
pub fn report(result: CommandResult, json: bool) -> ExitCode {
    let (error, code) = match result {
        Err(CommandError::Told(error)) => {
            eprintln!("spinexr: {}", in_words(&error));
            return ExitCode::from(USAGE);
        }
        Ok(Done::All) => return ExitCode::SUCCESS,
        Ok(Done::SomeFailed) => return ExitCode::from(FAILED),
        Err(CommandError::Usage(error)) => (error, USAGE),
        Err(CommandError::Failed(error)) => (error, FAILED),
    };
    eprintln!("spinexr: {}", in_words(&error));
    if json {
        println!("{}", serde_json::json!({ "error": in_words(&error), "exit_code": code }));
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_cause_is_said_once() {
        let disk = || std::io::Error::other("the disk is gone");
        let twice =
            Err::<(), _>(anyhow::Error::new(disk()).context("film.dcm: cannot read: the disk is gone"));
        assert_eq!(
            in_words(&twice.context("training").unwrap_err()),
            "training: film.dcm: cannot read: the disk is gone"
        );
        let apart = anyhow::Error::new(disk()).context("film.dcm");
        assert_eq!(in_words(&apart), "film.dcm: the disk is gone");
        assert_eq!(in_words(&anyhow!("alone")), "alone");
    }
}

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

/// Prints the error, if any, and gives the exit code.
pub fn report(result: CommandResult, json: bool) -> ExitCode {
    let (error, code) = match result {
        Err(CommandError::Told(error)) => {
            eprintln!("spinexr: {error:#}");
            return ExitCode::from(USAGE);
        }
        Ok(Done::All) => return ExitCode::SUCCESS,
        Ok(Done::SomeFailed) => return ExitCode::from(FAILED),
        Err(CommandError::Usage(error)) => (error, USAGE),
        Err(CommandError::Failed(error)) => (error, FAILED),
    };
    eprintln!("spinexr: {error:#}");
    if json {
        println!("{}", serde_json::json!({ "error": format!("{error:#}"), "exit_code": code }));
    }
    ExitCode::from(code)
}

//! How a command fails: an exit code that scripts can rely on, a message, a remedy.

use std::{fmt, process::ExitCode};

use crate::{cli::output, exit::Exit, probe::ProbeError};

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// What the process exits with.
    pub exit: Exit,
    /// What happened, with the thing and the value; each cause after a colon.
    pub error: anyhow::Error,
    /// What to do about it, if the message does not say so itself.
    pub remedy: Option<String>,
    /// The report that was printed says it all: exit without a message.
    silent: bool,
}

impl CliError {
    /// An error with this exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            remedy: None,
            silent: false,
        }
    }

    /// An error that is only a message.
    pub fn message(exit: Exit, message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::new(exit, anyhow::Error::msg(message))
    }

    /// An exit code alone, after a report that has said why.
    pub fn silent(exit: Exit) -> Self {
        Self {
            silent: true,
            ..Self::message(exit, "see above")
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Prints it to stderr and returns what to exit with.
    pub fn print(&self) -> ExitCode {
        if !self.silent {
            output::note(&self.to_string());
        }
        ExitCode::from(self.exit.code())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netfast: error: {:#}", self.error)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<ProbeError> for CliError {
    fn from(error: ProbeError) -> Self {
        let exit = if error.is_about_privileges() {
            Exit::Privileges
        } else {
            Exit::Unsupported
        };
        let remedy = error.remedy();
        Self::new(exit, error).remedy(remedy)
    }
}

/// Gives a failure its exit code.
pub trait Fail<T> {
    /// Turns the error into a [`CliError`] with this code.
    fn or_exit(self, exit: Exit) -> Result<T, CliError>;
}

impl<T, E: Into<anyhow::Error>> Fail<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, CliError> {
        self.map_err(|error| CliError::new(exit, error))
    }
}

/// What the parser has to say: help, the version, or what is wrong with the command line.
#[derive(Debug)]
pub struct Said(clap::Error);

impl From<clap::Error> for Said {
    fn from(error: clap::Error) -> Self {
        Self(error)
    }
}

impl Said {
    /// Prints it, help to stdout and errors to stderr, and returns what to exit with.
    pub fn print(&self) -> ExitCode {
        if self.0.use_stderr() {
            output::note(format!("netfast: {}", self.0.render()).trim_end());
            return ExitCode::from(Exit::Usage.code());
        }
        // Nobody is there to read it: that is no failure.
        let _ = self.0.print();
        ExitCode::SUCCESS
    }
}

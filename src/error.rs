//! One error type, sorted by whose fault it is, because that decides what happens next: a data fault quarantines
//! the case, a configuration fault stops before anything runs, a transient fault is tried again by the next run.

use std::fmt;
use std::io::ErrorKind;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The pipeline file or the command line asks for something that cannot be.
    Configuration,
    /// The case's own bytes: broken, implausible, or refused by quality control.
    Data,
    /// A file or a store could not be read or written; it may work next time.
    Io,
    /// Memory, disk or a device ran out.
    Resource,
    /// The case ran past its time limit.
    Timeout,
    /// The run was told to stop.
    Cancelled,
    /// Torcula's own mistake (a panic).
    Bug,
}

impl Fault {
    /// The word stored in the `failures` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Data => "data",
            Self::Io => "io",
            Self::Resource => "resource",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Bug => "bug",
        }
    }

    /// Whether the same input may succeed another time, so that the next run tries the case again.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Io | Self::Resource | Self::Timeout | Self::Cancelled)
    }
}

/// What went wrong, whose fault it is, and what to do about it.
#[derive(Debug, Clone)]
pub struct Error {
    fault: Fault,
    reason: String,
    hint: Option<String>,
    disk_full: bool,
}

impl Error {
    /// An error of the given fault. `reason` names the file or key, what was found and what was expected.
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), hint: None, disk_full: false }
    }

    /// The pipeline or the command line is wrong.
    pub fn configuration(reason: impl Into<String>) -> Self {
        Self::new(Fault::Configuration, reason)
    }

    /// The case's bytes are wrong.
    pub fn data(reason: impl Into<String>) -> Self {
        Self::new(Fault::Data, reason)
    }

    /// A file or store failed.
    pub fn io(reason: impl Into<String>) -> Self {
        Self::new(Fault::Io, reason)
    }

    /// Memory, disk or a device ran out.
    pub fn resource(reason: impl Into<String>) -> Self {
        Self::new(Fault::Resource, reason)
    }

    /// No space is left where something is to be written. Every other write would fail the same way, so it ends the run.
    pub fn disk_full(reason: impl Into<String>) -> Self {
        let error = Self { disk_full: true, ..Self::resource(reason) };
        error.hint(
            "free space, or write to another disk, then run again; what was committed is safe",
        )
    }

    /// A mistake of Torcula itself.
    pub fn bug(reason: impl Into<String>) -> Self {
        Self::new(Fault::Bug, reason)
    }

    /// The run was told to stop.
    pub fn cancelled() -> Self {
        Self::new(Fault::Cancelled, "the run was stopped")
    }

    /// Adds what the reader should do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts where it happened before the reason: `context: reason`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.reason = format!("{context}: {}", self.reason);
        self
    }

    /// The same error with its reason and hint written anew.
    #[must_use]
    pub fn rewritten(self, write: impl Fn(&str) -> String) -> Self {
        let (reason, hint) = (write(&self.reason), self.hint.as_deref().map(write));
        Self { reason, hint, ..self }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Whether a disk was full.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// What was found and what was expected, without the hint.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What to do, where something can be done.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::disk_full(error.to_string()),
            _ => Self::io(error.to_string()),
        }
    }
}

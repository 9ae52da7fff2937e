//! The one error of the instruments: what was being done, and why it failed.

use std::fmt::Display;

/// A failure of an instrument, not of the program under test.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct Error {
    doing: String,
    why: String,
}

/// The instruments' result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that has no source but itself.
    pub fn new(doing: impl Into<String>, why: impl Display) -> Self {
        Self { doing: doing.into(), why: why.to_string() }
    }
}

/// Says what was being done when something failed.
pub trait While<T> {
    /// Wraps the error with `doing`, a phrase such as `reading /proc/1/stat`.
    fn when(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Display> While<T> for std::result::Result<T, E> {
    fn when(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|why| Error::new(doing(), why))
    }
}

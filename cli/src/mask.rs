//! The umask of the programs: what they make and start is the same whoever calls them.

use lifecycle_steps::made::UMASK;
use rustix::fs::Mode;
use rustix::process::umask;

/// The caller's, for the files that he asks for.
#[derive(Clone, Copy, Debug)]
pub struct Callers(Mode);

/// Takes our own from here on.
#[must_use]
pub fn own() -> Callers {
    Callers(umask(UMASK))
}

impl Callers {
    /// Makes something with the permissions that the caller gives what is new.
    pub fn make<T>(self, make: impl FnOnce() -> T) -> T {
        let own = umask(self.0);
        let made = make();
        umask(own);
        made
    }
}

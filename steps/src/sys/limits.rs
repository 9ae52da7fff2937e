//! How many files the engine may have open: more than its caller, whose limit its children get.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the caller had, if it was raised.
static CALLERS: OnceLock<Rlimit> = OnceLock::new();

/// More than any run needs; some systems have no limit at all.
const ENOUGH: u64 = 1 << 16;

/// Raises the soft limit of open files (getrlimit(2), `RLIMIT_NOFILE`) towards the hard one, for this process alone. Answers with what it is then.
pub fn raise_open_files() -> io::Result<u64> {
    let own = getrlimit(Resource::Nofile);
    let most = own.maximum.unwrap_or(u64::MAX).min(ENOUGH);
    let now = own.current.unwrap_or(u64::MAX);
    if now >= most {
        return Ok(now);
    }
    CALLERS.get_or_init(|| own);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: own.maximum })?;
    Ok(most)
}

/// In a child: its limit is the caller's.
pub(super) fn give_back() {
    if let Some(callers) = CALLERS.get() {
        // Lowering a soft limit is refused to nobody.
        let _ = setrlimit(Resource::Nofile, *callers);
    }
}

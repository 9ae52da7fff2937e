//! What carries our names on the real machine, outside every lab.
//!
//! A lab hides the mounts, links and processes of its test. This looks at the machine itself when the tests are over: nothing there may
//! carry the tests' prefix but what other test programs, which are still running, hold.

use std::fs;

use libtest_mimic::Trial;

use crate::Result;
use crate::machine::{Part, Processes, Scope, Snapshot, cgroup_directories};

/// Begins the name of everything that the tests make: directories, cgroups, state roots.
pub const PREFIX: &str = "lctest-";

/// What carries the tests' prefix and belongs to no living test program, one line each.
pub fn leftovers() -> Result<Vec<String>> {
    let scope = Scope { processes: Processes::None, ..Scope::default() };
    let snapshot = Snapshot::take(&scope)?;
    let mut found = Vec::new();
    for part in [Part::Mounts, Part::Links] {
        let things = snapshot.part(part).iter().filter(|(name, what)| is_leftover(name) || is_leftover(what));
        found.extend(things.map(|(name, what)| format!("{part}: {name} {what}")));
    }
    let cgroups = cgroup_directories(&[PREFIX.into()])?;
    let cgroups = cgroups.iter().map(|dir| dir.display().to_string()).filter(|dir| is_leftover(dir));
    found.extend(cgroups.map(|dir| format!("cgroups: {dir}")));
    for dir in ["/run", "/run/lifecycle", "/tmp", "/dev/shm"] {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let paths = entries.flatten().map(|entry| entry.path().display().to_string());
        found.extend(paths.filter(|path| is_leftover(path)).map(|path| format!("files: {path}")));
    }
    Ok(found)
}

/// Whether a text holds a token whose tests are over: those of this program, and of programs that have ended.
fn is_leftover(text: &str) -> bool {
    let me = std::process::id().to_string();
    text.match_indices(PREFIX).any(|(at, _)| {
        let digits = text[at + PREFIX.len()..].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.is_empty() || digits == me || !std::path::Path::new("/proc").join(digits).exists()
    })
}

/// The audit as a test of its own, to be run when every other test of this program is over.
pub(crate) fn trial() -> Trial {
    Trial::test("nothing_of_the_tests_is_left_on_the_machine", || {
        let found = leftovers().map_err(|error| error.to_string())?;
        if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_living_test_program_holds_is_no_leftover() {
        assert!(!is_leftover(&format!("/run/{PREFIX}1-0/state")));
        assert!(is_leftover(&format!("/run/{PREFIX}{}-0/state", std::process::id())));
        assert!(is_leftover(&format!("/run/{PREFIX}4194305-0/state")));
        assert!(!is_leftover("/run/other"));
    }
}

//! What criu leaves behind where it is killed: the directory in which it builds the container's mounts.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::io::Errno;

use crate::effects::placed::Identity;

/// Its name, with six characters of mkdtemp(3) behind it.
const PREFIX: &str = "/tmp/.criu.mntns.";

/// The directory, by the log of the criu that has made it.
pub(super) fn found(log: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(log).ok()?;
    let random = text.split_once(PREFIX)?.1.get(..6).filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    let path = PathBuf::from(format!("{PREFIX}{random}"));
    Identity::of(CWD, &path, &path).ok().map(|(identity, _)| identity)
}

/// Removes it, if criu is gone and has not.
pub(super) fn remove(left: &Identity) -> Result<(), EffectError> {
    match Identity::of(CWD, &left.path, &left.path) {
        Ok((there, _)) if there == *left => {}
        _ => return Ok(()),
    }
    match unlinkat(CWD, &left.path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(EffectError::call(format!("rmdir({})", left.path.display()), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_names_is_removed_once_and_nothing_else_is() {
        let dir = PathBuf::from(format!("{PREFIX}{:06}", std::process::id() % 1_000_000));
        std::fs::create_dir(&dir).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("restore.log");
        assert!(found(&log).is_none());
        std::fs::write(&log, format!("(00.1) mnt: \t\tWill mount 74 @ {}/mnt-0000000074 /sys\n", dir.display()))
            .unwrap();
        let left = found(&log).unwrap();
        assert_eq!(left.path, dir);
        let other = Identity { inode: left.inode + 1, ..left.clone() };
        remove(&other).unwrap();
        assert!(dir.is_dir(), "it is another's");
        remove(&left).unwrap();
        assert!(!dir.exists());
        remove(&left).unwrap();
        std::fs::write(&log, format!("{PREFIX}../../x")).unwrap();
        assert!(found(&log).is_none());
    }
}

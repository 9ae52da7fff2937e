//! What a file that stands for a namespace is: the fact `namespace:PATH`, found out only for configs that join one.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, statfs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::spec::NamespaceType;
use crate::sys;

/// The prefix of the fact's name; the path follows.
pub(crate) const PREFIX: &str = "namespace:";

/// What is at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceFile {
    /// A namespace of this type.
    Type(NamespaceType),
    /// Something else.
    Other,
    /// It cannot be opened: the kernel's answer.
    Errno(i32),
}

/// Looked at before it is opened: another program's FIFO or device is not to be touched.
pub(super) fn namespace(path: &str) -> Value {
    let find = || {
        let path = Path::new(path);
        if statfs(path)?.f_type != sys::namespace::NSFS_MAGIC {
            return Ok(NamespaceFile::Other);
        }
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        let flag = sys::namespace::kind(file.as_fd())
            .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))?;
        let found = NamespaceType::ALL.into_iter().find(|kind| kind.flag() == flag);
        Ok(found.map_or(NamespaceFile::Other, NamespaceFile::Type))
    };
    let found = find().unwrap_or_else(|e: rustix::io::Errno| NamespaceFile::Errno(e.raw_os_error()));
    json!(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_by_its_file_and_nothing_else_is_one() {
        for kind in NamespaceType::ALL {
            let path = format!("/proc/self/ns/{}", kind.file());
            assert_eq!(namespace(&path), json!(NamespaceFile::Type(kind)), "{path}");
        }
        let scratch = tempfile::tempdir().expect("scratch");
        let fifo = scratch.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
        for path in [Path::new("/proc/self/status"), Path::new("/"), &fifo] {
            assert_eq!(namespace(path.to_str().expect("text")), json!(NamespaceFile::Other), "{}", path.display());
        }
        assert_eq!(namespace("/nonexistent"), json!({ "errno": 2 }));
    }
}

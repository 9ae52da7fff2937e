//! Files and directories, by path: type, mode, owner, size, content, extended attributes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use sha2::{Digest, Sha256};

use super::Things;
use crate::{Error, Result, While};

/// The trees, whole, and the entries of the listings.
pub(super) fn look(trees: &[PathBuf], listings: &[PathBuf]) -> Result<Things> {
    let mut things = Things::new();
    for tree in trees {
        match fs::symlink_metadata(tree) {
            Ok(top) => walk(tree, &top, top.dev(), &mut things)?,
            // A tree that is not there yet is a fact like any other.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::new(format!("looking at {}", tree.display()), error)),
        }
    }
    for dir in listings {
        let entries = fs::read_dir(dir).when(|| format!("listing {}", dir.display()))?;
        for entry in entries {
            let entry = entry.when(|| format!("listing {}", dir.display()))?;
            let kind = entry.file_type().when(|| format!("looking at {}", entry.path().display()))?;
            let kind = if kind.is_dir() { "a directory" } else { "an entry" };
            things.insert(entry.path().display().to_string(), kind.into());
        }
    }
    Ok(things)
}

fn walk(path: &Path, metadata: &Metadata, device: u64, things: &mut Things) -> Result<()> {
    if !metadata.is_dir() && metadata.dev() != device {
        // A namespace, say, which has no bytes to read. What is mounted is told among the mounts.
        things.insert(path.display().to_string(), "a mountpoint".into());
        return Ok(());
    }
    things.insert(path.display().to_string(), describe(path, metadata)?);
    if !metadata.is_dir() || metadata.dev() != device {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::new(format!("listing {}", path.display()), error)),
    };
    for entry in entries {
        let entry = entry.when(|| format!("listing {}", path.display()))?;
        match fs::symlink_metadata(entry.path()) {
            Ok(metadata) => walk(&entry.path(), &metadata, device, things)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::new(format!("looking at {}", entry.path().display()), error)),
        }
    }
    Ok(())
}

fn describe(path: &Path, metadata: &Metadata) -> Result<String> {
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "directory".into()
    } else if kind.is_symlink() {
        let target = fs::read_link(path).when(|| format!("reading the link {}", path.display()))?;
        format!("link to {}", target.display())
    } else if kind.is_fifo() {
        "fifo".into()
    } else if kind.is_socket() {
        "socket".into()
    } else if kind.is_char_device() || kind.is_block_device() {
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        format!("{} device {major}:{minor}", if kind.is_char_device() { "character" } else { "block" })
    } else {
        format!("file of {} bytes {}", metadata.size(), content(path, metadata)?)
    };
    let mut text = format!("{what} {:04o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    for (name, value) in attributes(path) {
        let _ = write!(text, " {name}={value}");
    }
    Ok(text)
}

/// What tells that a file has not been written since it was read: device, inode, size, and the time of its last change to the nanosecond.
type Version = (u64, u64, u64, i64, i64);

/// The hash of a file's content. Large files do not change between two snapshots, so each version is read once.
fn content(path: &Path, metadata: &Metadata) -> Result<String> {
    static READ: LazyLock<Mutex<HashMap<Version, String>>> = LazyLock::new(Mutex::default);
    let version = (metadata.dev(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec());
    // Coarse clocks may give two writes within one tick the same time: small files are read every time.
    let keep = metadata.size() > 64 * 1024;
    let read = || READ.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if keep && let Some(hash) = read().get(&version) {
        return Ok(hash.clone());
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok("gone while read".into()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok("unreadable".into()),
        Err(error) => return Err(Error::new(format!("opening {}", path.display()), error)),
    };
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).when(|| format!("reading {}", path.display()))?;
    let mut hash = String::from("sha256:");
    for byte in &hasher.finalize()[..8] {
        let _ = write!(hash, "{byte:02x}");
    }
    if keep {
        read().insert(version, hash.clone());
    }
    Ok(hash)
}

/// Extended attributes, in order. A file system that has none answers with an error.
fn attributes(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut attributes: Vec<_> = names
        .filter_map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).ok()?;
            let value = value[..length].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            Some((name, value))
        })
        .collect();
    attributes.sort();
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn mode_content_and_link_targets_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let tree = [dir.path().to_owned()];
        let file = dir.path().join("file");
        fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let first = look(&tree, &[]).unwrap();
        assert_eq!(first.len(), 3);

        fs::write(&file, "two").unwrap();
        let second = look(&tree, &[]).unwrap();
        assert_ne!(first, second, "the content differs, the size does not");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let third = look(&tree, &[]).unwrap();
        assert_ne!(second, third);
        assert!(third[&file.display().to_string()].contains(" 0600 "), "{third:?}");
        assert!(third[&dir.path().join("link").display().to_string()].starts_with("link to a "));
    }

    #[test]
    fn a_tree_that_is_not_there_is_empty() {
        assert!(look(&["/nonexistent/tree".into()], &[]).unwrap().is_empty());
    }
}

//! The way to something in the root that may have to be made.
//!
//! A symlink leads on although what it names is missing, as with runc. So a mount on a dangling symlink of the image makes the link's target, in the
//! root, and the link stays. No component is opened through a link, and none by `..`: a link's text is walked from the root or from the directory
//! that it lies in, and the way back is the descriptors that led there.

use super::root::is_in_proc;
use lifecycle_engine::error::EffectError;
use rustix::fs::{Mode, OFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows: path_resolution(7).
const MOST_LINKS: u32 = 40;

/// What a path leads to.
pub(super) struct Way<'a> {
    path: &'a Path,
    /// The innermost directory on the way that is there.
    pub(super) directory: OwnedFd,
    /// What is there in that directory and is none itself: the end of the way.
    pub(super) found: Option<(OsString, OwnedFd)>,
    /// What is missing below the directory.
    missing: Vec<OsString>,
}

impl<'a> Way<'a> {
    /// Walks from the root on, symlinks followed, as far as there is something. Nothing is made, but what a link leads into and out of again.
    pub(super) fn to(root: BorrowedFd, path: &'a Path) -> Result<Self, EffectError> {
        let failed = |errno| refused("resolve", path, errno);
        let mut walked: Vec<OwnedFd> = Vec::new();
        let mut missing: Vec<OsString> = Vec::new();
        let mut rest = parts(path);
        let mut links = 0;
        let mut end = None;
        while let Some(part) = rest.pop() {
            if part == ".." {
                // To the kernel the way back out of what is missing is none, and by this way the container will look for what is made.
                for name in std::mem::take(&mut missing) {
                    let made = make(walked.last().map_or(root, AsFd::as_fd), &name, 0o755).map_err(failed)?;
                    walked.push(made);
                }
                walked.pop();
                continue;
            }
            if !missing.is_empty() {
                missing.push(part);
                continue;
            }
            match look(walked.last().map_or(root, AsFd::as_fd), &part).map_err(failed)? {
                Found::Nothing => missing.push(part),
                Found::Directory(directory) => walked.push(directory),
                Found::Link(link) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(failed(Errno::LOOP));
                    }
                    let text = text_of(&link, path)?;
                    if text.is_absolute() {
                        walked.clear();
                    }
                    rest.extend(parts(&text));
                }
                Found::Other(file) if rest.is_empty() => end = Some((part, file)),
                Found::Other(_) => return Err(failed(Errno::NOTDIR)),
            }
        }
        let directory = walked.pop().map_or_else(
            || root.try_clone_to_owned().map_err(|e| EffectError::call("fcntl(F_DUPFD_CLOEXEC)", e)),
            Ok,
        )?;
        Ok(Self { path, directory, found: end, missing })
    }

    /// The last name of the way, which need not be there; `None` where it leads to a directory.
    pub(super) fn name(&self) -> Option<PathBuf> {
        self.found.as_ref().map(|(name, _)| name).or(self.missing.last()).map(PathBuf::from)
    }

    /// The directory that it leads to, if that is there.
    pub(super) fn end(&self) -> Option<&OwnedFd> {
        (self.found.is_none() && self.missing.is_empty()).then_some(&self.directory)
    }

    /// What is there at its end, or what is made there to be mounted on: a directory, or for the mount of a file an empty file.
    pub(super) fn mountpoint(mut self, directory: bool) -> Result<OwnedFd, EffectError> {
        if let Some((_, found)) = self.found.take() {
            return Ok(found);
        }
        let Some(name) = self.name().filter(|_| !directory) else { return self.make(0o755) };
        let path = self.path;
        let around = self.make_around(0o755)?;
        // What has come meanwhile is not taken for the mountpoint.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(&around, &name, flags, Mode::from_raw_mode(0o644)).map_err(|errno| {
            EffectError::call(format!("openat(\"{}\", O_CREAT | O_EXCL)", path.display()), errno).help(match errno {
                Errno::EXIST => "somebody with access to the root makes something else there",
                Errno::ROFS => "the mountpoint is missing in a read-only root; add it to the image",
                _ => "the mountpoint cannot be made",
            })
        })
    }

    /// The directory around the last name, made where it is missing.
    pub(super) fn make_around(mut self, mode: u32) -> Result<OwnedFd, EffectError> {
        self.missing.pop();
        self.made(mode)
    }

    /// The directory at the end of the way, made where it is missing.
    pub(super) fn make(self, mode: u32) -> Result<OwnedFd, EffectError> {
        if self.found.is_some() {
            return Err(refused("make the directory", self.path, Errno::NOTDIR));
        }
        self.made(mode)
    }

    fn made(self, mode: u32) -> Result<OwnedFd, EffectError> {
        let made = self.missing.iter().try_fold(self.directory, |around, name| make(around.as_fd(), name, mode));
        made.map_err(|errno| refused("make the directory", self.path, errno))
    }
}

fn make(around: BorrowedFd, name: &OsStr, mode: u32) -> Result<OwnedFd, Errno> {
    match mkdirat(around, name, Mode::from_raw_mode(mode)) {
        // Somebody else's will do, as long as it is a directory.
        Ok(()) | Err(Errno::EXIST) => openat(around, name, HERE | OFlags::DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Nothing is followed, and nothing is opened but a place.
const HERE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What has a name in a directory.
enum Found {
    Nothing,
    Directory(OwnedFd),
    Link(OwnedFd),
    Other(OwnedFd),
}

fn look(directory: BorrowedFd, name: &OsStr) -> Result<Found, Errno> {
    match openat(directory, name, HERE | OFlags::DIRECTORY, Mode::empty()) {
        Ok(found) => return Ok(Found::Directory(found)),
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(Errno::NOTDIR) => {}
        Err(errno) => return Err(errno),
    }
    let found = openat(directory, name, HERE, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    Ok(if kind == rustix::fs::FileType::Symlink { Found::Link(found) } else { Found::Other(found) })
}

/// What a symlink says. One of procfs says what is no path, or one of the host's, and nothing can be made through it.
fn text_of(link: &OwnedFd, path: &Path) -> Result<PathBuf, EffectError> {
    if is_in_proc(link)? {
        let how = format!("\"{}\" leads into /proc, by a link that is there", path.display());
        return Err(EffectError::new(how).help("nothing can be made there, and nothing may be mounted there"));
    }
    let text = readlinkat(link, c"", Vec::new()).map_err(|errno| refused("readlink", path, errno))?;
    Ok(OsString::from_vec(text.into_bytes()).into())
}

/// The path's parts, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let wanted = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    wanted.rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// A path in the root that cannot be reached or made.
pub(super) fn refused(what: &str, path: &Path, errno: Errno) -> EffectError {
    EffectError::call(format!("{what} \"{}\" in the container's root", path.display()), errno).help(match errno {
        Errno::NOTDIR | Errno::EXIST => "a part of the path is not a directory in the image",
        Errno::LOOP => "the image has a loop of symlinks there",
        Errno::NOENT => "a symlink on the way leads nowhere in the image",
        Errno::ROFS => "the directory is missing in a read-only root; add it to the image",
        Errno::ACCESS | Errno::PERM => "the container's root user may not write there: who owns the root file system?",
        _ => "the path cannot be used",
    })
}

#[cfg(test)]
mod tests {
    use crate::effects::inside::root::{Root, open_host};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// By name.
    type Links = &'static [(&'static str, &'static str)];

    /// Links, a path, and what is made for it: below the root, as a file.
    const MADE: [(Links, &str, &str); 7] = [
        (&[], "/a/b/file", "a/b/file"),
        (&[("link", "../../gone/file")], "/link", "gone/file"),
        (&[("link", "/gone")], "/link/file", "gone/file"),
        (&[("link", "one"), ("one", "two"), ("two", "/deep/end")], "/link", "deep/end"),
        (&[("link", "gone/../file")], "/link", "file"),
        (&[("link", "there/../../../file")], "/link", "file"),
        (&[("there/link", "../there/./file")], "/there/link", "there/file"),
    ];

    #[test]
    fn what_a_link_leads_to_is_made_in_the_root() {
        for (links, path, made) in MADE {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            fs::create_dir_all(root.join("there")).unwrap();
            for (name, target) in links {
                symlink(target, root.join(name)).unwrap();
            }
            let fd = open_host(&root).unwrap();
            for _ in 0..2 {
                Root::at(&fd).mountpoint(Path::new(path), false).unwrap();
                assert!(fs::symlink_metadata(root.join(made)).unwrap().is_file(), "{links:?}");
            }
            for (name, target) in links {
                assert_eq!(fs::read_link(root.join(name)).unwrap(), Path::new(target));
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{links:?}: something was made beside the root");
        }
    }

    #[test]
    fn loops_files_on_the_way_and_links_of_proc_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (root, host) = (open_host(dir.path()).unwrap(), open_host(Path::new("/")).unwrap());
        fs::write(dir.path().join("file"), "").unwrap();
        let links = [("loop", "loop"), ("a", "b/x"), ("b", "a/x"), ("on", "file/x"), ("back", "file/../x")];
        for (name, target) in links {
            symlink(target, dir.path().join(name)).unwrap();
        }
        for (name, _) in links {
            for directory in [false, true] {
                let error = Root::at(&root).mountpoint(Path::new(name), directory).unwrap_err();
                assert!(error.errno.is_some(), "{name}: {error}");
            }
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
        for path in ["/proc/self/cwd/made", "/proc/thread-self/root/made"] {
            Root::at(&host).mountpoint(Path::new(path), false).unwrap_err();
        }
        assert!(!Path::new("/made").exists());
    }
}

//! How something is put into a directory of the host, so that what is taken back is provably ours.
//!
//! It is made under a name that only we choose, its identity is journaled, and only then is it renamed into its place, which fails if
//! somebody else has put something there meanwhile. Whatever moment the engine dies at, undo finds either our name or our identity.

use crate::made;
use lifecycle_engine::effect::{Applied, Cx, Interest, Pending, Record, RunNames, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, StatxFlags, openat, renameat_with, statx, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What to do where there is something already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// It is an error.
    #[default]
    Refuse,
    /// It stays as it is, and stays when the run is undone, if it is of the same type.
    Keep,
}

impl Existing {
    /// Whether it is the usual one; effects leave it out of their JSON then.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What tells a file from another one that later has its place, or its inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Where it is put.
    pub path: PathBuf,
    /// The file system's device number.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// When it was made, in nanoseconds since the epoch, where the file system knows: an inode is used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<u64>,
}

impl Identity {
    /// Of what is there now, symlinks not followed.
    pub(super) fn of(dir: BorrowedFd, name: &Path, path: &Path) -> Result<(Self, FileType), Errno> {
        let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let born = (stat.stx_mask & StatxFlags::BTIME.bits() != 0)
            .then(|| stat.stx_btime.tv_sec as u64 * 1_000_000_000 + u64::from(stat.stx_btime.tv_nsec));
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let identity = Self { path: path.to_owned(), device, inode: stat.stx_ino, born };
        Ok((identity, FileType::from_raw_mode(stat.stx_mode.into())))
    }

    /// The part that others may refer to.
    fn public(&self) -> Value {
        json!({ "path": self.path, "device": self.device, "inode": self.inode })
    }
}

/// Something that is put into a directory of the host.
pub(super) trait Place {
    /// Where. Absolute.
    fn path(&self) -> &Path;
    /// What to do where there is something already.
    fn existing(&self) -> Existing;
    /// It stays when the run is taken back.
    fn stays(&self) -> bool {
        false
    }
    /// What it is.
    fn file_type(&self) -> FileType;
    /// Makes it under this name.
    fn make(&self, dir: BorrowedFd, name: &Path, cx: &Cx) -> Result<(), EffectError>;
    /// Directories around it that are made with it, the outermost first, and removed with it unless others use them by then.
    fn parents(&self, before: &Value) -> Vec<PathBuf> {
        let _ = before;
        Vec::new()
    }
}

/// What is renamed into its place as one: the outermost directory that is made, or the thing itself.
fn top<'a>(place: &'a impl Place, parents: &'a [PathBuf]) -> &'a Path {
    parents.first().map_or(place.path(), PathBuf::as_path)
}

/// Applies an effect that is a [`Place`].
pub(super) fn apply(place: &impl Place, before: &Value, cx: &Cx) -> Result<Applied, EffectError> {
    let parents = place.parents(before);
    let path = top(place, &parents);
    let (dir, name) = open_parent(path)?;
    match Identity::of(dir.as_fd(), name, path) {
        Ok((found, kind)) if parents.is_empty() => return keep(place, &found, kind),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(EffectError::call(format!("statx(\"{}\")", path.display()), errno)),
    }
    let below = below(temporary_name(cx.run, cx.step, cx.effect), place.path(), path);
    // Left by an attempt of ours that was cut off.
    remove_chain(dir.as_fd(), &below, place.file_type(), path)?;
    let places = parents.iter().map(PathBuf::as_path).chain([place.path()]);
    let identities = make_chain(place, dir.as_fd(), &below, places, cx)?;
    let name = name.to_owned();
    Ok(Applied::Pending(Box::new(Placing {
        dir,
        below,
        name,
        identities,
        kind: place.file_type(),
        existing: place.existing(),
        outcome: Value::Null,
    })))
}

/// The permissions of directories that are made on the way to another one.
const PARENTS: Mode = Mode::from_raw_mode(0o755);

/// The names of everything from `top` to `leaf`, each in the one before; the outermost has a temporary one.
fn below(temporary: PathBuf, leaf: &Path, top: &Path) -> Vec<PathBuf> {
    let inner = leaf.strip_prefix(top).unwrap_or(Path::new(""));
    std::iter::once(temporary).chain(inner.iter().map(PathBuf::from)).collect()
}

/// Makes the directories on the way, and the thing itself in the last of them; answers with the identity of each, whose place will be that in
/// `places`. Each is entered by descriptor: whoever may write to the directory around them may put a link in the place of one.
fn make_chain<'p>(
    place: &impl Place,
    dir: BorrowedFd,
    names: &[PathBuf],
    places: impl Iterator<Item = &'p Path>,
    cx: &Cx,
) -> Result<Vec<Identity>, EffectError> {
    let mut around: Option<OwnedFd> = None;
    let mut identities = Vec::new();
    for (depth, (name, path)) in names.iter().zip(places).enumerate() {
        let at = around.as_ref().map_or(dir, AsFd::as_fd);
        let is_last = depth + 1 == names.len();
        if is_last {
            place.make(at, name, cx)?;
        } else {
            made::directory(at, name, PARENTS, None)?;
        }
        let (identity, _) = Identity::of(at, name, path)
            .map_err(|errno| EffectError::call(format!("statx(\"{}\")", name.display()), errno))?;
        identities.push(identity);
        if !is_last {
            around = Some(made::enter(at, name)?);
        }
    }
    Ok(identities)
}

/// Takes an effect that is a [`Place`] back.
pub(super) fn undo(place: &impl Place, record: &Record, cx: &Cx) -> Result<Undone, EffectError> {
    let parents = place.parents(&record.before);
    let path = top(place, &parents);
    match open_parent(path) {
        Ok((dir, _)) => {
            let names = below(temporary_name(cx.run, cx.step, cx.effect), place.path(), path);
            remove_chain(dir.as_fd(), &names, place.file_type(), path)?;
        }
        // With the directory, what was in it has gone.
        Err(error) if error.errno == Some(Errno::NOENT.raw_os_error()) => return Ok(Undone::Done),
        Err(error) => return Err(error),
    }
    let started = record.started.as_ref();
    let ours: Vec<Identity> = started.and_then(|started| Deserialize::deserialize(started).ok()).unwrap_or_default();
    if ours.is_empty() {
        return Ok(Undone::Nothing);
    }
    if place.stays() {
        return Ok(Undone::Kept);
    }
    for (depth, identity) in ours.iter().rev().enumerate() {
        match take_back(identity) {
            // A directory that was made on the way, and that others have come to use, is theirs.
            Err(error) if depth > 0 && error.errno == Some(Errno::NOTEMPTY.raw_os_error()) => break,
            answer => answer?,
        }
    }
    Ok(Undone::Done)
}

/// Removes what has this identity. What has gone, or has made room for somebody else's, is not ours any more.
fn take_back(ours: &Identity) -> Result<(), EffectError> {
    let (dir, name) = match open_parent(&ours.path) {
        Ok(parent) => parent,
        Err(error) if error.errno == Some(Errno::NOENT.raw_os_error()) => return Ok(()),
        Err(error) => return Err(error),
    };
    match Identity::of(dir.as_fd(), name, &ours.path) {
        Err(Errno::NOENT) => Ok(()),
        Ok((found, _)) if found != *ours => Ok(()),
        Ok((_, kind)) => remove(dir.as_fd(), name, kind, &ours.path),
        Err(errno) => Err(EffectError::call(format!("statx(\"{}\")", ours.path.display()), errno)),
    }
}

fn keep(place: &impl Place, found: &Identity, kind: FileType) -> Result<Applied, EffectError> {
    let path = place.path().display();
    match place.existing() {
        Existing::Refuse => Err(EffectError::call(format!("making \"{path}\""), Errno::EXIST).help(
            "something is there already and is not touched; choose another path, or keep it with `existing: keep`",
        )),
        Existing::Keep if kind == place.file_type() => Ok(Applied::Done(found.public())),
        Existing::Keep => Err(other_type(place.path(), kind, place.file_type())),
    }
}

fn other_type(path: &Path, found: FileType, wanted: FileType) -> EffectError {
    EffectError::call(format!("making \"{}\"", path.display()), Errno::EXIST)
        .help(format!("what is there is a {found:?}, not a {wanted:?}"))
}

/// The name that is ours alone: it holds a hash of the run and of the effect.
fn temporary_name(run: &RunNames, step: &str, effect: u32) -> PathBuf {
    let effect = RunNames { root: run.root.clone(), id: format!("{}\0{step}\0{effect}", run.id) };
    // The tag tells it from all others; of a long id as much is shown as a file name holds.
    PathBuf::from(format!(".lifecycle-{:.200}-{}", run.id, effect.tag()))
}

fn open_parent(path: &Path) -> Result<(OwnedFd, &Path), EffectError> {
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
        return Err(EffectError::new(format!("\"{}\" is not an absolute path that ends in a name", path.display())));
    };
    let dir =
        openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
            EffectError::call(format!("open(\"{}\", O_DIRECTORY)", parent.display()), errno)
                .help("the directory around it must exist; make it with a step `fs.directory` before")
        })?;
    Ok((dir, Path::new(name)))
}

/// Removes what has these names, each in the one before; the innermost is of type `kind`. `path` is for the message.
fn remove_chain(dir: BorrowedFd, names: &[PathBuf], kind: FileType, path: &Path) -> Result<(), EffectError> {
    let Some((name, inner)) = names.split_first() else { return Ok(()) };
    if inner.is_empty() {
        return remove(dir, name, kind, path);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Ok(around) => remove_chain(around.as_fd(), inner, kind, path)?,
        // A link in its place is not ours, and below it nothing is: removing it fails, and says so.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Err(EffectError::call(format!("open(\"{}\", O_DIRECTORY)", path.display()), errno)),
    }
    remove(dir, name, FileType::Directory, path)
}

/// Removes what has this name, if there is anything. `path` is for the message.
fn remove(dir: BorrowedFd, name: &Path, kind: FileType, path: &Path) -> Result<(), EffectError> {
    let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => {
            let call = if kind == FileType::Directory { "rmdir" } else { "unlink" };
            Err(EffectError::call(format!("{call}(\"{}\")", path.display()), errno).help(match errno {
                Errno::NOTEMPTY => {
                    "something else was put into the directory; move it away, then undo again. A plan whose directory is to stay says `keep: true`; \
                     `lifecycle undo RUN --forget STEP` leaves this one"
                }
                Errno::BUSY => "something is mounted there; unmount it, then undo again",
                Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                    "the directory around it can no longer be written; then undo again"
                }
                _ => "remove it by hand, then undo again",
            }))
        }
    }
}

/// Made, and not yet in its place.
struct Placing {
    dir: OwnedFd,
    /// Names, each in the one before, the outermost a temporary one.
    below: Vec<PathBuf>,
    name: PathBuf,
    identities: Vec<Identity>,
    kind: FileType,
    existing: Existing,
    outcome: Value,
}

impl Placing {
    fn identity(&self) -> &Identity {
        &self.identities[self.identities.len() - 1]
    }

    /// Somebody has put something there since it was looked for.
    fn overtaken(&self) -> Result<Value, EffectError> {
        remove_chain(self.dir.as_fd(), &self.below, self.kind, &self.identity().path)?;
        let path = &self.identity().path;
        let (found, kind) = open_parent(path).and_then(|(dir, name)| {
            Identity::of(dir.as_fd(), name, path).map_err(|errno| {
                EffectError::call(format!("statx(\"{}\")", path.display()), errno)
                    .help("somebody else is making the directories around it at this moment; try again")
            })
        })?;
        if kind == self.kind { Ok(found.public()) } else { Err(other_type(path, kind, self.kind)) }
    }
}

impl Pending for Placing {
    fn started(&self) -> Value {
        json!(self.identities)
    }

    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        self.outcome = match renameat_with(&self.dir, &self.below[0], &self.dir, &self.name, RenameFlags::NOREPLACE) {
            Ok(()) => self.identity().public(),
            Err(Errno::EXIST) if self.existing == Existing::Keep => self.overtaken()?,
            Err(errno) => {
                let call = format!("renameat2(\"{}\", RENAME_NOREPLACE)", self.identities[0].path.display());
                return Err(EffectError::call(call, errno).help(match errno {
                    Errno::EXIST => "somebody else has put something there meanwhile; it is not touched",
                    Errno::INVAL => "the file system cannot rename without replacing; use a path on another one",
                    _ => "it cannot be put into its place",
                }));
            }
        };
        Ok(())
    }

    fn interest(&self, _wants: &mut Vec<Interest>) {}

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        Ok(Some(self.outcome.take()))
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}

#[cfg(test)]
mod tests;

//! A mount on the host.

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::facts::boot_id;
use crate::mounts::table::{self, MountId};
use crate::mounts::{Api, Options, api};

/// Mounts a file system, or binds a path, on a directory or file of the host that is there. It is made attached nowhere, recorded, and then
/// attached, so undo unmounts this mount and no other.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Where. Absolute; a symlink at its end is followed.
    pub target: PathBuf,
    /// The file system's type; absent for a bind mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A device's name, or for a bind mount an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Options, as the runtime-spec writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Which calls set its attributes: mount_setattr(2) before it is attached, or mount(2), which changes attached mounts only, right after.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
    /// The kernel gives a mount's number to another one later (before Linux 6.8).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused_ids: bool,
    /// Whatever is mounted on it by then goes along with it: it is a container's root in mounts that others see, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_all_on_it: bool,
}

/// How many mounts are taken off another one. Whoever made them is gone, and makes no more.
const MOST_ON_IT: u32 = 10_000;

/// What tells the mount from others: the kernel's numbers begin anew with every boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    mount: MountId,
    boot: String,
    /// What the mount shows, for a number that is used again. Absent in journals of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Root>,
}

/// The root of a mount: the device of its file system, and which file or directory of that is seen. The numbers of a tmpfs are used again as those of
/// mounts are, so its birth counts, too, where the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Root {
    major: u32,
    minor: u32,
    ino: u64,
    /// Seconds and nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<(i64, u32)>,
}

impl Root {
    fn of(fd: &OwnedFd) -> Result<Self, EffectError> {
        let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)
            .map_err(|errno| EffectError::call("statx(mount)", errno))?;
        let told = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = told.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
        Ok(Self { major: stat.stx_dev_major, minor: stat.stx_dev_minor, ino: stat.stx_ino, born })
    }
}

impl Identity {
    fn of(mount: &OwnedFd, reused_ids: bool) -> Result<Self, EffectError> {
        let id = table::mount_id(mount, reused_ids)?;
        let root = if id.unique { None } else { Some(Root::of(mount)?) };
        Ok(Self { mount: id, boot: boot_id().to_owned(), root })
    }

    /// Whether what is at the target is the mount. A number that may be another mount's by now proves nothing alone: what the mount shows has to be
    /// the same, and it has to be mounted here.
    fn is_of(&self, top: &OwnedFd, target: &Path) -> Result<bool, EffectError> {
        if table::mount_id(top, !self.mount.unique)? != self.mount {
            return Ok(false);
        }
        if self.mount.unique {
            return Ok(true);
        }
        let shown = self.root.map_or(Ok(true), |root| Root::of(top).map(|now| now == root))?;
        let here = table::read()?.iter().any(|mount| mount.id == self.mount.id && mount.target == real(target));
        Ok(shown && here)
    }
}

impl Identity {
    /// Whether what is at the target was mounted there on top of it.
    fn is_below(&self, top: &OwnedFd, target: &Path) -> Result<bool, EffectError> {
        let (all, path) = (table::read()?, real(target));
        let number = table::number(top)?;
        let is_on_the_target = all.iter().any(|mount| mount.id == number && mount.target == path);
        let is_there = if self.mount.unique {
            crate::sys::mount::is_attached(self.mount.id).unwrap_or(false)
        } else {
            // A number that is the top's own by now is ours no more.
            all.iter().any(|mount| mount.id == self.mount.id && mount.id != number && mount.target == path)
        };
        Ok(is_on_the_target && is_there)
    }
}

/// The path as the kernel lists it. One that cannot be resolved is on no list.
fn real(target: &Path) -> PathBuf {
    std::fs::canonicalize(target).unwrap_or_default()
}

impl EffectDef for Mount {
    const KIND: &'static str = "mount";

    fn examples(scratch: &Path) -> Vec<Self> {
        let options = |list: &[&str]| list.iter().map(|option| (*option).to_owned()).collect();
        let tmpfs = |api, reused_ids| Self {
            target: scratch.to_owned(),
            kind: Some("tmpfs".into()),
            source: Some("tmpfs".into()),
            options: options(&["nosuid", "mode=700", "private"]),
            api,
            reused_ids,
            with_all_on_it: false,
        };
        let bind = |api, reused_ids| Self {
            target: scratch.to_owned(),
            kind: None,
            source: Some("/etc".into()),
            options: options(&["bind", "ro", "private"]),
            api,
            reused_ids,
            with_all_on_it: true,
        };
        let ways = [(Api::Detached, false), (Api::Classic, false), (Api::Classic, true)];
        ways.into_iter().flat_map(|(api, reused)| [tmpfs(api, reused), bind(api, reused)]).collect()
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let options = if self.options.is_empty() { String::new() } else { format!(" ({})", self.options.join(",")) };
        let source = self.source.as_deref().unwrap_or(Path::new("nothing")).display();
        match &self.kind {
            None => format!("bind {source} on {}{options}", self.target.display()),
            Some(kind) => format!("mount {kind} on {}{options}", self.target.display()),
        }
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let options = Options::parse(&self.options).map_err(EffectError::new)?;
        let target = self.open_target()?.ok_or_else(|| {
            EffectError::call(format!("open(\"{}\")", self.target.display()), Errno::NOENT)
                .help("the mountpoint must exist; make it with a step `fs.directory` before")
        })?;
        let mount = match (&self.kind, options.bind) {
            (_, Some(bind)) => {
                let source = self.source.as_deref().ok_or_else(|| EffectError::new("a bind mount needs a source"))?;
                api::clone_tree(api::open_source(source)?, source, bind)?
            }
            (Some(kind), None) => {
                let source = self.source.as_ref().map(|source| source.to_string_lossy());
                api::new_file_system(kind, source.as_deref(), &options)?
            }
            (None, None) => return Err(EffectError::new("a mount needs a type, or the option `bind` or `rbind`")),
        };
        let later = match self.api {
            // What is attached to a mount that is shared becomes shared itself.
            Api::Detached => api::configure(&mount, &options, None)
                .map(|()| Options { propagation: options.propagation, ..Options::default() }),
            Api::Classic if options.id_map.is_some() => {
                Err(EffectError::new(format!("the id-mapped mount on {}", self.target.display()))
                    .help("it needs mount_setattr, Linux 5.12"))
            }
            Api::Classic => Ok(options),
        }?;
        let identity = Identity::of(&mount, self.reused_ids)?;
        Ok(Applied::Pending(Box::new(Attaching {
            mount,
            target,
            path: self.target.clone(),
            api: self.api,
            later,
            identity,
        })))
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        // What was not recorded was not attached, and what is attached nowhere goes with its maker.
        let Some(ours) = record.outcome::<Identity>().filter(|ours| ours.boot == boot_id()) else {
            return Ok(Undone::Done);
        };
        let mut on_it = 0;
        loop {
            let Some(top) = self.open_target()? else { return Ok(Undone::Done) };
            if ours.is_of(&top, &self.target)? {
                self.detach(&top)?;
                return Ok(Undone::Done);
            }
            if !self.with_all_on_it || on_it == MOST_ON_IT || !ours.is_below(&top, &self.target)? {
                break;
            }
            self.detach(&top)?;
            on_it += 1;
        }
        if is_covered(&self.target)? {
            return Err(EffectError::new(format!("something else was mounted over {}", self.target.display()))
                .help("unmount that first, then undo again"));
        }
        Ok(Undone::Done)
    }
}

impl Mount {
    fn detach(&self, top: &OwnedFd) -> Result<(), EffectError> {
        unmount(api::magic_link(top), UnmountFlags::DETACH).map_err(|errno| {
            EffectError::call(format!("umount2(\"{}\", MNT_DETACH)", self.target.display()), errno)
                .help("unmounting needs CAP_SYS_ADMIN; undo again as the user who mounted it")
        })
    }

    /// What is at the target, which may be a mount's root; `None` if the path has gone.
    fn open_target(&self) -> Result<Option<OwnedFd>, EffectError> {
        match openat(CWD, &self.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(EffectError::call(format!("open(\"{}\")", self.target.display()), errno)),
        }
    }
}

/// Whether more than one mount lies on the path, so that ours may be under another one.
fn is_covered(target: &Path) -> Result<bool, EffectError> {
    let real = real(target);
    Ok(table::read()?.iter().filter(|mount| mount.target == real).count() > 1)
}

/// Made and recorded, and not yet attached.
struct Attaching {
    mount: OwnedFd,
    target: OwnedFd,
    path: PathBuf,
    api: Api,
    /// What is set once it is attached.
    later: Options,
    identity: Identity,
}

impl Pending for Attaching {
    fn started(&self) -> Value {
        json!(self.identity)
    }

    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        api::attach(&self.mount, &self.target, &self.path)?;
        // The descriptor of the mount leads to where it is attached now.
        match self.api {
            Api::Detached => api::set_propagation(&self.mount, &self.later),
            Api::Classic => api::classic_configure(&self.mount, &self.later, &self.path),
        }
    }

    fn interest(&self, _wants: &mut Vec<Interest>) {}

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        Ok(Some(json!(self.identity)))
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::{Bench, in_mount_namespace};

    fn lines() -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_mount_is_taken_back_from_every_moment_and_no_other_is() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            let before = lines();
            for effect in Mount::examples(dir.path()) {
                let mut bench = Bench::new(dir.path());
                for recorded in [false, true] {
                    let record = bench.cut(&effect, recorded);
                    bench.undo(&effect, &record).unwrap();
                    assert_eq!(lines(), before);
                }
                let (record, outcome) = bench.apply(&effect);
                outcome.unwrap();
                assert_eq!(lines().len(), before.len() + 1);
                bench.undo(&effect, &record).unwrap();
                assert_eq!(lines(), before);
                // Somebody else's, in the same place. Where numbers are used again, nothing tells one from ours that shows the same, or is as old.
                if effect.reused_ids || !table::has_unique_ids() {
                    continue;
                }
                let (_, theirs) = bench.apply(&effect);
                theirs.unwrap();
                bench.undo(&effect, &record).unwrap();
                assert_eq!(lines().len(), before.len() + 1);
                unmount(dir.path(), UnmountFlags::DETACH).unwrap();
            }
        });
    }

    /// A kernel that uses numbers again may give ours to a mount that somebody else makes in the same place, or to one above it.
    #[test]
    fn a_number_that_is_another_mounts_by_now_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        in_mount_namespace(|| {
            let target = || inner.clone();
            let effect = |target| Mount {
                target,
                kind: Some("tmpfs".into()),
                source: None,
                options: vec!["private".into()],
                api: Api::default(),
                reused_ids: true,
                with_all_on_it: false,
            };
            let ours = effect(target());
            let mut bench = Bench::new(dir.path());
            let (record, outcome) = bench.apply(&ours);
            let mut identity: Identity = serde_json::from_value(outcome.unwrap()).unwrap();
            assert!(!identity.mount.unique && identity.root.is_some());
            bench.undo(&ours, &record).unwrap();
            let before = lines();

            // In the same place, with our number: another file system, younger by more than a tick of the clock.
            std::thread::sleep(std::time::Duration::from_millis(30));
            let (theirs, outcome) = bench.apply(&ours);
            let other: Identity = serde_json::from_value(outcome.unwrap()).unwrap();
            identity.mount = other.mount;
            assert_ne!(identity.root, other.root);
            let mut stale = record.clone();
            stale.started = Some(json!(identity));
            stale.outcome = Some(json!(identity));
            bench.undo(&ours, &stale).unwrap();
            assert_eq!(lines().len(), before.len() + 1, "somebody else's mount is gone");
            bench.undo(&ours, &theirs).unwrap();

            // Above it, with our number, and what it shows there even is what ours showed.
            let above = effect(dir.path().to_owned());
            let (theirs, outcome) = bench.apply(&above);
            std::fs::create_dir(&inner).unwrap();
            let other: Identity = serde_json::from_value(outcome.unwrap()).unwrap();
            let there = std::fs::File::open(&inner).unwrap().into();
            let identity = Identity { root: Some(Root::of(&there).unwrap()), ..other };
            stale.started = Some(json!(identity));
            stale.outcome = Some(json!(identity));
            bench.undo(&ours, &stale).unwrap();
            assert_eq!(lines().len(), before.len() + 1, "somebody else's mount is gone");
            bench.undo(&above, &theirs).unwrap();
            assert_eq!(lines(), before);
        });
    }

    #[test]
    fn what_a_container_has_mounted_on_its_root_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            let before = lines();
            for effect in Mount::examples(dir.path()).into_iter().filter(|effect| effect.with_all_on_it) {
                let mut bench = Bench::new(dir.path());
                let (record, _) = bench.apply(&effect);
                for _ in 0..3 {
                    rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), None)
                        .unwrap();
                }
                bench.undo(&effect, &record).unwrap();
                assert_eq!(lines(), before);
                // Once it is gone, what others mount there is theirs.
                rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
                bench.undo(&effect, &record).unwrap();
                assert_eq!(lines().len(), before.len() + 1);
                unmount(dir.path(), UnmountFlags::DETACH).unwrap();
            }
        });
    }

    #[test]
    fn a_mount_on_one_that_is_shared_has_the_propagation_that_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            api::classic_propagation(Path::new("/"), crate::mounts::Propagation::Shared, true).unwrap();
            for effect in Mount::examples(dir.path()) {
                let mut bench = Bench::new(dir.path());
                let (record, _) = bench.apply(&effect);
                let top = std::fs::File::open(dir.path()).unwrap();
                assert!(!table::containing(&top).unwrap().unwrap().shared, "{effect:?}");
                bench.undo(&effect, &record).unwrap();
            }
        });
    }

    #[test]
    fn a_mount_under_somebody_elses_is_stuck() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            let mut effects = Mount::examples(dir.path());
            let effect = effects.remove(0);
            let mut bench = Bench::new(dir.path());
            let (record, _) = bench.apply(&effect);
            rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
            assert!(bench.undo(&effect, &record).unwrap_err().what.contains("mounted over"));
            unmount(dir.path(), UnmountFlags::DETACH).unwrap();
            bench.undo(&effect, &record).unwrap();
        });
    }
}

//! Has the parents of a container that is there hold as much real time as it is to have.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::directory::{NO_REALTIME, is_gone, is_parent_of_runs};
use super::realtime::{self, Realtime};
use super::{Version, open_directory};

/// Changes what the parents that runs of ours made hold for one container, as its creation does.
///
/// Parents come first where a container gets more, and last where it has less than before. So there are two of these around an update: one
/// before it that takes nothing away, and one behind it that leaves them what the container asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveRealtime {
    /// Where the hierarchy of version 1's controller cpu is mounted.
    pub mount: PathBuf,
    /// The container's cgroup.
    pub at: PathBuf,
    /// What it is to have.
    pub realtime: Realtime,
    /// What they hold beyond that is taken from them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exactly: bool,
}

/// The container's marks before, one for each parent from the top down.
#[derive(Serialize, Deserialize)]
struct Before {
    marks: Vec<Option<String>>,
}

impl GiveRealtime {
    /// The container's path below the mount, by which its marks are known.
    fn path(&self) -> String {
        self.at.strip_prefix(&self.mount).unwrap_or(&self.at).to_string_lossy().into_owned()
    }

    /// From the top down.
    fn parents(&self) -> Vec<&Path> {
        let above = self.at.ancestors().skip(1).take_while(|above| *above != self.mount);
        let mut parents: Vec<&Path> = above.collect();
        parents.reverse();
        parents
    }

    fn failed(at: &Path, errno: Errno) -> EffectError {
        EffectError::call(format!("give real time to {}", at.display()), errno).help(NO_REALTIME)
    }

    /// The parent's directory, if it is there and runs of ours made it.
    fn open(&self, parent: &Path) -> Result<Option<OwnedFd>, EffectError> {
        match open_directory(CWD, parent) {
            Ok(fd) => Ok(Some(fd).filter(|fd| is_parent_of_runs(fd, &self.path()))),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(EffectError::call(format!("open {}", parent.display()), errno)),
        }
    }

    /// The mark of the container's run: the update's own, which lies within it, is over long before the container is.
    fn mark(&self, cx: &Cx) -> String {
        realtime::mark_text(self.realtime, &cx.run.around().unwrap_or_else(|| cx.run.clone()).tag())
    }
}

impl EffectDef for GiveRealtime {
    const KIND: &'static str = "cgroup.realtime";

    fn examples(scratch: &Path) -> Vec<Self> {
        // Below the directory whose parents are ours whoever made them.
        let (at, version) = super::example_of("cpu", scratch);
        let mount = super::machine().v1_of("cpu").map_or_else(|| "/sys/fs/cgroup".into(), |cpu| cpu.mount.clone());
        let below = at.strip_prefix(&mount).unwrap_or(&at).iter().skip(1).collect::<PathBuf>();
        let at = if version == Version::V1 { mount.join(super::TOP).join(below) } else { at };
        let example = |exactly| {
            let realtime = Realtime { runtime: 1000, period: None };
            Self { mount: mount.clone(), at: at.clone(), realtime, exactly }
        };
        vec![example(false), example(true)]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let (runtime, at) = (self.realtime.runtime, self.at.display());
        if self.exactly {
            return format!("leave the parents of {at} no more than {runtime} µs of real time for it");
        }
        format!("give the parents of {at} {runtime} µs of real time for it")
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let path = self.path();
        let mark = |parent: &Path| Ok(self.open(parent)?.and_then(|fd| realtime::mark_of(fd, &path)));
        let marks = self.parents().into_iter().map(mark).collect::<Result<_, EffectError>>()?;
        Ok(json!(Before { marks }))
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mark = Some(self.mark(cx));
        let to: Vec<_> = self.parents().into_iter().map(|parent| (parent, mark.clone())).collect();
        self.exchange(&to, self.exactly, |_, _| true)?;
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        let mark = Some(self.mark(cx));
        let to: Vec<_> = self.parents().into_iter().zip(before.marks).collect();
        // What another update has said since is left as it is. An undo that was killed may have changed the mark and no more.
        self.exchange(&to, true, |now, former| *now == mark || now == former)?;
        Ok(Undone::Done)
    }
}

impl GiveRealtime {
    /// Has the container's marks say this, first where parents get more, from the top down, and then where they have less than before: none may
    /// have more than the one above it.
    fn exchange(
        &self,
        to: &[(&Path, Option<String>)],
        exactly: bool,
        may: impl Fn(&Option<String>, &Option<String>) -> bool,
    ) -> Result<(), EffectError> {
        let path = self.path();
        let down = to.iter().map(|one| (one, false));
        let up = to.iter().rev().filter(|_| exactly).map(|one| (one, true));
        for ((parent, mark), exactly) in down.chain(up) {
            let Some(fd) = self.open(parent)? else { continue };
            if !may(&realtime::mark_of(&fd, &path), mark) {
                continue;
            }
            match realtime::exchange(fd, &path, mark.as_deref(), exactly) {
                Err(errno) if !is_gone(errno) => return Err(Self::failed(parent, errno)),
                _ => {}
            }
        }
        Ok(())
    }
}

//! A throw-away view of the host's own root: whatever is changed is kept in memory, and gone with the container.

use super::mount::bind_on;
use super::root::{ROOT, open_host};
use crate::effects::owns;
use crate::made;
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options};
use crate::sys::mount::RDONLY;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::{self, Size};
use rustix::fs::{Mode, symlinkat};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How the view is made: which way works is a fact of the host and of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One overlay of `/`.
    #[default]
    Whole,
    /// A tmpfs, with an overlay or a read-only bind for each directory at the top. In a user namespace the kernel refuses an overlay of `/`: it
    /// would uncover what the host's mounts cover.
    Directories(Vec<Entry>),
    /// A recursive bind of `/`, read-only.
    ReadOnly,
}

/// One entry of the host's `/`, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// An overlay of the directory.
    Overlay(String),
    /// A read-only bind of the directory and all mounts below.
    Bind(String),
    /// A directory with nothing in it.
    Empty(String),
    /// A symlink of the same text.
    Link(String, PathBuf),
}

/// Makes the view, as the container's root.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootOverlay {
    /// A directory of the host that is covered while the view is made, in this mount namespace alone; nothing is written into it. Absolute.
    pub scratch: PathBuf,
    /// How.
    pub layout: Layout,
    /// The container has a user namespace of its own.
    #[serde(default)]
    pub user_namespace: bool,
    /// The most that the container may change, in bytes of memory.
    pub size: Size,
    /// The permissions of the new root directory.
    pub mode: types::Mode,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

/// Directories at the top of the host that no container should see as they are: they are other file systems, or other people's sockets.
const EMPTIED: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

impl EffectDef for RootOverlay {
    const KIND: &'static str = "root.overlay";

    fn examples(scratch: &Path) -> Vec<Self> {
        let directories = || vec![Entry::Overlay("usr".into()), Entry::Bind("etc".into()), Entry::Empty("tmp".into())];
        let layouts = || [Layout::Whole, Layout::Directories(directories()), Layout::ReadOnly];
        let example = |api| {
            layouts().map(|layout| Self {
                scratch: scratch.to_owned(),
                layout,
                user_namespace: false,
                size: Size(64 << 20),
                mode: types::Mode(0o755),
                api,
            })
        };
        [example(Api::Detached), example(Api::Classic)].into_iter().flatten().collect()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        match &self.layout {
            Layout::Whole => format!("overlay the host's / with {} of memory", self.size),
            Layout::ReadOnly => "bind the host's / read-only".to_owned(),
            Layout::Directories(entries) => {
                let names = |wanted: fn(&Entry) -> Option<&String>| {
                    entries.iter().filter_map(wanted).cloned().collect::<Vec<_>>().join(" ")
                };
                let overlaid = names(|entry| if let Entry::Overlay(name) = entry { Some(name) } else { None });
                let bound = names(|entry| if let Entry::Bind(name) = entry { Some(name) } else { None });
                let bound = if bound.is_empty() { bound } else { format!(", bind [{bound}] read-only") };
                format!("overlay the host's [{overlaid}] with {} of memory{bound}", self.size)
            }
        }
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, "mnt", "a root")?;
        let root = build(self)?;
        cx.fds.put(ROOT, root);
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// Makes the view below the scratch directory; the answer is its root.
fn build(view: &RootOverlay) -> Result<OwnedFd, EffectError> {
    let memory = mount_memory(view)?;
    make_directory(&memory, "root", view.mode)?;
    let root = view.scratch.join("root");
    match &view.layout {
        Layout::Whole => overlay(view, &memory, Path::new("/"), "all", &root)?,
        Layout::ReadOnly => read_only(view.api, Path::new("/"), &root)?,
        Layout::Directories(entries) => {
            // The root must be a mount of its own, or it could not be changed to.
            bind_on(view.api, &open_host(&root)?, Bind::One, &open_host(&root)?, &root)?;
            let top = open_host(&root)?;
            entries.iter().try_for_each(|entry| place(view, &memory, &top, entry))?;
        }
    }
    open_host(&root)
}

/// The memory that takes the changes, mounted on the scratch directory. An overlay's layers must be mounted somewhere.
fn mount_memory(view: &RootOverlay) -> Result<OwnedFd, EffectError> {
    let options = Options { data: vec![format!("size={}", view.size.0), "mode=700".into()], ..Options::default() };
    api::file_system_on(view.api, "tmpfs", "lifecycle", &options, open_host(&view.scratch)?, &view.scratch)?;
    // Opened again, the path leads onto the new mount.
    open_host(&view.scratch)
}

fn place(view: &RootOverlay, memory: &OwnedFd, top: &OwnedFd, entry: &Entry) -> Result<(), EffectError> {
    let directory = |name: &str| {
        let mode = if name == "tmp" { types::Mode(0o1777) } else { types::Mode(0o755) };
        make_directory(top, name, mode).map(|()| (Path::new("/").join(name), view.scratch.join("root").join(name)))
    };
    match entry {
        Entry::Overlay(name) => {
            let (lower, target) = directory(name)?;
            overlay(view, memory, &lower, name, &target)
        }
        Entry::Bind(name) => {
            let (source, target) = directory(name)?;
            read_only(view.api, &source, &target)
        }
        Entry::Empty(name) => directory(name).map(drop),
        Entry::Link(name, text) => symlinkat(text, top, name.as_str())
            .map_err(|errno| EffectError::call(format!("symlinkat(\"{name}\") in the new root"), errno)),
    }
}

fn overlay(view: &RootOverlay, memory: &OwnedFd, lower: &Path, name: &str, target: &Path) -> Result<(), EffectError> {
    let (upper, work) = (format!("{name}.upper"), format!("{name}.work"));
    let mode = rustix::fs::stat(lower).map_or(0o755, |stat| stat.st_mode & 0o7777);
    make_directory(memory, &upper, types::Mode(mode))?;
    make_directory(memory, &work, types::Mode(0o700))?;
    let path = |name: &str| view.scratch.join(name).to_string_lossy().into_owned();
    // A comma or a colon in a path would be read as more options or layers.
    let escape = |path: &str| path.replace('\\', "\\\\").replace(':', "\\:");
    let mut data = vec![
        format!("lowerdir={}", escape(&lower.to_string_lossy())),
        format!("upperdir={}", path(&upper)),
        format!("workdir={}", path(&work)),
    ];
    if view.user_namespace {
        // Without privileges over the host's attributes the overlay keeps its own under `user.`.
        data.push("userxattr".into());
    }
    let options = Options { data, ..Options::default() };
    api::file_system_on(view.api, "overlay", "overlay", &options, open_host(target)?, target)
}

fn read_only(api: Api, source: &Path, target: &Path) -> Result<(), EffectError> {
    let options = Options {
        recursive_set: RDONLY,
        propagation: vec![(crate::mounts::Propagation::Private, true)],
        ..Options::default()
    };
    match api {
        Api::Detached => {
            let mount = api::clone_tree(open_host(source)?, source, Bind::Recursive)?;
            api::configure(&mount, &options, None)?;
            api::attach(mount, open_host(target)?, target)
        }
        Api::Classic => {
            api::classic_bind(open_host(source)?, Bind::Recursive, open_host(target)?, target)?;
            api::classic_configure(open_host(target)?, &options, target)
        }
    }
}

fn make_directory(dir: &OwnedFd, name: &str, mode: types::Mode) -> Result<(), EffectError> {
    made::directory(dir.as_fd(), Path::new(name), Mode::from_raw_mode(mode.0), None)
        .map_err(|failed| failed.help("the size of the overlay may be too small"))
}

/// Finds out which layout works here, in the calling process, which is thrown away with its mount namespace. The best that works is the
/// answer; `scratch` is covered meanwhile.
pub fn probe(scratch: &Path, user_namespace: bool) -> Layout {
    let works = |layout: Layout| {
        let view = RootOverlay {
            scratch: scratch.to_owned(),
            layout,
            user_namespace,
            size: Size(1 << 20),
            mode: types::Mode(0o755),
            api: Api::probe(),
        };
        // Each attempt covers the one before.
        build(&view).is_ok()
    };
    if works(Layout::Whole) {
        return Layout::Whole;
    }
    let entries: Vec<Entry> = top_of_the_host()
        .into_iter()
        .map(|entry| match entry {
            Entry::Overlay(name) if !works(Layout::Directories(vec![Entry::Overlay(name.clone())])) => {
                Entry::Bind(name)
            }
            entry => entry,
        })
        .collect();
    let overlaid = entries.iter().any(|entry| matches!(entry, Entry::Overlay(_)));
    if overlaid && works(Layout::Directories(entries.clone())) {
        Layout::Directories(entries)
    } else {
        Layout::ReadOnly
    }
}

/// The host's `/`, by name. Files at the top are left out.
fn top_of_the_host() -> Vec<Entry> {
    let Ok(list) = std::fs::read_dir("/") else { return Vec::new() };
    let entry = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kind = entry.file_type().ok()?;
        if kind.is_symlink() {
            return std::fs::read_link(entry.path()).ok().map(|text| Entry::Link(name, text));
        }
        let emptied = EMPTIED.contains(&name.as_str());
        // What the caller cannot enter he cannot show either.
        let visible =
            rustix::fs::access(entry.path(), rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK).is_ok();
        match (kind.is_dir(), emptied || !visible) {
            (true, true) => Some(Entry::Empty(name)),
            (true, false) => Some(Entry::Overlay(name)),
            (false, _) => None,
        }
    };
    let mut entries: Vec<Entry> = list.filter_map(|found| entry(found.ok()?)).collect();
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    entries
}

impl Entry {
    /// The name at the top.
    pub fn name(&self) -> &str {
        match self {
            Self::Overlay(name) | Self::Bind(name) | Self::Empty(name) | Self::Link(name, _) => name,
        }
    }
}

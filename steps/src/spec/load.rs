//! `spec.load`

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::error::{PlanError, in_words};
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Sensitive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::host::missing;
use super::locate::locate;
use super::{
    Device, Hooks, IdMapping, IntelRdt, MemoryPolicy, Mount, Namespace, NamespaceType, NetDevice, Personality, Problem,
    Process, Read, Resources, Root, RootfsPropagation, Seccomp, Spec, TimeOffset, other_platforms, validate,
};

use crate::notify::{INSIDE, SOCKET, directory_of};

/// Reads a bundle's `config.json` (the runtime-spec's config.md) and checks it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The bundle: the directory that has the `config.json`.
    pub bundle: HostPath,
    /// The container gets a notification socket, sd_notify(3): a mount and a variable are added for it. `notify.directory` makes what is mounted.
    #[serde(default)]
    pub notify: bool,
}

/// The configuration. Structures have the field names of the runtime-spec; paths on the host are absolute.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// The bundle's absolute path.
    pub bundle: HostPath,
    /// The version of the runtime-spec that the file is written for.
    pub oci_version: String,
    /// The root file system.
    pub root: Root,
    /// Mounts on top of the root, in order.
    pub mounts: Vec<Mount>,
    /// The container's process.
    pub process: Process,
    /// The host name.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Commands that run at points of the container's life.
    pub hooks: Hooks,
    /// Whatever the caller wants to remember.
    pub annotations: BTreeMap<String, String>,
    /// Namespaces to make or to join.
    pub namespaces: Vec<Namespace>,
    /// Which of them are made for the container, and not joined or shared.
    pub makes: Makes,
    /// It has no mount namespace, neither a new one nor one that is joined: its mounts are made in the caller's.
    pub shares_mounts: bool,
    /// User ids of the user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of the user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Clock offsets of the time namespace.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    /// The paths of the file's members that the runtime-spec does not have. They are ignored, as it demands.
    pub unknown: Vec<String>,
    /// Network devices of the host to move in, by their name there.
    pub net_devices: BTreeMap<String, NetDevice>,
    /// The cgroup's path.
    pub cgroups_path: Option<String>,
    /// The cgroup's limits.
    pub resources: Resources,
    /// Shares of cache and memory bandwidth.
    pub intel_rdt: Option<IntelRdt>,
    /// Kernel parameters by name.
    pub sysctl: BTreeMap<String, String>,
    /// The system call filter.
    pub seccomp: Option<Seccomp>,
    /// The execution domain.
    pub personality: Option<Personality>,
    /// The NUMA memory policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// The SELinux context of the container's mounts.
    pub mount_label: Option<String>,
    /// The socket of the agent that the filter notifies, if it does: its `listenerPath`.
    pub seccomp_agent: Option<HostPath>,
    /// How mounts travel between the container's root and the host.
    pub rootfs_propagation: Option<RootfsPropagation>,
    /// Paths in the container that cannot be read.
    pub masked_paths: Vec<PathBuf>,
    /// Paths in the container that cannot be written.
    pub readonly_paths: Vec<PathBuf>,
}

/// Namespaces by type: whether the container gets a new one.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Makes {
    /// Process ids.
    pub pid: bool,
    /// Network devices, addresses, ports.
    pub network: bool,
    /// Mount points.
    pub mount: bool,
    /// System V IPC and POSIX message queues.
    pub ipc: bool,
    /// Host name and domain name.
    pub uts: bool,
    /// User and group ids, capabilities.
    pub user: bool,
    /// The view of cgroups.
    pub cgroup: bool,
    /// The monotonic and boot-time clocks.
    pub time: bool,
}

impl Makes {
    fn of(namespaces: &[Namespace]) -> Self {
        let new = |kind| namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none());
        Self {
            pid: new(NamespaceType::Pid),
            network: new(NamespaceType::Network),
            mount: new(NamespaceType::Mount),
            ipc: new(NamespaceType::Ipc),
            uts: new(NamespaceType::Uts),
            user: new(NamespaceType::User),
            cgroup: new(NamespaceType::Cgroup),
            time: new(NamespaceType::Time),
        }
    }
}

/// See [`Input`].
pub struct Load;

impl Step for Load {
    const KIND: &'static str = "spec.load";
    const CHANGES: &'static str = "Nothing: it reads while the run is planned.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Pure;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "The configuration of the bundle in the working directory.",
        plan: "\
plan: example
params:
  bundle: { type: path, default: . }
steps:
  spec:
    uses: spec.load
    with: { bundle: \"${params.bundle}\" }
outputs:
  hostname: \"${spec.hostname}\"
",
        needs: &["bundle"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let bundle = absolute(&input.bundle, cx)?;
        let (Read { spec, unknown }, file) = read(&bundle, cx)?;
        check(&spec, &file, missing(&spec, &bundle, cx.facts))?;
        let mut output = Output::of(spec, unknown, bundle)?;
        if input.notify {
            output.add_notify(&directory_of(cx.run));
        }
        Ok(output)
    }
}

/// A `config.json` as it was read.
pub(super) struct File {
    /// Where it is.
    pub(super) path: PathBuf,
    text: String,
}

impl File {
    /// A problem with its place, as compilers write it: FILE:LINE:COLUMN: FIELD: MESSAGE.
    fn place(&self, problem: &Problem) -> String {
        let (line, column) = locate(&self.text, &problem.path).unwrap_or((1, 1));
        format!("{}:{line}:{column}: {problem}", self.path.display())
    }
}

/// A bundle's configuration, and its file.
pub(super) fn read(bundle: &Path, cx: &mut Planning) -> Result<(Read, File), PlanError> {
    let path = bundle.join("config.json");
    let text = cx.facts.file(&path).map_err(|e| unreadable(&path, &e))?;
    let read = Spec::read(&text).map_err(|e| {
        PlanError::new("bundle", format!("{}:{e}", path.display()))
            .help("`runc spec` or `oci-runtime-tool generate` writes one to start from")
    })?;
    Ok((read, File { path, text }))
}

fn unreadable(file: &Path, e: &std::io::Error) -> PlanError {
    PlanError::new("bundle", format!("{} cannot be read: {}", file.display(), in_words(e)))
        .help("a bundle is a directory with a config.json; `lifecycle-oci spec` writes one")
}

fn problem(path: &str, message: &str) -> Problem {
    Problem { path: path.to_owned(), message: message.to_owned() }
}

/// Everything that is wrong with it, at once.
fn check(spec: &Spec, file: &File, missing: Vec<Problem>) -> Result<(), PlanError> {
    let process = spec.process.is_none().then(|| problem("process", "is required to make a container"));
    let problems = validate(spec).into_iter().chain(process).chain(missing).chain(other_platforms(spec));
    let all: Vec<String> = problems.map(|problem| file.place(&problem)).collect();
    if all.is_empty() { Ok(()) } else { Err(PlanError::new("bundle", all.join("\n  "))) }
}

/// A relative bundle is the caller's: below his working directory. `.` is taken out, `..` stays: a symlink may stand before it.
pub(super) fn absolute(path: &Path, cx: &mut Planning) -> Result<PathBuf, PlanError> {
    let base: PathBuf = if path.is_absolute() {
        PathBuf::new()
    } else {
        cx.facts.get("cwd").ok_or_else(|| {
            PlanError::new("bundle", "is relative, and the working directory is gone").help("give an absolute path")
        })?
    };
    Ok(base.join(path).components().filter(|part| *part != Component::CurDir).collect())
}

/// A bind mount's source is below the bundle; any other mount's is a name for the file system's driver.
pub(super) fn with_absolute_source(mut mount: Mount, bundle: &Path) -> Mount {
    let binds = mount.binds();
    if let Some(source) = mount.source.as_mut().filter(|source| binds && source.is_relative()) {
        *source = bundle.join(&*source);
    }
    mount
}

impl Output {
    /// A directory, since the socket comes later than the mount.
    fn add_notify(&mut self, directory: &Path) {
        self.mounts.push(Mount {
            destination: INSIDE.into(),
            source: Some(directory.to_owned()),
            options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).into(),
            ..Mount::default()
        });
        let variable = format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}");
        self.process.env.retain(|entry| !entry.0.starts_with("NOTIFY_SOCKET="));
        self.process.env.push(Sensitive(variable));
    }

    fn of(spec: Spec, unknown: Vec<String>, bundle: PathBuf) -> Result<Self, PlanError> {
        let Spec { oci_version, root, mounts, process, hostname, domainname, hooks, annotations, linux, .. } = spec;
        let required = |field: &str| PlanError::new("bundle", format!("{field}: is required"));
        let root = root.ok_or_else(|| required("root"))?;
        Ok(Self {
            oci_version,
            root: Root { path: bundle.join(root.path), readonly: root.readonly },
            mounts: mounts.into_iter().map(|mount| with_absolute_source(mount, &bundle)).collect(),
            process: process.ok_or_else(|| required("process"))?,
            hostname,
            domainname,
            hooks,
            annotations,
            makes: Makes::of(&linux.namespaces),
            shares_mounts: linux.shares_mounts(),
            namespaces: linux.namespaces,
            uid_mappings: linux.uid_mappings,
            gid_mappings: linux.gid_mappings,
            time_offsets: linux.time_offsets,
            devices: linux.devices,
            unknown,
            net_devices: linux.net_devices,
            cgroups_path: linux.cgroups_path,
            resources: linux.resources,
            intel_rdt: linux.intel_rdt,
            sysctl: linux.sysctl,
            seccomp_agent: linux.seccomp.as_ref().and_then(Seccomp::agent),
            seccomp: linux.seccomp,
            personality: linux.personality,
            memory_policy: linux.memory_policy,
            mount_label: linux.mount_label,
            rootfs_propagation: linux.rootfs_propagation,
            masked_paths: linux.masked_paths,
            readonly_paths: linux.readonly_paths,
            bundle: HostPath(bundle),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle_engine::effect::RunNames;
    use lifecycle_engine::facts::{Facts, FileFact, FileKind, Recorded};
    use serde_json::{Value, json};

    fn load(config: Value) -> Result<Output, PlanError> {
        let mut given = Recorded::default();
        given.host.insert("cwd".into(), json!("/home/me"));
        given.files.insert("/home/me/box/config.json".into(), FileFact::Text(config.to_string()));
        for directory in ["rootfs", "data"] {
            given.kinds.insert(format!("/home/me/box/{directory}").into(), FileFact::Kind(FileKind::Directory));
        }
        let mut facts = Facts::fixed(given);
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let mut cx = Planning::new(&mut facts, &run, "spec".into(), None);
        Load::plan(Input { bundle: HostPath("./box".into()), notify: false }, &mut cx)
    }

    fn config() -> Value {
        json!({
            "ociVersion": "1.3.0",
            "root": { "path": "rootfs" },
            "process": { "args": ["sh"], "cwd": "/" },
            "mounts": [
                { "destination": "/data", "source": "data", "options": ["rbind", "ro"] },
                { "destination": "/proc", "type": "proc", "source": "proc" }
            ],
            "linux": { "namespaces": [{ "type": "mount" }] }
        })
    }

    #[test]
    fn host_paths_are_made_absolute_by_the_bundle() {
        let spec = load(config()).unwrap();
        assert_eq!(spec.bundle.0, Path::new("/home/me/box"));
        assert_eq!(spec.root.path, Path::new("/home/me/box/rootfs"));
        assert_eq!(spec.mounts[0].source.as_deref(), Some(Path::new("/home/me/box/data")));
        assert_eq!(spec.mounts[1].source.as_deref(), Some(Path::new("proc")));
    }

    #[test]
    fn a_namespace_that_is_joined_is_not_made() {
        let mut config = config();
        config["linux"] = json!({ "namespaces": [
            { "type": "mount" }, { "type": "pid" }, { "type": "network", "path": "/run/netns/a" },
        ] });
        let makes = load(config).unwrap().makes;
        assert!(makes.pid && !makes.network && !makes.uts);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut config = config();
        config["ociVersion"] = json!("2.0.0");
        config["process"] = Value::Null;
        config["vm"] = json!({});
        let error = load(config).unwrap_err();
        for expected in ["ociVersion: ", "process: is required", "vm: describes a container in a virtual machine"] {
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_bundle_without_a_config_says_what_a_bundle_is() {
        let mut facts = Facts::fixed(Recorded::default());
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let mut cx = Planning::new(&mut facts, &run, "spec".into(), None);
        let error = Load::plan(Input { bundle: HostPath("/nonexistent".into()), notify: false }, &mut cx).unwrap_err();
        assert!(error.message.contains("/nonexistent/config.json cannot be read: No such file"), "{error}");
        assert!(error.help.is_some());
    }
}

//! What the runtime-spec demands of a `config.json`, as far as the file alone can tell.

mod linux;
mod process;
mod resources;

pub use linux::check_memory_policy;
pub use process::{check_io_priority, check_scheduler};

use super::{Hooks, Mount, NamespaceType, Process, Resources, Spec};
use std::fmt;
use std::path::Path;

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `process.cwd`, `mounts[2].destination`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every violation in the file, in the order of the spec's sections; none if it is valid.
pub fn validate(spec: &Spec) -> Vec<Problem> {
    let mut problems = Problems::default();
    version(&spec.oci_version, &mut problems);
    root(spec, &mut problems);
    mounts(&spec.mounts, &mut problems);
    if let Some(process) = &spec.process {
        process::check(process, &mut problems);
    }
    host_names(spec, &mut problems);
    hooks(&spec.hooks, &mut problems);
    if spec.annotations.contains_key("") {
        problems.add("annotations", "a key is empty; give it a name");
    }
    linux::check(spec, &mut problems);
    resources::check(&spec.linux.resources, &mut problems);
    problems.found
}

/// Every violation in a process by itself, such as an exec's.
pub fn validate_process(process: &Process) -> Vec<Problem> {
    let mut problems = Problems::default();
    process::check(process, &mut problems);
    problems.found
}

/// Every violation in limits by themselves, such as an update's, with paths as in a config.json.
pub fn validate_resources(limits: &Resources) -> Vec<Problem> {
    let mut problems = Problems::default();
    resources::check(limits, &mut problems);
    problems.found
}

/// Where the checks put what they find.
#[derive(Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(Problem { path: path.into(), message: message.into() });
    }

    /// What was found in a part of the file, whose own path is `field`.
    fn within(&mut self, field: &str, found: Vec<Problem>) {
        self.found
            .extend(found.into_iter().map(|problem| Problem { path: format!("{field}.{}", problem.path), ..problem }));
    }

    fn absolute(&mut self, field: impl Into<String>, path: &Path) {
        if path.is_absolute() {
            self.without_nul(field, path.as_os_str().as_encoded_bytes());
        } else {
            self.add(field, format!("`{}` must be an absolute path", path.display()));
        }
    }

    /// The kernel's texts end at one: what follows would be lost, or refused in the middle.
    fn without_nul(&mut self, field: impl Into<String>, text: &[u8]) {
        if text.contains(&0) {
            self.add(field, "cannot contain a NUL byte");
        }
    }
}

/// "MUST be in SemVer v2.0.0 format"; every 1.x is compatible with what 1.3 describes.
fn version(version: &str, problems: &mut Problems) {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &&str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    if numbers.len() != 3 || !numbers.iter().all(is_number) {
        problems.add("ociVersion", format!("`{version}` is not a version; write MAJOR.MINOR.PATCH, such as 1.3.0"));
    } else if numbers[0] != "1" {
        problems.add("ociVersion", format!("version {version} is not supported; this runtime knows 1.0.0 to 1.3.x"));
    }
}

fn root(spec: &Spec, problems: &mut Problems) {
    match &spec.root {
        None => problems.add("root", "is required on Linux; write {\"path\": \"rootfs\"}"),
        Some(root) if root.path.as_os_str().is_empty() => {
            problems.add("root.path", "is empty; name the root file system's directory");
        }
        Some(root) => problems.without_nul("root.path", root.path.as_os_str().as_encoded_bytes()),
    }
}

fn mounts(mounts: &[Mount], problems: &mut Problems) {
    for (index, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        if mount.destination.as_os_str().is_empty() {
            problems.add(field("destination"), "is empty; name a path in the container");
        }
        problems.without_nul(field("destination"), mount.destination.as_os_str().as_encoded_bytes());
        problems.without_nul(field("source"), mount.source.as_ref().map_or(&[], |s| s.as_os_str().as_encoded_bytes()));
        problems.without_nul(field("type"), mount.kind.as_deref().unwrap_or_default().as_bytes());
        for (at, option) in mount.options.iter().enumerate() {
            problems.without_nul(format!("mounts[{index}].options[{at}]"), option.as_bytes());
        }
        if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
            problems.add(field("uidMappings"), "uidMappings and gidMappings must be given together");
        }
        linux::mappings(&field("uidMappings"), &mount.uid_mappings, problems);
        linux::mappings(&field("gidMappings"), &mount.gid_mappings, problems);
        if mount.source.is_none() && mount.binds() && !mount.remounts() {
            problems.add(field("source"), "a bind mount needs a source");
        }
    }
}

/// The names belong to the uts namespace; in the host's they would rename the host.
fn host_names(spec: &Spec, problems: &mut Problems) {
    for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        let Some(name) = name else { continue };
        if spec.namespace(NamespaceType::Uts).is_none() {
            problems.add(
                field,
                "needs a uts namespace: it would rename the host; add {\"type\": \"uts\"} to linux.namespaces",
            );
        }
        problems.without_nul(field, name.as_bytes());
        // The kernel's __NEW_UTS_LEN.
        if name.len() > 64 {
            problems.add(field, format!("is {} bytes long; the kernel takes 64", name.len()));
        }
    }
}

fn hooks(hooks: &Hooks, problems: &mut Problems) {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.iter().enumerate() {
            let field = format!("hooks.{kind}[{index}]");
            problems.absolute(format!("{field}.path"), &hook.path);
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                problems.add(format!("{field}.timeout"), "must be greater than zero; leave it out for no limit");
            }
            for (at, arg) in hook.args.iter().enumerate() {
                problems.without_nul(format!("{field}.args[{at}]"), arg.as_bytes());
            }
            process::environment(&format!("{field}.env"), hook.env.iter().flatten().map(String::as_str), problems);
        }
    }
}

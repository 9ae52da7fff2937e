//! `spec.exec`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::{PlanError, in_words};
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Sensitive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::load::{absolute, read};
use super::read::{Read, parse};
use super::seccomp::place_filter;
use super::{
    Capabilities, ConsoleSize, MemoryPolicy, Namespace, Personality, Process, Seccomp, User, validate_process,
};

use crate::process::environment::last_of_each;

/// Tells what another process in a container is to be: the whole of a `process.json`, or the process of the bundle's `config.json` with what is
/// given here in its place.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The container's bundle.
    pub bundle: HostPath,
    /// A file or a pipe with a `process` as in config.json: then nothing else is taken from here or from the bundle's process.
    #[serde(default)]
    pub process: Option<HostPath>,
    /// The program and its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The directory that it starts in. Absent: the one of the bundle's process.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// More environment, as `NAME=value`, in the place of what the bundle's process has of that name.
    #[serde(default = "none")]
    pub env: Sensitive<Vec<String>>,
    /// `UID` or `UID:GID`, in the container's ids. Absent: the user of the bundle's process.
    #[serde(default)]
    pub user: Option<String>,
    /// More supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// More capabilities: bounding, effective and permitted, and ambient where the bundle's process has them inheritable. Never inheritable by this
    /// (CVE-2022-29162).
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// It gets a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Its terminal's size.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// Whether it may gain privileges. Absent: as the bundle's process.
    #[serde(default)]
    pub no_new_privileges: Option<bool>,
    /// Its AppArmor profile. Absent: that of the bundle's process.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// Its SELinux label. Absent: that of the bundle's process.
    #[serde(default)]
    pub selinux_label: Option<String>,
}

fn none() -> Sensitive<Vec<String>> {
    Sensitive(Vec::new())
}

/// What it is to be.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// The process.
    pub process: Process,
    /// The container's namespaces, which it joins.
    pub namespaces: Vec<Namespace>,
    /// It has no mount namespace, neither a new one nor one that is joined: its mounts are made in the caller's.
    pub shares_mounts: bool,
    /// The container's system call filter, where `process.exec` can load it last of all.
    pub filter_last: Option<Seccomp>,
    /// The same, where it has to be loaded before the process gives up its privileges.
    pub filter_before: Option<Seccomp>,
    /// The socket of the agent that the filter notifies, if it does.
    pub seccomp_agent: Option<HostPath>,
    /// The container's execution domain.
    pub personality: Option<Personality>,
    /// The container's NUMA memory policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// The container's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// See [`Input`].
pub struct Exec;

impl Step for Exec {
    const KIND: &'static str = "spec.exec";
    const CHANGES: &'static str = "Nothing: it reads while the run is planned.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Pure;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A shell, as the container's own process would run it.",
        plan: "\
plan: example
params:
  bundle: { type: path, default: . }
steps:
  spec:
    uses: spec.exec
    with: { bundle: \"${params.bundle}\", args: [sh, -c, \"echo $HOME\"], user: \"1000:1000\" }
outputs:
  cwd: \"${spec.process.cwd}\"
",
        needs: &["bundle"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let bundle = absolute(&input.bundle, cx)?;
        let (Read { spec, .. }, file) = read(&bundle, cx)?;
        let place = if input.process.is_some() { "process" } else { "args" };
        let process = if let Some(path) = &input.process {
            from_file(path, cx)?
        } else {
            let own = spec.process.ok_or_else(|| missing(&file.path))?;
            input.over(own)?
        };
        let problems: Vec<String> = validate_process(&process).iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(PlanError::new(place, problems.join("\n  ")));
        }
        let linux = spec.linux;
        let (filter_last, filter_before) = place_filter(linux.seccomp.as_ref(), &process);
        Ok(Output {
            process,
            shares_mounts: linux.shares_mounts(),
            namespaces: linux.namespaces,
            seccomp_agent: linux.seccomp.as_ref().and_then(Seccomp::agent),
            filter_last,
            filter_before,
            personality: linux.personality,
            memory_policy: linux.memory_policy,
            annotations: spec.annotations,
        })
    }
}

fn missing(file: &Path) -> PlanError {
    PlanError::new("bundle", format!("{} has no process that an exec could begin from", file.display()))
        .help("give the whole process in a file of its own")
}

fn from_file(path: &Path, cx: &mut Planning) -> Result<Process, PlanError> {
    let path = absolute(path, cx)?;
    let text = cx.facts.stream(&path).map_err(|e| {
        let help = match e.kind() {
            std::io::ErrorKind::FileTooLarge => "a process is some KB: a file may have 16 MiB, a pipe 4 MiB",
            _ => "name a file or a pipe with a process of the runtime-spec, as JSON",
        };
        PlanError::new("process", format!("{} cannot be read: {}", path.display(), in_words(&e))).help(help)
    })?;
    parse(&text).map_err(|e| {
        PlanError::new("process", format!("{}:{e}", path.display())).help("it is to be a process of the runtime-spec")
    })
}

impl Input {
    /// The bundle's own process, with what the caller wants in its place.
    fn over(self, own: Process) -> Result<Process, PlanError> {
        let user = self.user.as_deref().map(parse_user).transpose()?;
        let mut process = Process { terminal: self.terminal, console_size: self.console_size, ..own };
        if let Some(Capabilities { permitted, inheritable, ambient, .. }) = &mut process.capabilities {
            // Whoever made the container was told of the others.
            ambient.retain(|name| permitted.contains(name) && inheritable.contains(name));
        }
        process.args = self.args;
        process.cwd = self.cwd.unwrap_or(process.cwd);
        process.env.extend(self.env.0.into_iter().map(Sensitive));
        process.env = last_of_each(process.env, |entry| &entry.0);
        if let Some((uid, gid)) = user {
            // A group that nobody names stays the container's own: the root's would be more than that.
            process.user = User { uid, gid: gid.unwrap_or(process.user.gid), ..process.user };
        }
        process.user.additional_gids.extend(self.additional_gids);
        if !self.capabilities.is_empty() {
            let mut sets = process.capabilities.take().unwrap_or_default();
            let Capabilities { bounding, effective, permitted, inheritable, ambient } = &mut sets;
            for set in [bounding, effective, permitted] {
                set.extend(self.capabilities.iter().cloned());
            }
            // The kernel takes no others, and runc's are dropped there.
            ambient.extend(self.capabilities.iter().filter(|name| inheritable.contains(name)).cloned());
            process.capabilities = Some(sets);
        }
        process.no_new_privileges = self.no_new_privileges.unwrap_or(process.no_new_privileges);
        process.apparmor_profile = self.apparmor.or(process.apparmor_profile);
        process.selinux_label = self.selinux_label.or(process.selinux_label);
        Ok(process)
    }
}

/// Digits and nothing else: a loose parse gives the wrong user (CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>), PlanError> {
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten().filter(|id| *id != u32::MAX)
    };
    let user = match text.split_once(':') {
        Some((uid, gid)) => id(uid).zip(id(gid)).map(|(uid, gid)| (uid, Some(gid))),
        None => id(text).map(|uid| (uid, None)),
    };
    user.ok_or_else(|| {
        PlanError::new("user", format!("{text:?} is not UID or UID:GID"))
            .help("write numbers, such as 1000:1000; names are the container's own")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_two_numbers_and_nothing_else() {
        assert_eq!(parse_user("0").unwrap(), (0, None));
        assert_eq!(parse_user("1000:50").unwrap(), (1000, Some(50)));
        for text in
            ["", ":", "1:", ":1", "+1", "-1", " 1", "1 ", "0x1", "1:2:3", "root", "4294967295", "4294967296", "1:\n"]
        {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }
}

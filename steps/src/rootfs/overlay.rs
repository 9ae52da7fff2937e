//! `rootfs.overlay`: a throw-away copy of the host's own root.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::types::{Mode, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::{Common, plan_mount};
use super::mount::default_devices;
use crate::effects::inside::{Layout, RootOverlay, RootPropagation, clean};
use crate::mounts::{Api, Propagation};
use crate::spec::Mount;

/// Gives the container the host's own files, to change as it likes: changes are kept in memory and gone with the container, and nothing is
/// written to the host. Where the kernel refuses an overlay of `/`, there is one for each directory at the top; where it refuses that too, the
/// files are read-only. Other file systems of the host's that are mounted below are not part of an overlay.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The most that the container may change.
    #[serde(default = "some_memory")]
    pub size: Size,
    /// The container has a user namespace of its own. Null: it has if the caller is not root.
    #[serde(default)]
    pub user_namespace: Option<bool>,
    /// What is mounted over the host's files, as in config.json. By default what every program expects: `/proc`, `/sys` read-only, a `/dev` with
    /// the default devices, and an empty `/run` and `/tmp`.
    #[serde(default = "essentials")]
    pub mounts: Vec<Mount>,
}

fn essentials() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(kind.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    vec![
        mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777"]),
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
        mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ]
}

fn some_memory() -> Size {
    Size(1 << 30)
}

/// How it is made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Whether the container can change what it sees.
    pub writable: bool,
}

/// The step.
pub struct Overlay;

impl Step for Overlay {
    const KIND: &'static str = "rootfs.overlay";
    const CHANGES: &'static str = "Mounts in the site's mount namespace. The run's directory, or /dev/shm, is covered there while they are made; nothing is written.";
    const REVERSED_BY: &'static str = "Goes with the namespace.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &[];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "What is written in the container is not written on the host.",
        plan: "plan: example/rootfs-overlay
steps:
  init: { uses: process.clone, with: { new: [mount], stdio: log } }
  root: { uses: rootfs.overlay, site: \"${init}\", with: { size: 64M } }
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [root] }
  exec: { uses: process.exec, site: \"${init}\", needs: [pivot], with: { args: [/bin/sh, -c, \"echo changed > /etc/motd && cat /etc/motd\"] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let user_namespace = match input.user_namespace {
            Some(given) => given,
            None => cx.facts.get::<u32>("euid").is_some_and(|uid| uid != 0),
        };
        let fact = if user_namespace { "overlay.userns" } else { "overlay.host" };
        let Some(layout) = cx.facts.get::<Layout>(fact) else {
            return Err(PlanError::new("", "this host lets the caller make no view of its root, not even a read-only one")
                .help("run as root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"));
        };
        cx.effect(RootPropagation { propagation: Propagation::Slave, recursive: true });
        let writable = layout != Layout::ReadOnly;
        let api = Api::choose(cx.facts);
        let (scratch, size, mode) = (scratch(user_namespace, cx), input.size, Mode(0o755));
        cx.effect(RootOverlay { scratch, layout, user_namespace, size, mode, api });
        let common = Common {
            own_root: true,
            root: None,
            shares_mounts: false,
            base: Path::new("/"),
            namespaces: &[],
            api,
            label: None,
            prepared: None,
        };
        (0..input.mounts.len()).try_for_each(|index| plan_mount(&input.mounts, index, common, cx))?;
        if input.mounts.iter().any(|mount| clean(&mount.destination) == Path::new("/dev")) {
            default_devices(api, true, cx);
        }
        Ok(Output { writable })
    }
}

/// The run's directory, in which nothing is that the view could show. It is closed to a user namespace that is not its owner's: there it is a
/// directory that everybody may enter, that is never part of the view, and that hardly anything is bound from.
fn scratch(user_namespace: bool, cx: &mut Planning) -> PathBuf {
    let root_calls = cx.facts.get::<u32>("euid") == Some(0);
    if user_namespace && root_calls { "/dev/shm".into() } else { cx.run.dir() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::refused_inside;
    use serde_json::json;

    #[test]
    fn a_host_that_allows_nothing_is_an_error_before_anything_happens() {
        assert!(refused_inside::<Overlay>(json!({})).message.contains("no view of its root"));
    }
}

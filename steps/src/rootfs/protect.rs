//! `rootfs.protect`: what the container may not read or write.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::types::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::plan_seal;
use crate::effects::inside::{MaskPath, ReadonlyPath, RootDirectory, RootReadonly};
use crate::mounts::Api;
use crate::process::label::require_selinux;
use crate::spec::Mount;

/// Covers paths that the container must not read, makes others read-only, and the root itself if asked to. Before that it makes the directory
/// that the program starts in, if that is missing. Paths that are not there need nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Whether the root is read-only; mounts in it stay as they are.
    #[serde(default)]
    pub readonly: bool,
    /// Paths that cannot be read.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// Paths that cannot be written, with all below them.
    #[serde(default)]
    pub readonly_paths: Vec<PathBuf>,
    /// The directory that the program starts in; kept where it has to be made.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// The container's mounts, as given to a `rootfs.mount` with `seal_later`: those file systems are made read-only.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The SELinux context of the file systems that cover directories: linux.mountLabel.
    #[serde(default)]
    pub label: Option<String>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Protect;

impl Step for Protect {
    const KIND: &'static str = "rootfs.protect";
    const CHANGES: &'static str = "Mounts in the site's mount namespace. In a root on a disk: the working directory, if it was missing; it is kept.";
    const REVERSED_BY: &'static str = "Mounts go with the namespace.";
    const PLACE: Place = Place::Inside;
    // sysctl.write needs /proc/sys while it can still be written.
    const AFTER: After = &["rootfs.pivot", "sysctl.write"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A root that cannot be written, and a file that cannot be read.",
        plan: "plan: example/rootfs-protect
steps:
  init: { uses: process.clone, with: { new: [mount], stdio: log } }
  root: { uses: rootfs.overlay, site: \"${init}\" }
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [root] }
  protect:
    uses: rootfs.protect
    site: \"${init}\"
    needs: [pivot]
    with: { readonly: true, masked_paths: [/etc/passwd], readonly_paths: [/dev], cwd: /var/empty }
  exec:
    uses: process.exec
    site: \"${init}\"
    needs: [protect]
    with: { args: [/bin/sh, -c, \"! test -s /etc/passwd && ! touch /x 2>/dev/null && echo protected\"] }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let api = Api::choose(cx.facts);
        if input.label.is_some() {
            require_selinux("label", "linux.mountLabel", cx.facts)?;
        }
        for (field, paths) in [("masked_paths", &input.masked_paths), ("readonly_paths", &input.readonly_paths)] {
            if let Some((index, path)) = paths.iter().enumerate().find(|(_, path)| !path.is_absolute()) {
                return Err(PlanError::new(format!("{field}.{index}"), format!("{} is not absolute", path.display())));
            }
        }
        if let Some(path) = input.cwd {
            if !path.is_absolute() {
                return Err(PlanError::new("cwd", format!("{} is not absolute", path.display())));
            }
            // The root itself is there.
            if path != Path::new("/") {
                cx.effect(RootDirectory { path, mode: Mode(0o755), own: false });
            }
        }
        plan_seal(&input.mounts, api, cx);
        for path in input.readonly_paths {
            cx.effect(ReadonlyPath { path, api });
        }
        for path in input.masked_paths {
            cx.effect(MaskPath { path, label: input.label.clone(), api });
        }
        if input.readonly {
            cx.effect(RootReadonly { api });
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, refused_inside};
    use serde_json::json;

    #[test]
    fn the_working_directory_is_made_while_the_root_can_be_written() {
        let dev = json!([{ "destination": "/dev", "type": "tmpfs", "options": ["ro"] }]);
        let input = json!({
            "readonly": true, "masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"], "cwd": "/srv", "mounts": dev
        });
        assert_eq!(
            plan_inside::<Protect>(input).effects,
            [
                "make directory /srv in the root with mode 0755, kept if it is there",
                "make what was mounted on /dev read-only, now that it is filled",
                "make /proc/sys read-only",
                "mask /proc/kcore",
                "make the root read-only",
            ]
        );
    }

    #[test]
    fn a_relative_path_is_refused_with_its_place() {
        assert_eq!(refused_inside::<Protect>(json!({ "masked_paths": ["/a", "b"] })).field, "masked_paths.1");
    }
}

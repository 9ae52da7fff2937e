//! `criu.restore`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CriuOptions, DESCRIPTORS, Outside};
use crate::effects::criu::RestoreProcess;
use crate::effects::{Directory, Existing, Mount};
use crate::mounts::Api;
use crate::outcomes::{CgroupJoin, Process};

/// Brings the processes of an image back, in a cgroup and on a root file system that are there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// For criu.
    pub options: CriuOptions,
    /// The root file system, on the host.
    pub rootfs: HostPath,
    /// What the container has from outside.
    #[serde(default)]
    pub outside: Outside,
    /// The cgroup that the processes are in (`cgroup.create`'s `join`).
    #[serde(default)]
    pub cgroup: Option<CgroupJoin>,
    /// The LSM profile that they get: `selinux:LABEL` or `apparmor:NAME`.
    #[serde(default)]
    pub lsm_profile: Option<String>,
    /// The SELinux context of their mounts.
    #[serde(default)]
    pub lsm_mount_context: Option<String>,
}

/// What the first process is known by.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its identity.
    pub process: Handle<Process>,
}

/// The step.
pub struct Restore;

impl Step for Restore {
    const KIND: &'static str = "criu.restore";
    const CHANGES: &'static str = "Makes the processes of an image, with all their namespaces.";
    const REVERSED_BY: &'static str = "Kills the first process and waits for its end; its namespaces go with it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "An image comes back to life.",
        plan: "plan: example/restore
params: { images: { type: path, default: /tmp/lifecycle-example/image } }
steps:
  restore: { uses: criu.restore, with: { rootfs: /, options: { images: \"${params.images}\" } } }
  wait: { uses: process.wait, with: { process: \"${restore.process}\" } }
main: wait
",
        needs: &["criu"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { options, rootfs, outside, cgroup, lsm_profile, lsm_mount_context } = input;
        options.check(cx.facts)?;
        let options = options.absolute(cx)?;
        // What its stdio was is in the image; without that it gets what criu finds for it.
        let stdio: Vec<String> = match cx.facts.file(&options.images.join(DESCRIPTORS)) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| PlanError::new("options.images", format!("{DESCRIPTORS} in the image is damaged: {e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(PlanError::new("options.images", format!("the image cannot be read: {e}"))),
        };
        let run = cx.run.dir();
        let (root, pid_file) = (run.join("root"), run.join("restored.pid"));
        // criu wants a mount for the root, and the bundle's directory is none.
        cx.effect(Directory { path: root.clone(), mode: Mode(0o700), owner: None, existing: Existing::Refuse });
        let bind = ["rbind", "private"].map(str::to_owned).into();
        let (source, api) = (Some(rootfs.0), Api::choose(cx.facts));
        let reused_ids = !cx.facts.has("kernel.unique_mount_ids");
        cx.effect(Mount { target: root.clone(), kind: None, source, options: bind, api, reused_ids });
        let mut words: Vec<String> = vec!["restore".to_owned()];
        words.extend(options.arguments(RestoreProcess::LOG));
        words.extend(["--root".to_owned(), root.display().to_string()]);
        words.extend(["--restore-detached", "--restore-sibling"].map(str::to_owned));
        words.extend(["--pidfile".to_owned(), pid_file.display().to_string()]);
        for (at, from) in outside.external(cx.facts) {
            words.extend(["--external".to_owned(), format!("mnt[{}]:{}", at.display(), from.display())]);
        }
        words.extend(lsm_profile.iter().flat_map(|profile| ["--lsm-profile".to_owned(), profile.clone()]));
        words.extend(lsm_mount_context.iter().flat_map(|c| ["--lsm-mount-context".to_owned(), c.clone()]));
        let joined = outside.joined().into_iter().map(|(kind, path)| (kind, path.to_owned())).collect();
        let made = cx.effect(RestoreProcess {
            program: options.criu.clone().into(),
            words,
            pid_file,
            log: options.log(RestoreProcess::LOG),
            cgroup: cgroup.unwrap_or_default(),
            stdio,
            joined,
        });
        Ok(Output { process: made.handle("") })
    }
}

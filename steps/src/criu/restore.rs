//! `criu.restore`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CriuOptions, DESCRIPTORS, Outside, soft, yard};
use crate::effects::criu::{BeginRestore, MakeMountpoints};
use crate::effects::{Directory, Existing, Mount};
use crate::mounts::Api;
use crate::outcomes::{CgroupJoin, Process};
use crate::process::Console;

/// Begins to bring the processes of an image back, in a cgroup and on a root file system that are there: the first process and its namespaces,
/// which are still empty. `criu.finish` does the rest.
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
    /// The image's processes have a terminal of their own (config.json: process.terminal).
    #[serde(default)]
    pub terminal: bool,
    /// A unix socket that takes that. Null: the engine keeps it for `console.relay`.
    #[serde(default)]
    pub console_socket: Option<HostPath>,
    /// The engine ends, and whatever it keeps with it.
    #[serde(default)]
    pub detached: bool,
}

/// What the first process is known by.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its identity.
    pub process: Handle<Process>,
    /// Where criu writes what it does.
    pub log: HostPath,
    /// Whether the engine has its terminal, for `console.relay`.
    pub relays: bool,
}

/// The step.
pub struct Restore;

impl Step for Restore {
    const KIND: &'static str = "criu.restore";
    const CHANGES: &'static str =
        "Makes the first process of an image, with its namespaces, and mountpoints that its root lacks, which stay.";
    const REVERSED_BY: &'static str =
        "Kills criu and the first process and waits for their end; the namespaces go with it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "An image comes back to life.",
        plan: "plan: example/restore
params: { images: { type: path, default: /tmp/lifecycle-example/image } }
steps:
  restore: { uses: criu.restore, with: { rootfs: /, options: { images: \"${params.images}\" } } }
  finish: { uses: criu.finish, with: { process: \"${restore.process}\", log: \"${restore.log}\" } }
  wait: { uses: process.wait, needs: [finish], with: { process: \"${restore.process}\" } }
main: wait
",
        needs: &["criu"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        // `shell_job`, which is for a terminal from outside, changes nothing.
        let console = Console::of(input.terminal, input.console_socket.as_ref(), input.detached)?;
        let Input { options, rootfs, outside, mut cgroup, lsm_profile, lsm_mount_context, .. } = input;
        options.check(cx.facts)?;
        let mut options = options.absolute(cx)?;
        // systemd moves the first process into the scope that it makes; criu would have made the directory, behind its back.
        let scope = cgroup.as_mut().and_then(|cgroup| cgroup.scope.take());
        if scope.is_some() && options.manage_cgroups_mode == soft() {
            "ignore".clone_into(&mut options.manage_cgroups_mode);
        }
        // What its stdio was is in the image; without that it gets what criu finds for it.
        let stdio: Vec<String> = match cx.facts.file(&options.images.join(DESCRIPTORS)) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| PlanError::new("options.images", format!("{DESCRIPTORS} in the image is damaged: {e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(PlanError::new("options.images", format!("the image cannot be read: {e}"))),
        };
        let points = outside.mountpoints(&rootfs);
        if !points.is_empty() {
            cx.effect(MakeMountpoints { points });
        }
        let run = cx.run.dir();
        let root = run.join("root");
        // criu wants a mount for the root, and the bundle's directory is none.
        cx.effect(Directory { path: root.clone(), mode: Mode(0o700), owner: None, existing: Existing::Refuse });
        let bind = ["rbind", "private"].map(str::to_owned).into();
        let (source, api) = (Some(rootfs.0), Api::choose(cx.facts));
        let reused_ids = !cx.facts.has("kernel.unique_mount_ids");
        cx.effect(Mount {
            target: root.clone(),
            kind: None,
            source,
            options: bind,
            api,
            reused_ids,
            with_all_on_it: false,
        });
        let mut words: Vec<String> = vec!["restore".to_owned()];
        words.extend(options.arguments(BeginRestore::LOG));
        words.extend(["--root".to_owned(), root.display().to_string()]);
        words.extend(["--restore-detached", "--restore-sibling", "--evasive-devices"].map(str::to_owned));
        words.extend(yard(cx));
        // Whatever cgroup the image names: it is this one now.
        words.extend(outside.roots(cx.facts).into_iter().flat_map(|root| ["--cgroup-root".to_owned(), root]));
        for (at, from) in outside.external(cx.facts) {
            words.extend(["--external".to_owned(), format!("mnt[{}]:{}", at.display(), from.display())]);
        }
        words.extend(lsm_profile.iter().flat_map(|profile| ["--lsm-profile".to_owned(), profile.clone()]));
        words.extend(lsm_mount_context.iter().flat_map(|c| ["--lsm-mount-context".to_owned(), c.clone()]));
        let joined = outside.joined().into_iter().map(|(kind, path)| (kind, path.to_owned())).collect();
        let log = options.log(BeginRestore::LOG);
        let relays = console == Some(Console::Engine);
        let made = cx.effect(BeginRestore {
            program: options.criu.clone().into(),
            words,
            work: options.work(),
            log: log.clone(),
            cgroup: cgroup.unwrap_or_default(),
            stdio,
            joined,
            console,
        });
        if let Some(scope) = scope {
            crate::cgroup::scope::start(*scope, &made.handle("init"), cx);
        }
        Ok(Output { process: made.handle("init"), log: HostPath(log), relays })
    }
}

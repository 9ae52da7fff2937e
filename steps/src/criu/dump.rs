//! `criu.dump`

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CriuOptions, Outside, yard};
use crate::effects::criu::DumpProcess;
use crate::effects::{Directory, Existing};
use crate::outcomes::Process;

/// Saves a container's processes to disk by criu. Unless they are left running, they are gone then.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// For criu.
    pub options: CriuOptions,
    /// The container's first process.
    pub process: Later<Process>,
    /// Its root file system, on the host.
    pub rootfs: HostPath,
    /// What it has from outside.
    #[serde(default)]
    pub outside: Outside,
    /// The processes go on.
    #[serde(default)]
    pub leave_running: bool,
    /// Memory alone is saved, and the processes go on.
    #[serde(default)]
    pub pre_dump: bool,
    /// `ADDRESS:PORT` of a page server that takes the memory.
    #[serde(default)]
    pub page_server: Option<String>,
    /// A descriptor of the caller on which criu tells that it is ready for lazy pages.
    #[serde(default)]
    pub status_fd: Option<i32>,
}

/// The image.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its directory.
    pub images: HostPath,
}

/// The step.
pub struct Dump;

impl Step for Dump {
    const KIND: &'static str = "criu.dump";
    const CHANGES: &'static str =
        "Writes an image of the processes into a directory, which it makes; then they are gone, or go on.";
    const REVERSED_BY: &'static str = "Removes the image. What criu has not finished it takes back itself: the processes go on. Processes that are gone stay so.";
    const NATURE: Nature = Nature::Commit;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A process goes to disk.",
        plan: "plan: example/dump
steps:
  init: { uses: process.clone, with: { new: [pid, mount], stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sleep, \"60\"] } }
  dump:
    uses: criu.dump
    needs: [exec]
    with: { process: \"${init.process}\", rootfs: /, options: { images: /tmp/lifecycle-example/image } }
",
        needs: &["criu"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { options, process, rootfs, outside, leave_running, pre_dump, page_server, status_fd } = input;
        options.check(cx.facts)?;
        let options = options.absolute(cx)?;
        let mut words: Vec<String> = vec![if pre_dump { "pre-dump" } else { "dump" }.to_owned()];
        words.extend(options.arguments(DumpProcess::LOG));
        words.extend(["--root".to_owned(), rootfs.to_string(), "--link-remap".to_owned()]);
        if let Some(parent) = &options.parent {
            words.extend(["--prev-images-dir".to_owned(), parent.display().to_string()]);
        }
        if pre_dump || options.parent.is_some() {
            words.push("--track-mem".to_owned());
        }
        if leave_running && !pre_dump {
            words.push("--leave-running".to_owned());
        }
        if let Some(server) = &page_server {
            words.extend(address(server)?);
        }
        words.extend(status_fd.iter().flat_map(|fd| ["--status-fd".to_owned(), fd.to_string()]));
        for (at, _) in outside.external(cx.facts) {
            words.extend(["--external".to_owned(), format!("mnt[{0}]:{0}", at.display())]);
        }
        let mut frozen = outside.cgroups.get("freezer").or_else(|| outside.cgroups.get(""));
        words.extend(frozen.take().iter().flat_map(|dir| ["--freeze-cgroup".to_owned(), dir.display().to_string()]));
        let joined = outside.joined().into_iter().map(|(kind, _)| kind).collect();
        let images = options.images.0.clone();
        cx.effect(Directory { path: images, mode: Mode(0o700), owner: None, existing: Existing::Keep, keep: false });
        words.extend(yard(cx));
        let ends = !leave_running && !pre_dump;
        let (program, images): (PathBuf, HostPath) = (options.criu.clone().into(), options.images.clone());
        let (log, work) = (options.log(DumpProcess::LOG), options.work());
        cx.effect(DumpProcess { program, words, process, images: images.0.clone(), work, log, joined, ends });
        Ok(Output { images })
    }
}

fn address(server: &str) -> Result<[String; 5], PlanError> {
    let wrong = || PlanError::new("page_server", format!("{server:?} is not ADDRESS:PORT"));
    let (address, port) = server.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    Ok(["--page-server".into(), "--address".into(), address.to_owned(), "--port".into(), port.to_string()])
}

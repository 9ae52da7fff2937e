//! `console.open`: the container's terminal.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EXAMPLE;
use crate::effects::console::OpenConsole;
use crate::process::label::require_selinux;
use crate::spec::ConsoleSize;

/// Opens a terminal from the container's own devpts: stdin, stdout, stderr, the controlling terminal and /dev/console of the site's process. Its
/// master goes to whoever the `process.clone` names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its size in characters. Null: none, until whoever has the master sets one.
    #[serde(default)]
    pub size: Option<ConsoleSize>,
    /// Whose it is, in the container's ids: the user of the container's program.
    #[serde(default)]
    pub uid: u32,
    /// Its SELinux context: linux.mountLabel.
    #[serde(default)]
    pub label: Option<String>,
    /// Whether it is the container's console, too: bound on its /dev/console. Not the terminal of an exec.
    #[serde(default = "yes")]
    pub console: bool,
}

fn yes() -> bool {
    true
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Open;

impl Step for Open {
    const KIND: &'static str = "console.open";
    const CHANGES: &'static str = "A terminal in the container's /dev/pts, bound on its /dev/console; the stdio and the session of the site's process.";
    const REVERSED_BY: &'static str = "Goes with the process and its mount namespace.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &["rootfs.mount", "rootfs.overlay", "rootfs.pivot"];
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if input.label.is_some() {
            require_selinux("label", "linux.mountLabel", cx.facts)?;
        }
        cx.effect(OpenConsole { size: input.size, uid: input.uid, console: input.console, label: input.label });
        Ok(Output {})
    }
}

//! Plans over a small catalogue, and what becomes of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::diag::Style;
use crate::error::PlanError;
use crate::graph::{NONE, Why};
use crate::step::{After, Example, Nature, Place, Planning, Step, StepKind};
use crate::types::{HostPath, Mode, Name, Size};
use crate::value::{Handle, Outcome, Sensitive, Text};

mod mistakes;
mod ordering;

const EXAMPLE: &[Example] = &[Example { about: "", plan: "", needs: &[] }];

/// A process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i64,
}

impl Outcome for Process {
    const NAME: &'static str = "process";
}

/// A namespace of the spec.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    kind: NamespaceKind,
    /// The one to join.
    #[serde(default)]
    path: Option<HostPath>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceKind {
    Pid,
    Mount,
    Network,
}

/// Fields that several kinds have.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What `file.write` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema matters")]
pub(crate) struct FileInput {
    /// Where it is.
    pub(crate) path: HostPath,
    /// What is in it.
    #[serde(default)]
    text: Option<Text>,
    /// Its permissions.
    #[serde(default)]
    mode: Option<Mode>,
    /// Its quota.
    #[serde(default)]
    quota: Option<Size>,
    /// Its owner's password.
    #[serde(default)]
    secret: Option<Sensitive<String>>,
    /// How often.
    #[serde(default)]
    times: u32,
}

/// A file that was written.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FileOutput {
    /// Where it is.
    path: HostPath,
    /// Its inode.
    inode: Handle<i64>,
}

/// What `spec.load` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecInput {
    /// The bundle.
    bundle: HostPath,
    /// What the host is called in it.
    #[serde(default)]
    hostname: Option<String>,
}

/// A config.json.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Spec {
    bundle: HostPath,
    hostname: Option<String>,
    args: Vec<String>,
    namespaces: Vec<Namespace>,
    annotations: BTreeMap<String, String>,
}

/// What `process.clone` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema matters")]
pub(crate) struct CloneInput {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

/// A process that was made.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CloneOutput {
    process: Handle<Process>,
    pid: Handle<i64>,
}

/// What `process.exec` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema matters")]
pub(crate) struct ExecInput {
    args: Vec<Text>,
}

/// What `process.wait` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema matters")]
pub(crate) struct WaitInput {
    process: Handle<Process>,
}

/// What `net.veth` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema matters")]
pub(crate) struct VethInput {
    name: Name,
    #[serde(default)]
    kind: Option<NamespaceKind>,
}

/// A link.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct VethOutput {
    name: String,
    kind: NamespaceKind,
}

macro_rules! kinds {
    ($($ty:ident $kind:literal $nature:ident $place:ident $site:literal $arms:literal $after:expr, $input:ty => $output:ty, |$in:ident, $cx:ident| $plan:expr;)*) => {
        $(
            struct $ty;
            impl Step for $ty {
                const KIND: &'static str = $kind;
                const CHANGES: &'static str = "";
                const REVERSED_BY: &'static str = "";
                const NATURE: Nature = Nature::$nature;
                const PLACE: Place = Place::$place;
                const MAKES_SITE: bool = $site;
                const ARMS: bool = $arms;
                const RELEASES: bool = matches!($kind.as_bytes(), b"fifo.release");
                const PROCESS: Option<&'static str> = match $kind.as_bytes() {
                    b"process.wait" | b"process.kill" => Some("process"),
                    _ => None,
                };
                const AFTER: After = $after;
                const EXAMPLES: &'static [Example] = EXAMPLE;
                type Input = $input;
                type Output = $output;
                fn plan($in: $input, $cx: &mut Planning) -> Result<$output, PlanError> {
                    $plan
                }
            }
        )*
        /// The catalogue.
        pub(crate) fn registry() -> Registry {
            Registry::new([$(StepKind::of::<$ty>()),*], [])
        }
    };
}

fn made(cx: &Planning, field: &'static str) -> crate::value::HandleRef {
    crate::value::HandleRef { step: cx.step.clone(), effect: 0, field: field.into() }
}

kinds! {
    Noop "noop" Reversible Host false false &[], Nothing => Nothing, |_input, _cx| Ok(Nothing {});
    File "file.write" Reversible Host false false &[], FileInput => FileOutput, |input, cx| {
        if input.path.starts_with("/forbidden") {
            return Err(PlanError::new("path", "nothing may be written there").help("choose another path"));
        }
        Ok(FileOutput { path: input.path, inode: Handle::new(made(cx, "inode")) })
    };
    SpecLoad "spec.load" Pure Host false false &[], SpecInput => Spec, |input, _cx| Ok(Spec {
        bundle: input.bundle,
        hostname: input.hostname,
        args: vec!["sh".into()],
        namespaces: vec![Namespace { kind: NamespaceKind::Pid, path: None }],
        annotations: BTreeMap::from([("a/b".into(), "c".into())]),
    });
    Clone "process.clone" Reversible Host true false &[], CloneInput => CloneOutput, |_input, cx| Ok(CloneOutput {
        process: Handle::new(made(cx, "")),
        pid: Handle::new(made(cx, "pid")),
    });
    Pivot "rootfs.pivot" Reversible Inside false false &[], Nothing => Nothing, |_input, _cx| Ok(Nothing {});
    Privileges "process.privileges" Reversible Inside false false &["rootfs.pivot"], Nothing => Nothing, |_input, _cx| Ok(Nothing {});
    Fifo "fifo.wait" Waits Inside false true &["rootfs.pivot"], Nothing => Nothing, |_input, _cx| Ok(Nothing {});
    Exec "process.exec" Commit Inside false false &["process.privileges", "fifo.wait"], ExecInput => Nothing, |_input, _cx| Ok(Nothing {});
    Wait "process.wait" Waits Host false false &[], WaitInput => Nothing, |_input, _cx| Ok(Nothing {});
    Release "fifo.release" Commit Host false false &[], WaitInput => Nothing, |_input, _cx| Ok(Nothing {});
    Kill "process.kill" Commit Host false false &[], WaitInput => Nothing, |_input, _cx| Ok(Nothing {});
    Veth "net.veth" Reversible Host false false &[], VethInput => VethOutput, |input, _cx| Ok(VethOutput { name: input.name.to_string(), kind: NamespaceKind::Network });
    Poststart "hooks.poststart" Commit Host false false &[], Nothing => Nothing, |_input, _cx| Ok(Nothing {});
}

/// Compiles; panics with every problem if there is one.
pub(crate) fn compiled<'r>(text: &str, registry: &'r Registry, plans: &[(&str, &str)]) -> Graph<'r> {
    super::text("plan.yaml", text, registry, Library { plans })
        .unwrap_or_else(|report| panic!("{}", report.render(Style::PLAIN)))
}

/// Compiles what is wrong, and shows how.
fn refused(text: &str, plans: &[(&str, &str)]) -> String {
    let registry = registry();
    match super::text("plan.yaml", text, &registry, Library { plans }) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report.render(Style::PLAIN),
    }
}

fn accepted(text: &str) {
    compiled(text, &registry(), &[]);
}

#[test]
fn values_fit_where_their_types_do() {
    accepted(
        r#"
plan: p
params:
  id: { type: name }
  files: { type: map(path), default: { a: /a } }
  namespaces: { type: list(Namespace), required: false }
  secret: { type: string, sensitive: true }
  quota: { type: size, default: 64M }
steps:
  spec: { uses: spec.load, with: { bundle: "/b/${params.id}" } }
  init: { uses: process.clone, with: { namespaces: "${spec.namespaces}" } }
  more: { uses: process.clone, if: params.namespaces != null, with: { namespaces: "${params.namespaces}" } }
  file:
    uses: file.write
    for_each: "${params.files}"
    with: { path: "${each.value}", text: "pid ${init.pid} of ${each.key}, ${params.secret}", mode: "0644", quota: "${params.quota}", secret: "${params.secret}", times: 3 }
  named: { uses: net.veth, if: "spec.hostname != null && spec.annotations['x'] == 'y'", with: { name: "${spec.hostname}", kind: network } }
  again: { uses: net.veth, if: "spec.hostname != null && spec.annotations['x'] == 'y'", with: { name: "${named.name}" } }
  first: { uses: file.write, with: { path: "${file['a'].path}", quota: 5, text: "${spec.args[0]}" } }
  wait: { uses: process.wait, with: { process: "${init.process}" } }
  joined: { uses: process.clone, with: { namespaces: [{ type: network, path: "/run/${params.id}" }] } }
outputs:
  process: "${init.process}"
  all: { pid: "${init.pid}", names: [a, "${spec.hostname}"] }
main: wait
"#,
    );
}

#[test]
fn a_value_in_a_graph_is_folded_if_it_has_no_reference() {
    let registry = registry();
    let graph = compiled(
        "plan: p\nsteps: { a: { uses: process.clone, with: { namespaces: [{ type: pid }] } } }\n",
        &registry,
        &[],
    );
    let crate::graph::Input::Value(value) = &graph.step(0).with[0].value else { panic!() };
    assert_eq!(value, &serde_json::json!([{ "type": "pid" }]));
}

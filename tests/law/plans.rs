//! Every built-in plan, with a container beside it that shares its root file system and the parent of its cgroup.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifecycle_steps::plans::BUILT_IN;
use lifecycle_tests::PATIENCE;
use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::killer::{Outcome, Victim};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::Scope;
use lifecycle_tests::rounds::{Kill, Sample};
use lifecycle_tests::{Error, Result, While, program};
use serde_json::{Value, json};

use crate::runs::{Scenario, Way};

/// How many kills in the run and how many in undo, where not all are asked for.
const SAMPLE: usize = 28;

fn sampled() -> Way {
    Way { sample: Sample::from_environment(SAMPLE), ..Way::default() }
}

/// The container that each scenario is about.
const ID: &str = "web";
/// The one that must not notice.
const NEIGHBOUR: &str = "neighbour";

/// One test for each way to run a built-in plan.
pub fn tests() -> Vec<Test> {
    let own = [
        Test::new("plan::hello", hello),
        Test::new("plan::ci/container", container),
        Test::new("plan::ci/service", service),
    ];
    let short = Oci { prior: &[], plan: "oci/run", force: false, hooks: false, args: &["sh", "-c", "exit 3"] };
    let long = Oci { args: &["sleep", "1000"], ..short };
    let oci = [
        ("oci/run", short),
        ("oci/run::hooks", Oci { hooks: true, ..short }),
        ("oci/create", Oci { plan: "oci/create", ..short }),
        ("oci/start", Oci { prior: &["oci/create"], plan: "oci/start", ..long }),
        ("oci/delete::created", Oci { prior: &["oci/create"], plan: "oci/delete", hooks: true, ..short }),
        ("oci/delete::running", Oci { prior: &["oci/create", "oci/start"], plan: "oci/delete", force: true, ..long }),
    ];
    let oci = oci.map(|(name, oci)| Test::new(format!("plan::{name}"), move |lab| oci.hold(lab, sampled())));
    let all = own.into_iter().chain(oci);
    all.map(|test| test.needs(&[Need::Root, Need::Program("busybox")]).limit(Duration::from_secs(3600))).collect()
}

/// A plan that needs nothing around it.
pub fn hold(lab: &Lab, run: Vec<OsString>, way: Way) -> TestResult {
    let scenario = Scenario { lab, scope: lab.scope(), prior: Vec::new(), run, neighbour: None, kept: &|_| false, way };
    note(scenario.hold()?);
    Ok(())
}

fn hello(lab: &Lab) -> TestResult {
    hold(lab, ["hello", "--", "true"].map(OsString::from).into(), sampled())
}

/// A built-in plan under a name of the test's own, with which its run's id and its cgroups' names begin.
fn renamed(lab: &Lab, name: &str, change: impl Fn(&str) -> String) -> Result<()> {
    let text = BUILT_IN.iter().find(|(of, _)| *of == name).map(|(_, text)| *text);
    let text = text.ok_or_else(|| Error::new(format!("looking for {name}"), "no such built-in plan"))?;
    let text = text.replacen(&format!("plan: {name}\n"), &format!("plan: {}\n", lab.token()), 1);
    fs::write(lab.dir().join("plan.yaml"), change(&text)).when(|| "writing the plan".into())
}

fn service(lab: &Lab) -> TestResult {
    renamed(lab, "ci/service", str::to_owned)?;
    hold(lab, vec!["plan.yaml".into()], sampled())
}

/// It takes a bridge, which no parameter on the command line can be: so a plan around it makes one.
fn container(lab: &Lab) -> TestResult {
    let plan = format!(
        r#"plan: {}
steps:
  network: {{ uses: net.bridge }}
  one:
    uses: plan:ci/container
    with: {{ command: ["true"], hostname: one, bridge: "${{network.link}}", address: 10.77.0.2/24 }}
  wait: {{ uses: process.wait, with: {{ process: "${{one.process}}" }} }}
main: wait
"#,
        lab.token()
    );
    fs::write(lab.dir().join("plan.yaml"), plan)?;
    hold(lab, vec!["plan.yaml".into()], sampled())
}

/// A container from a bundle.
#[derive(Clone, Copy)]
pub struct Oci {
    /// The plans that run before.
    pub prior: &'static [&'static str],
    pub plan: &'static str,
    /// It is deleted although it runs.
    pub force: bool,
    /// Hooks of every stage, one of which leaves a file on the host that its counterpart removes.
    pub hooks: bool,
    /// The container's command.
    pub args: &'static [&'static str],
}

impl Oci {
    /// Holds the law against it, with the neighbour beside it.
    pub fn hold(&self, lab: &Lab, way: Way) -> TestResult {
        let empty = lab.snapshot()?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(self.args)?;
        bundle.in_cgroup(&format!("/{}/{ID}", lab.token()))?;
        let neighbour = Neighbour::start(lab, &bundle)?;
        if self.hooks {
            bundle.edit(|config| config["hooks"] = hooks(lab))?;
        }
        let parameters = |plan: &str| {
            let mut words = vec![OsString::from(plan), "-p".into(), format!("id={ID}").into()];
            if matches!(plan, "oci/create" | "oci/run") {
                words.extend(["-p".into(), "bundle=bundle".into()]);
            }
            if self.force && plan == "oci/delete" {
                words.extend(["-p".into(), "force=true".into()]);
            }
            words
        };
        let scenario = Scenario {
            lab,
            scope: Scope { witnesses: vec![neighbour.pid], ..lab.scope() },
            prior: self.prior.iter().map(|plan| parameters(plan)).collect(),
            run: parameters(self.plan),
            neighbour: Some(NEIGHBOUR.into()),
            kept: &|_| false,
            way,
        };
        note(scenario.hold()?);
        lifecycle(lab, &["undo", NEIGHBOUR])?;
        // The bundles and the state root are this test's own to leave.
        let ours = lab.dir().display().to_string();
        let left = empty.returns_within(&lab.scope(), PATIENCE, |change| change.name.starts_with(&ours))?;
        if left.is_empty() { Ok(()) } else { Err(format!("the neighbour has left residue: {left}").into()) }
    }
}

/// What the hook of the createRuntime stage leaves, and the one after the container's end removes.
pub fn left_by_a_hook(lab: &Lab) -> PathBuf {
    lab.dir().join("left by a hook")
}

/// Does the work of a poststop hook that was killed: it has failed, which is a warning, and the container goes all the same (runtime.md,
/// "Lifecycle").
pub fn stand_in_for_a_hook(lab: &Lab, kill: &Kill, outcome: &Outcome) -> Result<()> {
    if kill.victim != Victim::Caller || !outcome.stderr.contains("poststop hook") {
        return Ok(());
    }
    match fs::remove_file(left_by_a_hook(lab)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).when(|| "removing what the hook has not".into())
        }
        _ => Ok(()),
    }
}

/// Hooks of every stage, one of which leaves a file on the host that its counterpart removes.
pub fn hooks(lab: &Lab) -> Value {
    let hook = |words: &[&str]| json!([{ "path": "/bin/busybox", "args": words }]);
    let file = left_by_a_hook(lab).display().to_string();
    let on_host = |words: &[&str]| json!([{ "path": program::find("busybox"), "args": words }]);
    json!({
        "prestart": on_host(&["busybox", "true"]),
        "createRuntime": on_host(&["busybox", "touch", &file]),
        "createContainer": on_host(&["busybox", "true"]),
        "startContainer": hook(&["busybox", "true"]),
        "poststart": on_host(&["busybox", "true"]),
        "poststop": on_host(&["busybox", "rm", "-f", &file]),
    })
}

/// A container that runs all the time.
struct Neighbour {
    pid: i32,
}

impl Neighbour {
    fn start(lab: &Lab, other: &Bundle) -> Result<Self> {
        let dir = lab.dir().join(NEIGHBOUR);
        fs::create_dir(&dir).when(|| "making the neighbour's bundle".into())?;
        let config = fs::read_to_string(other.dir().join("config.json")).when(|| "reading config.json".into())?;
        let mut config: Value = serde_json::from_str(&config).when(|| "parsing config.json".into())?;
        config["root"]["path"] = json!(other.rootfs());
        config["process"]["args"] = json!(["sleep", "100000"]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{NEIGHBOUR}", lab.token()));
        fs::write(dir.join("config.json"), config.to_string()).when(|| "writing config.json".into())?;
        let id = format!("id={NEIGHBOUR}");
        lifecycle(lab, &["run", "--keep", "oci/create", "-p", &id, "-p", "bundle=neighbour"])?;
        lifecycle(lab, &["run", "oci/start", "-p", &id])?;
        let state = lab.state_root().join(NEIGHBOUR).join("state.json");
        let state = fs::read_to_string(&state).when(|| format!("reading {}", state.display()))?;
        let state: Value = serde_json::from_str(&state).when(|| format!("parsing {state}"))?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Ok(Self { pid: pid.ok_or_else(|| Error::new("reading the neighbour's state", format!("no pid in {state}")))? })
    }
}

fn lifecycle(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let doing = || format!("lifecycle {}", arguments.join(" "));
    let mut command = Command::new(program::lifecycle()?);
    command.args(&arguments[..1]).arg("--root").arg(lab.state_root()).args(&arguments[1..]).current_dir(lab.dir());
    // A file, not a pipe: the container goes on holding it.
    let mut said = tempfile::tempfile().when(doing)?;
    let stderr = said.try_clone().when(doing)?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).status().when(doing)?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut text)).when(doing)?;
    Err(Error::new(doing(), text))
}

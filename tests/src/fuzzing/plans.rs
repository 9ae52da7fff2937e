//! What a config, a process.json, an image of criu's and a journal make the engine do.

use std::cell::OnceCell;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::compile::{self, Library};
use lifecycle_engine::effect::{Class, RunNames};
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::facts::{Facts, FileFact, Recorded};
use lifecycle_engine::graph::Graph;
use lifecycle_engine::journal;
use lifecycle_engine::planning::{self, Given, Target};
use lifecycle_engine::program::Program;
use lifecycle_engine::run::{Recovered, recover_one};
use lifecycle_engine::step::{PlannedEffect, Registry};
use lifecycle_engine::types::Name;
use lifecycle_steps::facts::CgroupLayout;
use lifecycle_steps::plans::BUILT_IN;
use serde_json::{Value, json};

use crate::program::source;

const CONFIG: &str = "/bundles/batch/config.json";
const PROCESS: &str = "/bundles/batch/process.json";
const DESCRIPTORS: &str = "/images/c1/descriptors.json";

/// A host of `snapshots/facts`.
struct Host {
    root: &'static str,
    facts: Recorded,
    layout: CgroupLayout,
    cache: PathBuf,
    /// What the journal of the container `c1` says.
    opened: Value,
}

impl Host {
    fn read(name: &str, root: &'static str) -> Self {
        let path = source().join(format!("snapshots/facts/{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut facts: Recorded = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // What the hosts of the snapshots have none of.
        let groups = json!({ "mount": "/sys/fs/resctrl", "resources": ["L3", "MB"], "monitors": ["llc_occupancy"] });
        facts.host.insert("resctrl".into(), groups);
        if let Some(links) = facts.host.get_mut("net.links").and_then(Value::as_array_mut) {
            links.push("eth7".into());
        }
        let fact = |name: &str| facts.host.get(name).cloned().unwrap_or_default();
        let layout = serde_json::from_value(fact("cgroup.layout")).expect("a layout");
        let cache = fact("cache").as_str().map(PathBuf::from).expect("a cache");
        let kept = Path::new(root).join("c1").join(journal::JOURNAL);
        let Some(FileFact::Text(text)) = facts.files.get(&kept) else { panic!("{name} has no journal") };
        let opened = journal::outputs(&kept, text.as_bytes()).expect("a journal");
        Self { root, facts, layout, cache, opened }
    }
}

/// All that does not depend on the bytes.
struct Fixed {
    registry: &'static Registry,
    plans: Vec<(&'static str, Graph<'static>)>,
    hosts: Vec<Host>,
}

thread_local! {
    static FIXED: OnceCell<Fixed> = const { OnceCell::new() };
}

impl Fixed {
    fn new() -> Self {
        let registry: &'static Registry = Box::leak(Box::new(lifecycle_steps::registry()));
        let library = Library { plans: BUILT_IN };
        let compiled = |name: &'static str| {
            let text = library.text(name).expect("a built-in plan");
            let Ok(graph) = compile::text(name, text, registry, library) else { panic!("{name} is no plan") };
            (name, graph)
        };
        let hosts =
            [("root-hybrid", "/run/lifecycle"), ("root-v2", "/run/lifecycle"), ("user", "/run/user/1000/lifecycle")];
        Self {
            registry,
            plans: ["oci/create", "oci/exec", "oci/restore"].map(compiled).into(),
            hosts: hosts.map(|(name, root)| Host::read(name, root)).into(),
        }
    }
}

fn with_fixed(act: impl FnOnce(&Fixed)) {
    FIXED.with(|fixed| act(fixed.get_or_init(Fixed::new)));
}

/// Plans it on a host where the file has this text; refused is as well as planned.
fn planned(fixed: &Fixed, host: &Host, plan: &str, params: &Value, file: &str, text: &str) {
    let graph = fixed.plans.iter().find_map(|(name, graph)| (*name == plan).then_some(graph)).expect("a plan");
    let values = params.to_string();
    let given = Given { file: Some(("parameters", &values)), ..Given::default() };
    let bound = planning::bind(graph, given).unwrap_or_else(|_| panic!("{values} are no parameters of {plan}"));
    let mut recorded = host.facts.clone();
    recorded.files.insert(file.into(), FileFact::Text(text.to_owned()));
    let mut facts = Facts::fixed(recorded);
    let target = Target { root: host.root.into(), id: "c2".into(), opened: host.opened.clone() };
    match planning::program(graph, &bound, &mut facts, target) {
        Ok(program) => judge(&program, fixed.registry, host),
        Err(report) => assert!(!report.diagnostics().is_empty()),
    }
}

/// A config.json, as `create` and `restore` read it.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    with_fixed(|fixed| {
        let host = &fixed.hosts[bytes.len() % fixed.hosts.len()];
        let runs_systemd = host.facts.host.get("systemd.running") == Some(&Value::Bool(true));
        let systemd = runs_systemd && bytes.len().is_multiple_of(2);
        let create = json!({ "id": "c2", "bundle": "/bundles/batch", "systemd_cgroup": systemd, "notify": true });
        planned(fixed, host, "oci/create", &create, CONFIG, text);
        let restore = json!({ "id": "c2", "bundle": "/bundles/batch", "options": { "images": "/images/c1" } });
        planned(fixed, host, "oci/restore", &restore, CONFIG, text);
    });
}

/// A process.json, as `exec` reads it.
pub fn process(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    with_fixed(|fixed| {
        let host = &fixed.hosts[bytes.len() % fixed.hosts.len()];
        planned(fixed, host, "oci/exec", &json!({ "id": "c1", "process": PROCESS }), PROCESS, text);
    });
}

/// What lies in a checkpoint's directory, as `restore` reads it.
pub fn descriptors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    with_fixed(|fixed| {
        let host = &fixed.hosts[bytes.len() % fixed.hosts.len()];
        let restore = json!({ "id": "c2", "bundle": "/bundles/batch", "options": { "images": "/images/c1" } });
        planned(fixed, host, "oci/restore", &restore, DESCRIPTORS, text);
    });
}

/// Nothing on the host but what is the run's own, the container's cgroup, and the caches is written.
fn judge(program: &Program, registry: &Registry, host: &Host) {
    let run = &program.runs[0];
    for node in &program.nodes {
        for planned in &node.effects {
            let (kind, data) = (planned.effect.kind(), planned.effect.data());
            assert!(!planned.effect.describe().is_empty());
            let known = registry.effect(kind).unwrap_or_else(|| panic!("{kind} is in no registry"));
            if let Err(e) = (known.decode)(&data) {
                panic!("a journal's {kind} could not be read again: {e}: {data}");
            }
            if node.site.is_none() && !planned.inside {
                written(planned, &data, &run.dir(), host);
            } else {
                written_inside(kind, &data);
            }
        }
    }
}

fn path<'a>(data: &'a Value, member: &str) -> &'a Path {
    Path::new(data[member].as_str().unwrap_or_default())
}

/// Strictly below that, by its names alone.
fn lies_below(path: &Path, above: &Path) -> bool {
    let mut rest = path.strip_prefix(above).into_iter().flat_map(Path::components).peekable();
    rest.peek().is_some() && rest.all(|part| matches!(part, Component::Normal(_)))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".." && name != "."
}

/// Where an effect on the host writes. Whoever adds one that a config can bring about says it here.
fn written(planned: &PlannedEffect, data: &Value, run: &Path, host: &Host) {
    let mounts = host.layout.v1.iter().map(|hierarchy| &hierarchy.mount);
    let mut mounts = mounts.chain(host.layout.v2.as_ref().map(|unified| &unified.mount));
    let mut in_cgroup = |path: &Path| mounts.any(|mount| lies_below(path, mount));
    let kind = planned.effect.kind();
    let ok = match kind {
        "exec_fifo" | "state" | "directory" | "symlink" | "netns.pin" | "notify.bind" | "notify.directory" | "file" => {
            lies_below(path(data, "path"), run)
        }
        // Without a mount namespace the root is bound on itself.
        "mount" if data["with_all_on_it"] == true => data["source"] == data["target"],
        "mount" => lies_below(path(data, "target"), run),
        "seccomp_cache" => {
            path(data, "directory").starts_with(&host.cache) && is_plain(data["key"].as_str().unwrap_or_default())
        }
        "cgroup.directory" => in_cgroup(&path(data, "mount").join(path(data, "path"))),
        "cgroup.write" => {
            let files = [&data["file"], &data["otherwise"]["file"]];
            let plain =
                files.into_iter().filter(|file| !file.is_null()).all(|file| file.as_str().is_some_and(is_plain));
            plain && in_cgroup(path(data, "at"))
        }
        "cgroup.devices" | "cgroup.controllers" | "cgroup.realtime" | "cgroup.freeze" | "cgroup.adopt" => {
            let at = ["at", "path"].into_iter().find(|member| data[*member].is_string());
            let at = at.map_or(PathBuf::new(), |member| path(data, "mount").join(path(data, member)));
            in_cgroup(&at)
        }
        "rdt.group" | "rdt.schemata" | "rdt.join" => lies_below(path(data, "at"), Path::new("/sys/fs/resctrl")),
        // A process, a link, a unit of systemd's: nothing that has a path. A hook's program and what criu is told are the caller's own words;
        // a mountpoint is made by the root's descriptor.
        "criu.mountpoints" | "clone" | "stage" | "id_maps" | "oom_score_adj" | "raise_rlimits" | "link.set"
        | "device.move" | "hook" | "hook.counterpart" | "warning" | "await_end" | "await_start" | "release"
        | "state.expect" | "prepare_mount" | "systemd.scope" | "systemd.properties" | "criu.begin" | "criu.finish"
        | "notify.forward" | "cpu_affinity" | "scheduler" | "io_priority" | "send_pidfd" | "pid_file"
        | "relay_console" => true,
        _ => panic!("where {kind} writes is not said: {data}"),
    };
    assert!(ok, "{kind} writes where a container has nothing: {data}");
}

/// In the container's namespaces all paths are resolved below its root; a sysctl alone is named.
fn written_inside(kind: &str, data: &Value) {
    if kind == "sysctl" {
        let text = data.to_string();
        assert!(!text.contains("..") && !text.contains("//"), "{text}");
    }
}

/// Such a journal is taken back, by an engine that knows no effects, without a touch on the run beside it; nothing that it owes is forgotten.
fn recovered(bytes: &[u8]) {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("root");
    let names = RunNames { root: root.clone(), id: "c1".into() };
    let mut own = std::fs::DirBuilder::new();
    own.mode(0o700).recursive(true);
    for dir in [names.dir(), root.join("other")] {
        own.create(dir).expect("a run's directory");
    }
    std::fs::write(root.join("other/kept"), "").expect("a file");
    std::fs::write(names.dir().join(journal::JOURNAL), bytes).expect("a journal");
    let owes = journal::parse(Path::new(""), bytes).is_ok_and(|state| {
        let mut all = state.begun().filter(|(_, node)| node.site.is_none()).flat_map(|(_, node)| &node.effects);
        all.any(|effect| effect.owes_undo() && effect.planned.class != Class::Commit)
    });
    let recovered = recover_one(&names, &Registry::new([], []), &mut Nobody);
    if matches!(recovered, Some(Recovered::Undone)) {
        assert!(!owes, "it is forgotten what is still there");
    }
    assert!(root.join("other/kept").exists(), "another run has been touched");
}

struct Nobody;

impl Watch for Nobody {
    fn event(&mut self, _: &Event) {}
}

/// A journal as a crash or another program leaves it: it is refused, or its runs are those of this state root and each effect in it can be told of.
pub fn journal(bytes: &[u8]) {
    let file = Path::new("/run/lifecycle/c1/journal");
    let _ = journal::outputs(file, bytes);
    let Ok(state) = journal::parse(file, bytes) else { return };
    let ids =
        [&state.id].into_iter().filter(|_| !state.segments.is_empty()).chain(&state.parent).chain(&state.children);
    for id in ids {
        assert!(Name::parse(id).is_ok(), "{id:?} would be a run");
    }
    let _ = state.outputs();
    recovered(bytes);
    with_fixed(|fixed| {
        for (n, node) in state.begun() {
            assert_eq!(state.node(n), Some(node));
            for effect in &node.effects {
                let known = fixed.registry.effect(&effect.planned.kind);
                if let Some(Ok(effect)) = known.map(|known| (known.decode)(&effect.planned.data)) {
                    assert!(!effect.describe().is_empty());
                }
            }
        }
    });
}

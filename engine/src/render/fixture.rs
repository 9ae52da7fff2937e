//! Programs made by hand for the tests of the renderers: the shape of the built-in plans, with effects that only describe themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::model::{DryRun, Param};
use crate::effect::{Applied, Class, Cx, Effect, Record, RunNames, Undone};
use crate::error::EffectError;
use crate::facts::{FileFact, Recorded};
use crate::program::{Condition, Node, NodeId, Options, Origin, Program, Scope};
use crate::step::{Nature, PlannedEffect};

/// An effect that is only shown.
#[derive(Debug)]
struct Shown {
    kind: &'static str,
    class: Class,
    does: String,
    data: Value,
}

impl Effect for Shown {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn class(&self) -> Class {
        self.class
    }
    fn describe(&self) -> String {
        self.does.clone()
    }
    fn data(&self) -> Result<Value, serde_json::Error> {
        Ok(self.data.clone())
    }
    fn before(&self, _: &mut Cx) -> Result<Value, EffectError> {
        Err(EffectError::new("only shown"))
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        Err(EffectError::new("only shown"))
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Err(EffectError::new("only shown"))
    }
    fn takes_signals(&self) -> bool {
        false
    }
    fn holds_back(&self) -> bool {
        false
    }
    fn why_ended(&self) -> Option<EffectError> {
        None
    }
}

/// A program in the making.
pub struct Draft {
    /// As far as it is.
    pub program: Program,
}

impl Draft {
    /// An empty program.
    pub fn new(plan: &str, about: &str) -> Self {
        let root = Scope { address: "".into(), plan: plan.into(), parent: 0 };
        Self {
            program: Program {
                plan: plan.into(),
                about: about.into(),
                files: vec![format!("plans/{plan}.yaml")],
                runs: vec![RunNames { root: "/run/lifecycle".into(), id: "web".into() }],
                opens: false,
                beside: false,
                nested: Vec::new(),
                nodes: Vec::new(),
                scopes: vec![root],
                stays: false,
                main: Vec::new(),
                outputs: Value::Null,
                facts: Recorded::default(),
            },
        }
    }

    fn id(&self, address: &str) -> NodeId {
        self.program.node(address).unwrap_or_else(|| panic!("no step {address}"))
    }

    /// Adds a step that waits for others.
    pub fn step(&mut self, address: &str, kind: &'static str, after: &[&str]) -> &mut Self {
        let after = after.iter().map(|a| self.id(a)).collect();
        let longest = |s: &(usize, &Scope)| s.1.address.len();
        let inside = |s: &(usize, &Scope)| address.starts_with(&format!("{}/", s.1.address));
        let scope = self.program.scopes.iter().enumerate().skip(1).filter(inside).max_by_key(longest);
        let scope = scope.map_or(0, |(i, _)| i as u32);
        self.program.nodes.push(Node {
            address: address.into(),
            kind,
            nature: Nature::Reversible,
            origin: Origin { file: 0, line: 10 + self.program.nodes.len() as u32 },
            scope,
            run: 0,
            site: None,
            makes_site: false,
            armed: false,
            after,
            skipped: false,
            when: None,
            options: None,
            effects: Vec::new(),
            output: Value::Null,
        });
        self
    }

    /// Changes the step added last.
    pub fn with(&mut self, change: impl FnOnce(&mut Node)) -> &mut Self {
        change(self.program.nodes.last_mut().expect("a step"));
        self
    }

    /// Puts the step added last into a site.
    pub fn site(&mut self, maker: &str) -> &mut Self {
        let maker = self.id(maker);
        self.with(|n| n.site = Some(maker))
    }

    /// Gives the step added last an effect.
    pub fn does(&mut self, kind: &'static str, class: Class, does: &str) -> &mut Self {
        self.does_with(kind, class, does, json!({ "about": does }))
    }

    /// As [`Draft::does`], with the effect's fields.
    pub fn does_with(&mut self, kind: &'static str, class: Class, does: &str, data: Value) -> &mut Self {
        let effect = Box::new(Shown { kind, class, does: does.into(), data });
        self.with(|n| n.effects.push(PlannedEffect { data: effect.data().unwrap_or_default(), effect, inside: false }))
    }

    /// Opens a nested plan.
    pub fn scope(&mut self, address: &str, plan: &str) -> &mut Self {
        self.program.scopes.push(Scope { address: address.into(), plan: plan.into(), parent: 0 });
        self
    }

    /// The dry run.
    pub fn dry_run(&self, params: Vec<Param>) -> DryRun {
        DryRun::of(&self.program, params)
    }
}

fn handle(step: &str, field: &str) -> Value {
    json!({ "$handle": { "step": step, "effect": 0, "field": field } })
}

use Class::{Commit, Foreign, Kept, Reversible, Scoped};

/// Adds the steps of `oci/create` below `at`, which is empty or ends in a slash.
fn create(draft: &mut Draft, at: &str, first: &[&str], hooks: bool) {
    let name = |step: &str| format!("{at}{step}");
    let add = |draft: &mut Draft, step: &str, kind, after: &[&str]| {
        let after: Vec<String> = after.iter().map(|a| name(a)).collect();
        draft.step(&name(step), kind, &after.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let id = draft.program.runs.last().map_or_else(String::new, |r| r.id.clone());
    let run = draft.program.runs.len() as u32 - 1;
    let start = draft.program.nodes.len();
    let init = name("init");

    draft.step(&name("spec"), "spec.load", first).with(|n| n.nature = Nature::Pure);
    add(draft, "fifo", "fifo.create", &[]);
    draft.does("fifo", Reversible, &format!("mkfifo /run/lifecycle/{id}/exec.fifo, mode 0622"));
    add(draft, "cgroup", "cgroup.create", &["spec"]);
    for controller in ["memory", "cpu", "pids"] {
        draft.does("mkdir", Reversible, &format!("make the cgroup /sys/fs/cgroup/{controller}/lifecycle/{id}"));
    }
    draft.does(
        "write",
        Scoped,
        &format!("write 67108864 to /sys/fs/cgroup/memory/lifecycle/{id}/memory.limit_in_bytes"),
    );
    add(draft, "init", "process.clone", &["spec", "cgroup"]);
    draft.with(|n| n.makes_site = true);
    draft.does("clone", Reversible, "clone a process into new pid, mount, uts, ipc, network and cgroup namespaces");
    draft.does("join", Scoped, "join the cgroups").with(|n| n.effects[1].inside = true);
    let site = |draft: &mut Draft, step: &str, kind, after: &[&str]| {
        let mut all = vec!["init"];
        all.extend(after);
        add(draft, step, kind, &all);
        draft.site(&init);
    };
    site(draft, "loopback", "net.loopback", &[]);
    draft.does("link.up", Scoped, "bring up lo");
    site(draft, "rootfs", "rootfs.mount", &["spec"]);
    draft.does("propagation", Scoped, "make every mount a slave of the host's");
    draft.does("mkdir", Kept, &format!("make the mountpoint /srv/bundles/{id}/rootfs/proc"));
    let target = format!("/srv/bundles/{id}/rootfs");
    draft.does("mount", Scoped, &format!("mount proc at {target}/proc (nosuid, noexec, nodev)"));
    draft.does("mount", Scoped, &format!("mount tmpfs at {target}/dev (nosuid, strictatime, mode=755, size=65536k)"));
    draft.does(
        "mount",
        Scoped,
        &format!("mount devpts at {target}/dev/pts (nosuid, noexec, newinstance, ptmxmode=0666, mode=0620, gid=5)"),
    );
    draft.does("mknod", Scoped, "make the devices null, zero, full, random, urandom and tty");
    if hooks {
        add(draft, "createRuntime", "hooks.run", &["rootfs", "init"]);
        let does = format!("run /usr/libexec/oci/hooks.d/register --bundle /srv/bundles/{id}, counterpart poststop");
        draft.does_with(
            "hook",
            Foreign,
            &does,
            json!({ "path": "/usr/libexec/oci/hooks.d/register", "pid": handle(&init, "pid") }),
        );
        site(draft, "createContainer", "hooks.run", &["createRuntime"]);
        draft.does("hook", Foreign, "run /usr/libexec/oci/hooks.d/prepare");
        site(draft, "pivot", "rootfs.pivot", &["createContainer"]);
    } else {
        site(draft, "pivot", "rootfs.pivot", &["rootfs"]);
    }
    draft.does("pivot_root", Scoped, &format!("make {target} the root and detach the old one"));
    site(draft, "console", "console.open", &[]);
    draft.with(|n| n.skipped = true);
    site(draft, "names", "uts.set", &[]);
    draft.does("hostname", Scoped, &format!("set the host name to {id}"));
    site(draft, "sysctl", "sysctl.write", &[]);
    draft.does("sysctl", Scoped, "set net.ipv4.ping_group_range to 0 0");
    site(draft, "protect", "rootfs.protect", &["sysctl"]);
    draft.does(
        "mask",
        Scoped,
        "mask /proc/kcore, /proc/keys, /proc/timer_list, /proc/sched_debug, /sys/firmware and /proc/scsi",
    );
    draft.does("readonly", Scoped, "make /proc/bus, /proc/fs, /proc/irq, /proc/sys and /proc/sysrq-trigger read-only");
    site(draft, "privileges", "process.privileges", &["protect"]);
    draft.does("capabilities", Scoped, "keep the capabilities AUDIT_WRITE, KILL and NET_BIND_SERVICE");
    draft.does("user", Scoped, "become uid 0, gid 0");
    draft.does("no_new_privs", Scoped, "set no_new_privs");
    site(draft, "seccomp", "seccomp.load", &["privileges"]);
    draft.does("seccomp", Scoped, "load a filter of 412 instructions");
    add(draft, "ready", "state.publish", &["init", "seccomp"]);
    draft.does_with(
        "write",
        Reversible,
        &format!("write /run/lifecycle/{id}/state.json: created, pid ‹{init}.pid›"),
        json!({ "pid": handle(&init, "pid") }),
    );
    site(draft, "wait", "fifo.wait", &["seccomp", "fifo"]);
    draft.with(|n| n.nature = Nature::Waits);
    draft.does("fifo.wait", Scoped, &format!("wait for a reader of /run/lifecycle/{id}/exec.fifo"));
    site(draft, "exec", "process.exec", &["wait"]);
    draft.with(|n| {
        n.armed = true;
        n.nature = Nature::Commit;
    });
    draft.does("exec", Commit, "execute /bin/httpd -f -p 8080 with 4 environment variables");
    draft.program.nodes[start..].iter_mut().for_each(|n| n.run = run);
}

/// What `oci/create` will look like: one container, one site, hooks.
pub fn oci_create() -> DryRun {
    let mut draft = Draft::new("oci/create", "Create a container from an OCI bundle and stop it just before exec.");
    create(&mut draft, "", &[], true);
    let config = PathBuf::from("/srv/bundles/web/config.json");
    draft.program.facts.files.insert(config, FileFact::Text("{\"env\": [\"PASSWORD=hunter2\"]}".into()));
    draft.program.facts.host.insert("cgroup.layout".into(), json!("hybrid"));
    draft.program.facts.host.insert("kernel.openat2".into(), json!(true));
    draft.program.outputs = json!({ "pid": handle("init", "pid") });
    draft.dry_run(vec![
        Param { name: "id".into(), value: json!("web"), default: false },
        Param { name: "bundle".into(), value: json!("/srv/bundles/web"), default: false },
        Param { name: "console_socket".into(), value: Value::Null, default: true },
        Param { name: "token".into(), value: json!({ "$sensitive": "hunter2" }), default: false },
    ])
}

/// What `ci/service` will look like: nested plans, two sites, a probe, an `if` on a handle.
pub fn ci_service() -> DryRun {
    let mut draft =
        Draft::new("ci/service", "A server, and a client once the server answers; everything gone afterwards.");
    draft.step("bridge", "net.bridge", &[]).does(
        "link",
        Reversible,
        "make the bridge lc3f9a0c21d7b (no address: L2 only)",
    );
    for (id, first) in [("server", vec!["bridge"]), ("client", vec!["bridge", "ready"])] {
        if id == "client" {
            draft.step("ready", "probe.tcp", &["server/start"]).with(|n| {
                n.nature = Nature::Waits;
                n.options = Some(Box::new(Options {
                    timeout: Some(Duration::from_secs(30)),
                    retries: 3,
                    backoff: Duration::from_millis(250),
                    continue_on_error: false,
                }));
            });
            draft.does("probe", Scoped, "connect to 10.9.0.2:8080 from the network of ‹server/init.pid›");
        }
        draft.scope(id, "oci/run");
        draft.program.runs.push(RunNames { root: "/run/lifecycle".into(), id: format!("web-{id}") });
        create(&mut draft, &format!("{id}/"), &first, false);
        let init: Arc<str> = format!("{id}/init").into();
        draft.step(&format!("{id}/veth"), "net.veth", &["bridge", &init]);
        draft.does_with(
            "link",
            Reversible,
            "make the link lc3f9a0c21d7be and move its peer in as eth0",
            json!({ "netns": handle(&init, "pid") }),
        );
        draft.step(&format!("{id}/start"), "fifo.release", &[&format!("{id}/ready"), &format!("{id}/veth")]);
        draft.with(|n| n.nature = Nature::Commit).does(
            "release",
            Commit,
            "let the container's process go on to its exec",
        );
        draft.program.runs.rotate_left(0);
    }
    draft.step("wait", "process.wait", &["client/start"]).with(|n| n.nature = Nature::Waits);
    draft.does_with(
        "wait",
        Scoped,
        "wait for ‹client/init.pid› to end",
        json!({ "pid": handle("client/init", "pid") }),
    );
    draft.program.main = draft.program.node("wait").into_iter().collect();
    draft.step("report", "command.run", &["wait"]).does("command", Foreign, "run /usr/bin/logger client failed");
    draft.with(|n| n.when = Some(Box::new(Condition::Differ(handle("wait", "code"), json!(0)))));
    draft.dry_run(Vec::new())
}

/// A program whose every name is an attack on a format.
pub fn hostile(text: &str) -> DryRun {
    let mut draft = Draft::new(text, text);
    draft.scope(text, text);
    draft.step(text, "fake.step", &[]).does("fake", Reversible, text);
    draft.with(|n| n.makes_site = true);
    draft.step(&format!("{text}/{text}"), "fake.step", &[text]).does("fake", Scoped, text).site(text);
    draft.with(|n| n.when = Some(Box::new(Condition::Value(json!(text)))));
    draft.dry_run(vec![Param { name: text.into(), value: json!(text), default: false }])
}

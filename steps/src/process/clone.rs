//! `process.clone`: the container's first process, in its namespaces, stopped before the first step of its site.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::{Facts, FileKind};
use lifecycle_engine::step::{Example, Made, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Console, Handover, Stdio};
use crate::effects::clone::CloneInit;
use crate::effects::idmap::{MapIds, Writer};
use crate::effects::oom::OomScoreAdj;
use crate::effects::prelude::{BecomeRoot, Conceal, EnterCgroup, NewSession, UnshareCgroup};
use crate::effects::rlimit::RaiseRlimits;
use crate::effects::schedule::{FreeAffinity, SetAffinity};
use crate::effects::stage::Stage;
use crate::effects::stdio::GiveStdio;
use crate::facts::{JOINED, Limit, lacks, whereabouts_of};
use crate::fifo::create::ExecFifo;
use crate::mounts::Api;
use crate::outcomes::{CgroupJoin, DetachedMount, Process};
use crate::spec::{IdMapping, Namespace, NamespaceType, Rlimit, TimeOffset, number_list, wrong_namespace};

/// Makes the first process of a container: a site for the steps that set it up from within, until one of them replaces it by the container's
/// program.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The namespaces to make, or with a path to join, as in config.json. A type that is listed neither here nor under `new` is shared with the
    /// engine.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// Those of `namespaces` are all this process's, and are joined: what an exec does. Paths in the list do not count then.
    #[serde(default)]
    pub join: Option<Later<Process>>,
    /// More namespaces to make, by type alone.
    #[serde(default)]
    pub new: Vec<NamespaceType>,
    /// The user ids of a new user namespace. Without any, its root is the caller.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// The group ids of a new user namespace. Without any, its root group is the caller's.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// The clocks of a new time namespace, by `monotonic` and `boottime`.
    #[serde(default)]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// The cgroup to be in: the `join` of a `cgroup.create`.
    #[serde(default)]
    pub cgroup: Option<CgroupJoin>,
    /// A cgroup below that one, which has to exist: `PATH`, or `CONTROLLER:PATH` for the hierarchy of that controller alone (version 1).
    #[serde(default)]
    pub subgroup: Option<String>,
    /// The CPUs that it runs on until it is in its cgroup, as a list such as `0-3,7`: config.json's process.execCPUAffinity.initial. A process that
    /// is moved into a cgroup may begin on any CPU of it; this keeps it away from those that are others' alone. Absent: whatever CPUs the engine is
    /// bound to, the process has all those of its cpuset.
    #[serde(default)]
    pub cpu_affinity: Option<String>,
    /// How readily the kernel kills it when memory is short, -1000 to 1000. Absent: the engine's own.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// The limits that a `process.privileges` in its site sets. The engine raises those that are above its own where the process is in a user
    /// namespace: there nobody may.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Where input comes from and output goes; not with `terminal`.
    #[serde(default)]
    pub stdio: Stdio,
    /// The user of its program, in the container's ids: the engine's own pipes and sockets that are its stdio are given to him, files and devices are
    /// not. Absent: they stay whose they are.
    #[serde(default)]
    pub stdio_user: Option<u32>,
    /// It gets a terminal: a `console.open` in its site opens one.
    #[serde(default)]
    pub terminal: bool,
    /// Who gets the terminal's master: a unix socket that somebody listens on. Absent: the engine, for `console.relay`.
    #[serde(default)]
    pub console_socket: Option<HostPath>,
    /// Its terminal goes to that socket and to nobody else: nothing in the plan carries it.
    #[serde(default)]
    pub detached: bool,
    /// How many descriptors from 3 on are passed from the engine's caller to the container's program.
    #[serde(default)]
    pub preserve_fds: u32,
    /// The FIFO at which a `fifo.wait` in its site waits: the `fifo` of a `fifo.create`.
    #[serde(default)]
    pub fifo: Option<ExecFifo>,
    /// Bind mounts for a `rootfs.mount` in its site to attach: the `prepared` of a `rootfs.sources`.
    #[serde(default)]
    pub mounts: BTreeMap<String, Handle<DetachedMount>>,
    /// The unix socket of the agent that a `seccomp.load` in its site hands the notified calls to.
    #[serde(default)]
    pub seccomp_agent: Option<HostPath>,
}

/// What the process is known by.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its identity.
    pub process: Handle<Process>,
    /// Its id in the engine's pid namespace.
    pub pid: Handle<i64>,
}

/// The step.
pub struct Clone;

impl Step for Clone {
    const KIND: &'static str = "process.clone";
    const CHANGES: &'static str = "Makes a process in new or joined namespaces: a copy of the engine that waits to be told what to do. Where \
                                   namespaces are joined by path, or a time namespace is made, a stage process makes it.";
    const REVERSED_BY: &'static str = "Kills the process and waits for its end. Its namespaces go with it.";
    const MAKES_SITE: bool = true;
    const EXAMPLES: &'static [Example] = &[
        Example {
            about: "A process in namespaces of its own runs a program.",
            plan: "plan: example/clone
steps:
  init: { uses: process.clone, with: { new: [pid, mount, uts, ipc], stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/echo, hello] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
            needs: &["root"],
        },
        Example {
            about: "In a user namespace, root is an ordinary user of the host.",
            plan: "plan: example/clone-user
steps:
  init:
    uses: process.clone
    with:
      new: [user, pid, mount]
      uid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      gid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      stdio: log
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/usr/bin/id] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
            needs: &["root"],
        },
        Example {
            about: "A second process in the namespaces of the first.",
            plan: "plan: example/clone-join
steps:
  init: { uses: process.clone, with: { new: [pid, mount, uts, ipc], stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sleep, \"60\"] } }
  second:
    uses: process.clone
    needs: [exec]
    with: { join: \"${init.process}\", namespaces: [{ type: pid }, { type: mount }, { type: uts }], stdio: log }
  hello: { uses: process.exec, site: \"${second}\", with: { args: [/bin/echo, hello] } }
  wait: { uses: process.wait, with: { process: \"${second.process}\" } }
main: wait
",
            needs: &["root"],
        },
        Example {
            about: "Joined namespaces and a clock of its own need a stage process.",
            plan: "plan: example/clone-stage
steps:
  init:
    uses: process.clone
    with:
      namespaces: [{ type: network, path: /proc/self/ns/net }, { type: pid }, { type: time }]
      time_offsets: { boottime: { secs: 86400 } }
      stdio: log
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/cat, /proc/uptime] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
            needs: &["root", "kernel.time_namespace"],
        },
    ];

    type Input = Input;
    type Output = Output;

    fn takes_root(with: &BTreeMap<&str, &Value>) -> Option<&'static str> {
        // Without a user namespace, and where none may come from elsewhere.
        let new = with.get("new")?.as_array()?;
        let others = !with.contains_key("namespaces") && !with.contains_key("join");
        let takes = !new.is_empty() && new.iter().all(|kind| kind != "user");
        (takes && others).then_some("making these namespaces without a user namespace takes CAP_SYS_ADMIN")
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let mut input = input;
        input.find_cgroup(cx.facts);
        input.below()?;
        let scope = input.cgroup.as_mut().and_then(|cgroup| cgroup.scope.take());
        let namespaces = input.all_namespaces()?;
        input.check(&namespaces)?;
        let own = input.join.is_none() && namespaces.iter().all(|n| n.kind != NamespaceType::User);
        if own && !input.new.is_empty() && lacks(cx.facts, "CAP_SYS_ADMIN") {
            let message = "making namespaces without a user namespace needs CAP_SYS_ADMIN, which the caller lacks (fact caps.effective)";
            return Err(PlanError::new("new", message)
                .help("add `user` to them, take them of `namespaces.choose`, or run as root"));
        }
        input.check_joins(cx.facts)?;
        if namespaces.iter().any(|n| n.kind == NamespaceType::Time) && !cx.facts.has("kernel.time_namespace") {
            let message = "this kernel has no time namespaces (fact kernel.time_namespace)";
            return Err(PlanError::new("namespaces", message)
                .help("they need Linux 5.6, built with CONFIG_TIME_NS; or take the namespace of type time out"));
        }
        let is_new = |kind| input.makes(&namespaces, kind);
        let is_in = |kind| namespaces.iter().any(|n| n.kind == kind);
        let new_user = is_new(NamespaceType::User);
        let limits = input.raised(is_in(NamespaceType::User), cx.facts)?;
        let joins = input.join.is_some() || namespaces.iter().any(|n| n.path.is_some());
        let is_staged = joins || is_in(NamespaceType::Time);
        // Whoever is cloned into a cgroup has no time before it.
        let into_cgroup = input.cpu_affinity.is_none()
            && input.cgroup.as_ref().is_some_and(|c| c.v2.is_some())
            && cx.facts.has("kernel.clone_into_cgroup")
            // Whom others see in the pid namespace that he is cloned into holds no directory of the host, not even that of his cgroup.
            && (!is_staged || Api::choose(cx.facts) == Api::Detached);
        let console = Console::of(input.terminal, input.console_socket.as_ref(), input.detached)?;
        let handover = input.handover(into_cgroup, console);
        let maps = if new_user { Some(Maps::of(&input, cx.facts)?) } else { None };
        let made = if is_staged {
            by_stage(&input, &namespaces, handover, (maps, limits), cx)
        } else {
            let made = cx.effect(CloneInit { namespaces: made_by_clone(&namespaces, true), handover, stage: None });
            children(&made.handle(""), (maps, limits), input.oom_score_adj, cx);
            made
        };
        if let (Some(user), Stdio::Inherit, false) = (input.stdio_user, input.stdio, input.terminal) {
            cx.effect(GiveStdio { process: made.handle(""), user });
        }
        if let Some(scope) = scope {
            crate::cgroup::scope::start(*scope, &made.handle(""), cx);
        }
        cx.inside(Conceal {});
        if let Some(cpus) = input.cpu_affinity.clone() {
            cx.inside(SetAffinity { cpus });
        }
        let enter = input.cgroup.clone().map(|c| CgroupJoin { v2: c.v2.filter(|_| !into_cgroup), ..c });
        if let Some(cgroup) = enter.filter(|c| !c.v1.is_empty() || c.v2.is_some()) {
            cx.inside(EnterCgroup { cgroup });
        }
        // What was asked for stays, where nothing else is asked for afterwards.
        if input.cpu_affinity.is_none() {
            cx.inside(FreeAffinity {});
        }
        if is_new(NamespaceType::Cgroup) {
            cx.inside(UnshareCgroup {});
        }
        if is_in(NamespaceType::User) {
            cx.inside(BecomeRoot {});
        }
        cx.inside(NewSession {});
        Ok(Output { process: made.handle(""), pid: made.handle("pid") })
    }
}

/// What is written about a process from outside before it may begin.
fn children(
    process: &Handle<Process>,
    (maps, limits): (Option<Maps>, Vec<Rlimit>),
    score: Option<i32>,
    cx: &mut Planning,
) {
    if let Some(Maps { uid, gid, writer }) = maps {
        cx.effect(MapIds { process: process.clone(), uid, gid, writer });
    }
    if let Some(score) = score {
        cx.effect(OomScoreAdj { process: process.clone(), score });
    }
    if !limits.is_empty() {
        cx.effect(RaiseRlimits { process: process.clone(), limits });
    }
}

/// Everything that is written about init is written about the stage, from which init has it: once cloned, init is in joined namespaces, and
/// concealed from an ordinary user's engine too.
fn by_stage(
    input: &Input,
    all: &[Namespace],
    handover: Handover,
    (maps, limits): (Option<Maps>, Vec<Rlimit>),
    cx: &mut Planning,
) -> Made {
    let is_new = |kind| input.makes(all, kind);
    let stage = cx.effect(Stage {
        join: all.iter().filter(|n| !is_new(n.kind)).cloned().collect(),
        of: input.join.clone(),
        new_user: is_new(NamespaceType::User),
        time: is_new(NamespaceType::Time).then(|| input.time_offsets.clone()),
        handover: handover.clone(),
    });
    children(&stage.handle(""), (maps, limits), input.oom_score_adj, cx);
    let made: Vec<Namespace> = all.iter().filter(|n| is_new(n.kind)).cloned().collect();
    cx.effect(CloneInit { namespaces: made_by_clone(&made, false), handover, stage: Some(stage.handle("")) })
}

/// The namespaces that the clone makes. The cgroup namespace comes later, when init is in its cgroup; a stage makes those of users and time.
fn made_by_clone(all: &[Namespace], user: bool) -> Vec<NamespaceType> {
    let by_clone = |n: &&Namespace| {
        n.path.is_none()
            && !matches!(n.kind, NamespaceType::Cgroup | NamespaceType::Time)
            && (user || n.kind != NamespaceType::User)
    };
    all.iter().filter(by_clone).map(|n| n.kind).collect()
}

impl Input {
    /// Whether the process gets a new namespace of that type.
    fn makes(&self, all: &[Namespace], kind: NamespaceType) -> bool {
        let new =
            |n: &Namespace| n.kind == kind && (n.path.is_none() && self.join.is_none() || self.new.contains(&kind));
        all.iter().any(new)
    }

    /// Whose cgroup takes no process any more is joined where he is now.
    fn find_cgroup(&mut self, facts: &mut Facts) {
        let (None, Some(Later::Now(process)), Some(join)) = (&self.subgroup, &self.join, &mut self.cgroup) else {
            return;
        };
        if let Some(recorded) = &mut join.v2
            && let Some(now) = facts.get::<Option<PathBuf>>(&whereabouts_of(JOINED, process, recorded)).flatten()
        {
            *recorded = now;
        }
    }

    /// Goes down to the cgroup below.
    fn below(&mut self) -> Result<(), PlanError> {
        let (Some(below), Some(join)) = (&self.subgroup, &mut self.cgroup) else { return Ok(()) };
        let (controller, path) = below.split_once(':').map_or((None, &**below), |(c, path)| (Some(c), path));
        let path = Path::new(path.trim_start_matches('/'));
        let plain = |part| matches!(part, Component::Normal(_));
        if !path.components().all(plain) {
            return Err(PlanError::new("subgroup", format!("{below:?} does not stay below the container's cgroup")));
        }
        // A hierarchy is called by its controllers, joined by commas, in its mount point's last name.
        let is_meant = |dir: &Path| match controller {
            Some(wanted) => {
                dir.components().any(|c| c.as_os_str().to_str().is_some_and(|n| n.split(',').any(|n| n == wanted)))
            }
            None => true,
        };
        for dir in join.v1.iter_mut().chain(&mut join.v2).filter(|dir| is_meant(dir)) {
            *dir = dir.join(path);
        }
        Ok(())
    }

    fn all_namespaces(&self) -> Result<Vec<Namespace>, PlanError> {
        let more = self.new.iter().map(|kind| Namespace { kind: *kind, path: None });
        let all: Vec<Namespace> = self.namespaces.iter().cloned().chain(more).collect();
        let mut seen = BTreeSet::new();
        match all.iter().find(|n| !seen.insert(n.kind)) {
            Some(twice) => {
                Err(PlanError::new("namespaces", format!("the {} namespace is listed twice", twice.kind.name())))
            }
            None => Ok(all),
        }
    }

    fn check(&self, namespaces: &[Namespace]) -> Result<(), PlanError> {
        if self.join.is_some() && !self.time_offsets.is_empty() {
            return Err(PlanError::new("time_offsets", "the clocks of a running container cannot be set"));
        }
        let find = |kind| namespaces.iter().find(|n| n.kind == kind);
        if find(NamespaceType::User).is_none() && !(self.uid_mappings.is_empty() && self.gid_mappings.is_empty()) {
            return Err(PlanError::new("uid_mappings", "ids are mapped, but there is no user namespace")
                .help("add a namespace of type user, or take the mappings out"));
        }
        if !self.time_offsets.is_empty() && find(NamespaceType::Time).is_none_or(|n| n.path.is_some()) {
            return Err(PlanError::new("time_offsets", "clocks can be set in a new time namespace only")
                .help("add a namespace of type time, without a path"));
        }
        if let Some(clock) = self.time_offsets.keys().find(|c| !["monotonic", "boottime"].contains(&c.as_str())) {
            return Err(PlanError::new(
                "time_offsets",
                format!("there is no clock `{clock}` to set: monotonic and boottime"),
            ));
        }
        if let Some(path) = namespaces.iter().filter_map(|n| n.path.as_deref()).find(|p| !p.is_absolute()) {
            return Err(PlanError::new("namespaces", format!("the path {} is not absolute", path.display())));
        }
        if let Some(Err(message)) = self.cpu_affinity.as_deref().map(number_list) {
            return Err(PlanError::new("cpu_affinity", message));
        }
        if let Some(score) = self.oom_score_adj.filter(|s| !(-1000..=1000).contains(s)) {
            return Err(PlanError::new("oom_score_adj", format!("{score} is not between -1000 and 1000")));
        }
        Ok(())
    }

    /// Whether the namespaces that are joined by path are there, and of their types.
    fn check_joins(&self, facts: &mut Facts) -> Result<(), PlanError> {
        let wrong = |(index, namespace): (usize, &Namespace)| Some((index, wrong_namespace(namespace, facts)?));
        // What a process is in is joined whatever the paths say.
        let first = if self.join.is_some() { None } else { self.namespaces.iter().enumerate().find_map(wrong) };
        first.map_or(Ok(()), |(index, message)| Err(PlanError::new(format!("namespaces.{index}.path"), message)))
    }

    /// The limits that are above the engine's own, where it is the engine that must raise them; an error where it may not, either.
    fn raised(&self, in_user_namespace: bool, facts: &mut Facts) -> Result<Vec<Rlimit>, PlanError> {
        if self.rlimits.is_empty() {
            return Ok(Vec::new());
        }
        let own: BTreeMap<String, Limit> = facts.get("limits").unwrap_or_default();
        let ceiling =
            |limit: &Rlimit| own.get(limit.kind.name().trim_start_matches("RLIMIT_")).and_then(|own| own.hard);
        let above = |limit: &&Rlimit| ceiling(limit).is_some_and(|ceiling| limit.hard > ceiling);
        let raised: Vec<Rlimit> = self.rlimits.iter().filter(above).copied().collect();
        match raised.first() {
            Some(limit) if lacks(facts, "CAP_SYS_RESOURCE") => {
                let (name, ceiling) = (limit.kind.name(), ceiling(limit).unwrap_or(u64::MAX));
                let message = format!("{name} of {} is above the caller's own, {ceiling}", limit.hard);
                Err(PlanError::new("rlimits", message)
                    .help("raising a hard limit needs CAP_SYS_RESOURCE: lower process.rlimits, or raise the caller's own limit"))
            }
            _ => Ok(if in_user_namespace { raised } else { Vec::new() }),
        }
    }

    fn handover(&self, into_cgroup: bool, console: Option<Console>) -> Handover {
        Handover {
            stdio: if self.terminal { Stdio::Null } else { self.stdio },
            console,
            preserve_fds: self.preserve_fds,
            cgroup: self.cgroup.clone(),
            into_cgroup,
            fifo: self.fifo.as_ref().map(|fifo| fifo.start.clone()),
            report: self.fifo.as_ref().map(|fifo| fifo.report.clone()),
            mounts: self.mounts.values().cloned().collect(),
            seccomp_agent: self.seccomp_agent.clone(),
        }
    }
}

/// The id maps of a new user namespace, and who writes them.
struct Maps {
    uid: Vec<IdMapping>,
    gid: Vec<IdMapping>,
    writer: Writer,
}

impl Maps {
    fn of(input: &Input, facts: &mut Facts) -> Result<Self, PlanError> {
        let (own_uid, own_gid): (u32, u32) =
            (facts.get("euid").unwrap_or_default(), facts.get("gid").unwrap_or_default());
        let root_is = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
        let or_own = |given: &[IdMapping], own| if given.is_empty() { root_is(own) } else { given.to_vec() };
        let (uid, gid) = (or_own(&input.uid_mappings, own_uid), or_own(&input.gid_mappings, own_gid));
        let caps: Vec<String> = facts.get("caps.effective").unwrap_or_default();
        let may = |cap: &str| caps.iter().any(|c| c == cap);
        let own = |map: &[IdMapping], id| matches!(map, [one] if one.size == 1 && one.host_id == id);
        let writer = if may("CAP_SETUID") && may("CAP_SETGID") {
            Writer::Engine
        } else if own(&uid, own_uid) && own(&gid, own_gid) {
            Writer::Owner
        } else {
            Writer::Programs { uid: program("newuidmap", facts)?, gid: program("newgidmap", facts)? }
        };
        Ok(Self { uid, gid, writer })
    }
}

fn program(name: &str, facts: &mut Facts) -> Result<PathBuf, PlanError> {
    for dir in ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"] {
        let path = Path::new(dir).join(name);
        if facts.kind(&path).is_ok_and(|kind| kind == FileKind::File) {
            return Ok(path);
        }
    }
    Err(PlanError::new("uid_mappings", format!("mapping these ids takes {name}, which is not installed"))
        .help("install it (Debian: package uidmap; Fedora: shadow-utils), or map the caller's own id alone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_with, refused_with};
    use serde_json::json;

    #[test]
    fn limits_above_the_engines_own_are_raised_from_outside_in_a_user_namespace_alone() {
        let facts = |capabilities: &[&str]| {
            let own = json!({ "NOFILE": { "soft": 10, "hard": 100 }, "CORE": { "soft": 0, "hard": null } });
            json!({ "caps.effective": capabilities, "limits": own })
        };
        let limit = |kind, hard: u64| json!({ "type": kind, "soft": 1, "hard": hard });
        let input = |new, hard| {
            let limits = json!([limit("RLIMIT_NOFILE", hard), limit("RLIMIT_CORE", u64::MAX)]);
            json!({ "new": [new], "rlimits": limits, "stdio": "null" })
        };
        let all = facts(&["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_SETUID", "CAP_SETGID"]);
        let raised = |input| {
            let effects = plan_with::<Clone>(all.clone(), input).effects;
            effects.into_iter().filter(|effect| effect.starts_with("raise")).collect::<Vec<_>>()
        };
        assert_eq!(raised(input("user", 101)), ["raise RLIMIT_NOFILE of ‹step›"]);
        assert_eq!(raised(input("user", 100)), [""; 0]);
        assert_eq!(raised(input("pid", 101)), [""; 0]);
        let error = refused_with::<Clone>(facts(&["CAP_SYS_ADMIN"]), input("pid", 101));
        assert_eq!(error.field, "rlimits");
        assert!(error.message.contains("RLIMIT_NOFILE of 101 is above the caller's own, 100"), "{error}");
    }
}

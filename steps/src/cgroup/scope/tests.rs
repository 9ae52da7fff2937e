//! Scopes planned against faked facts.

use std::path::Path;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::facts::{Facts, Recorded};
use lifecycle_engine::step::Step;
use lifecycle_engine::value::HandleRef;
use serde_json::{Value as Json, json};

use super::*;
use crate::cgroup::Create;

fn v2() -> Json {
    let controllers = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];
    json!({ "mode": "v2", "v2": { "controllers": controllers, "mount": "/sys/fs/cgroup", "writable": true } })
}

fn hybrid() -> Json {
    let hierarchy = |controllers: &[&str], name: &str| json!({ "controllers": controllers, "mount": format!("/cg/{name}"), "writable": true });
    let v1 = [
        hierarchy(&["name=systemd"], "systemd"),
        hierarchy(&["cpu", "cpuacct"], "cpu"),
        hierarchy(&["memory"], "memory"),
        hierarchy(&["devices"], "devices"),
        hierarchy(&["freezer"], "freezer"),
        hierarchy(&["cpuset"], "cpuset"),
        hierarchy(&["pids"], "pids"),
    ];
    json!({ "mode": "hybrid", "v1": v1, "v2": { "controllers": [], "mount": "/cg/unified", "writable": true } })
}

fn systemd(user: bool, version: u32) -> Json {
    let group = if user { "/user.slice/user-7.slice/user@7.service" } else { "" };
    let address = json!({ "socket": "/run/systemd/private", "bus": false });
    json!({ "running": true, "user": user, "address": address, "version": version, "control_group": group })
}

struct Planned {
    output: Output,
    before: Vec<String>,
    around: Vec<String>,
}

fn try_plan(layout: Json, systemd: Json, input: Json) -> Result<Planned, PlanError> {
    let mut given = Recorded::default();
    given.host.insert("cgroup.layout".into(), layout);
    given.host.insert("systemd".into(), systemd);
    given.host.insert("caps.effective".into(), json!(["CAP_SYS_ADMIN"]));
    let mut facts = Facts::fixed(given);
    let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
    let mut cx = Planning::new(&mut facts, &run, "cgroup".into(), None);
    let mut input: Input = serde_json::from_value(input).expect("an input");
    input.systemd = true;
    let output = Create::plan(input, &mut cx)?;
    let described = |cx: &Planning| cx.effects.iter().map(|e| e.effect.describe()).collect();
    let before = described(&cx);
    let mut facts = Facts::fixed(Recorded::default());
    let mut cx = Planning::new(&mut facts, &run, "init".into(), None);
    let process = Handle::new(HandleRef { step: "init".into(), effect: 0, field: "".into() });
    if let Some(scope) = output.join.clone().and_then(|join| join.scope) {
        start(*scope, &process, &mut cx);
    }
    Ok(Planned { around: described(&cx), output, before })
}

const PATH: &str = "machine-pod.slice:libpod:1";

#[test]
fn on_version_2_all_happens_around_the_process() {
    let resources = json!({
        "pids": { "limit": 17 }, "cpu": { "quota": 12345, "period": 50000 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }],
    });
    let planned = try_plan(v2(), systemd(false, 252), json!({ "path": PATH, "resources": resources })).expect("a plan");
    assert!(planned.before.is_empty(), "{:?}", planned.before);
    let at = "/sys/fs/cgroup/machine.slice/machine-pod.slice/libpod-1.scope";
    assert_eq!(planned.output.paths[""], Path::new(at));
    assert_eq!(planned.output.member.clone().and_then(|member| member.v2), Some(at.into()));
    let join = planned.output.join.expect("a join");
    assert!(join.v1.is_empty() && join.v2.is_none());
    let slices = join.scope.clone().expect("a scope").slices;
    assert_eq!(slices.names, ["machine.slice", "machine-pod.slice"]);
    assert_eq!(slices.mounts, [Path::new("/sys/fs/cgroup")]);
    let scope = &planned.around[0];
    assert!(scope.starts_with("have systemd make the scope libpod-1.scope around ‹init›: "), "{scope}");
    for property in [
        "Description='container web (lifecycle ",
        "Slice='machine-pod.slice'",
        "Delegate=true",
        "IOAccounting=true",
        "DefaultDependencies=false",
        "CollectMode='inactive-or-failed'",
        "TasksMax=uint64 17",
        "CPUQuotaPerSecUSec=uint64 250000",
        "CPUQuotaPeriodUSec=uint64 50000",
        "DevicePolicy='strict'",
        "('/dev/char/1:3', 'rwm')",
    ] {
        assert!(scope.contains(property), "no {property} in {scope}");
    }
    assert_eq!(planned.around[1], format!("find ‹init› in the cgroup {at}"));
    // Only the controller that systemd does not know.
    assert_eq!(planned.around[2], "write +hugetlb to /sys/fs/cgroup/cgroup.subtree_control");
    for line in [format!("write 12345 50000 to {at}/cpu.max"), format!("write 17 to {at}/pids.max")] {
        assert!(planned.around.contains(&line), "{:#?}", planned.around);
    }
}

#[test]
fn on_version_1_the_hierarchies_that_systemd_leaves_alone_are_made_first() {
    let resources = json!({ "memory": { "limit": 100 }, "cpu": { "cpus": "0" } });
    let planned =
        try_plan(hybrid(), systemd(false, 252), json!({ "path": PATH, "resources": resources })).expect("a plan");
    let at = |name: &str| format!("/cg/{name}/machine.slice/machine-pod.slice/libpod-1.scope");
    let inherits = ", with its parent's CPUs and memory nodes";
    let expected = [
        format!("make the cgroup {}{inherits}", at("cpuset")),
        format!("make the cgroup {}", at("freezer")),
        format!("write 0 to {}/cpuset.cpus", at("cpuset")),
    ];
    assert_eq!(planned.before, expected);
    assert!(planned.around[0].contains("MemoryLimit=uint64 100"), "{}", planned.around[0]);
    assert!(planned.around.contains(&format!("write 100 to {}/memory.limit_in_bytes", at("memory"))));
    assert!(planned.around.contains(&format!("write a to {}/devices.deny", at("devices"))));
    let join = planned.output.join.expect("a join");
    assert_eq!(join.v1, [Path::new(&at("cpuset")), Path::new(&at("freezer"))]);
    assert_eq!(planned.output.member.map(|member| member.v1.len()), Some(7));
    // Beside version 1 the unified hierarchy matters only if a limit is in it.
    assert!(!planned.around.iter().any(|line| line.contains("/cg/unified")));
    let scope = join.scope.expect("a scope");
    assert_eq!(scope.freezer.map(|freezer| freezer.at), Some(at("freezer").into()));
    // systemd's own hierarchies, and the empty one of version 2 too.
    let mounts = ["systemd", "cpu", "memory", "devices", "pids", "unified"].map(|name| Path::new("/cg").join(name));
    assert_eq!(scope.slices.mounts, mounts);
}

#[test]
fn a_user_has_scopes_below_his_own_systemd() {
    let planned = try_plan(v2(), systemd(true, 252), json!({ "path": ":libpod:1" })).expect("a plan");
    let at = "/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/user.slice/libpod-1.scope";
    assert_eq!(planned.output.paths[""], Path::new(at));
    let refused = try_plan(hybrid(), systemd(true, 252), json!({ "path": PATH })).err().expect("refused");
    assert!(refused.message.contains("version 1"), "{refused:?}");
}

#[test]
fn without_a_systemd_it_is_refused_with_the_reason() {
    let cases = [
        (
            json!({ "running": false, "user": false, "address": null, "version": 0, "control_group": "" }),
            "does not run",
        ),
        (
            json!({ "running": true, "user": false, "address": null, "version": 0, "control_group": "" }),
            "does not answer",
        ),
        (json!({ "running": true, "user": true, "address": null, "version": 0, "control_group": "" }), "of his own"),
        (systemd(false, 239), "needs systemd 244 or newer, and this is 239"),
        (Json::Null, "does not run"),
    ];
    for (fact, words) in cases {
        let refused = try_plan(v2(), fact, json!({ "path": PATH })).err().expect(words);
        assert_eq!(refused.field, "systemd");
        assert!(refused.message.contains(words) && refused.help.is_some(), "{refused:?}");
    }
}

#[test]
fn annotations_take_the_place_of_what_no_config_asks_for() {
    let asked = |annotation: &str, value: &str| {
        let annotations = json!({ annotation: value, "other": "x" });
        let resources = json!({ "pids": { "limit": 17 }, "devices": [{ "allow": false, "access": "rwm" }] });
        let input = json!({ "path": PATH, "resources": resources, "annotations": annotations });
        try_plan(v2(), systemd(false, 252), input)
    };
    let planned = asked("org.systemd.property.CollectMode", "'inactive'").expect("a plan");
    let scope = &planned.around[0];
    assert!(scope.contains("CollectMode='inactive' ") || scope.ends_with("CollectMode='inactive'"), "{scope}");
    assert!(scope.contains("TasksMax=uint64 17") && scope.contains("DevicePolicy='strict'"), "{scope}");
    // An image's annotations come here too.
    for (name, value) in [("TasksMax", "uint64 5"), ("DevicePolicy", "'auto'"), ("Conflicts", "['victim.service']")] {
        let refused = asked(&format!("org.systemd.property.{name}"), value).err().expect(name);
        assert_eq!(refused.field, format!("annotations.org.systemd.property.{name}"));
        assert!(refused.message.contains(name), "{refused:?}");
    }
}

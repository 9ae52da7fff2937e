//! Against faked facts: processors with RDT are rare.

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::{Facts, FileFact, FileKind, Recorded};
use lifecycle_engine::step::{Planning, Step};
use serde_json::{Value, json};

use super::{Group, Join, Update};

const ENOENT: i32 = 2;

/// A processor that has everything, with the class `gold` made beforehand.
fn host() -> Recorded {
    let mut given = Recorded::default();
    let resctrl = json!({
        "mount": "/sys/fs/resctrl", "resources": ["L3", "MB"],
        "monitors": ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"],
    });
    given.host.insert("resctrl".into(), resctrl);
    for (path, fact) in [
        ("/sys/fs/resctrl", FileFact::Kind(FileKind::Directory)),
        ("/sys/fs/resctrl/gold", FileFact::Kind(FileKind::Directory)),
        ("/sys/fs/resctrl/web", FileFact::Errno(ENOENT)),
        ("/sys/fs/resctrl/new", FileFact::Errno(ENOENT)),
    ] {
        given.kinds.insert(path.into(), fact);
    }
    given
        .files
        .insert("/sys/fs/resctrl/gold/schemata".into(), FileFact::Text("    L3:0=00f;1=fff\n    MB:0=100\n".into()));
    given
}

fn planned(given: Recorded, rdt: Value) -> Result<Vec<String>, PlanError> {
    planned_by::<Group>(given, json!({ "rdt": rdt, "process": { "pid": 7, "start": 1, "boot": "x" } }))
}

fn planned_by<S: Step>(given: Recorded, input: Value) -> Result<Vec<String>, PlanError> {
    let mut facts = Facts::fixed(given);
    let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
    let mut cx = Planning::new(&mut facts, &run, "rdt".into(), None);
    let input: S::Input = serde_json::from_value(input).unwrap_or_else(|e| panic!("{e}"));
    S::plan(input, &mut cx)?;
    Ok(cx.effects.iter().map(|planned| planned.effect.describe()).collect())
}

#[test]
fn without_a_class_the_container_gets_one_of_its_own() {
    let lines = planned(host(), json!({ "l3CacheSchema": "L3:0=f\nMB:0=50", "memBwSchema": "MB:0=20" })).unwrap();
    let expected = [
        "make the resctrl group /sys/fs/resctrl/web",
        "write L3:0=f, MB:0=20 to /sys/fs/resctrl/web/schemata",
        "write process 7 to /sys/fs/resctrl/web/tasks",
    ];
    assert_eq!(lines, expected);
    assert!(planned(host(), Value::Null).unwrap().is_empty());
}

#[test]
fn schemata_come_last_and_win() {
    let lines = planned(host(), json!({ "closID": "new", "l3CacheSchema": "L3:0=f", "schemata": ["L3:0=3"] })).unwrap();
    assert_eq!(lines[0], "make the resctrl group /sys/fs/resctrl/new, or take it as it is");
    assert_eq!(lines[1], "write L3:0=f, L3:0=3 to /sys/fs/resctrl/new/schemata");
}

#[test]
fn monitoring_is_a_group_of_the_containers_own_in_the_class() {
    for field in ["enableMonitoring", "enableCMT", "enableMBM"] {
        let lines = planned(host(), json!({ "closID": "/", field: true })).unwrap();
        let expected = [
            "write process 7 to /sys/fs/resctrl/tasks",
            "make the resctrl group /sys/fs/resctrl/mon_groups/web",
            "write process 7 to /sys/fs/resctrl/mon_groups/web/tasks",
        ];
        assert_eq!(lines, expected, "{field}");
    }
}

#[test]
fn a_class_that_is_there_is_compared_and_never_changed_by_its_shares() {
    let same = planned(host(), json!({ "closID": "gold", "l3CacheSchema": "L3:0=F;1=fff" })).unwrap();
    let expected = [
        "make the resctrl group /sys/fs/resctrl/gold, or take it as it is",
        "write process 7 to /sys/fs/resctrl/gold/tasks",
    ];
    assert_eq!(same, expected);
    assert_eq!(planned(host(), json!({ "closID": "gold" })).unwrap(), expected);
    let error = planned(host(), json!({ "closID": "gold", "memBwSchema": "MB:0=20" })).unwrap_err();
    assert!(error.to_string().contains("does not say `MB:0=20`"), "{error}");
}

#[test]
fn a_class_that_is_not_there_needs_shares() {
    let error = planned(host(), json!({ "closID": "new" })).unwrap_err();
    assert_eq!(error.field, "rdt.closID");
    assert!(error.to_string().contains("/sys/fs/resctrl/new"), "{error}");
}

#[test]
fn what_the_processor_does_not_offer_is_refused_by_name() {
    let mut poor = host();
    poor.host.insert("resctrl".into(), json!({ "mount": "/sys/fs/resctrl", "resources": [], "monitors": [] }));
    for (field, value) in [
        ("l3CacheSchema", json!("L3:0=f")),
        ("memBwSchema", json!("MB:0=20")),
        ("enableMonitoring", json!(true)),
        ("enableCMT", json!(true)),
        ("enableMBM", json!(true)),
    ] {
        let error = planned(poor.clone(), json!({ field: value })).unwrap_err();
        assert_eq!(error.field, format!("rdt.{field}"), "{error}");
    }
}

#[test]
fn without_resctrl_it_is_said_which_fact_is_missing_and_how_to_get_it() {
    let mut none = Recorded::default();
    let error = planned(none.clone(), json!({ "enableMonitoring": true })).unwrap_err();
    assert!(error.to_string().contains("this processor has none of it"), "{error}");
    none.host.insert("cpu.rdt".into(), json!(["rdt_a", "cat_l3"]));
    let error = planned(none, json!({ "enableMonitoring": true })).unwrap_err();
    assert!(error.to_string().contains("although this processor has it"), "{error}");
}

#[test]
fn what_is_executed_in_a_container_joins_its_groups() {
    let process = json!({ "pid": 7, "start": 1, "boot": "x" });
    let join = |rdt: Value| planned_by::<Join>(host(), json!({ "rdt": rdt, "process": process })).unwrap();
    assert!(join(Value::Null).is_empty());
    assert!(join(json!({ "group": null, "monitor": null })).is_empty());
    let gold = "/sys/fs/resctrl/gold";
    assert_eq!(join(json!({ "group": gold })), ["write process 7 to /sys/fs/resctrl/gold/tasks"]);
    let mut watched = host();
    let monitor = "/sys/fs/resctrl/gold/mon_groups/c1";
    watched.kinds.insert(monitor.into(), FileFact::Kind(FileKind::Directory));
    let input = json!({ "rdt": { "group": gold, "monitor": monitor }, "process": process });
    let both = planned_by::<Join>(watched, input).unwrap();
    assert_eq!(both, ["write process 7 to /sys/fs/resctrl/gold/tasks", &format!("write process 7 to {monitor}/tasks")]);
    // Whoever removed it has put the container's processes elsewhere, too.
    let gone = join(json!({ "group": "/sys/fs/resctrl/new" }));
    assert_eq!(gone, ["warn: the container's resctrl group /sys/fs/resctrl/new is gone: the process is not in it"]);
}

#[test]
fn an_update_writes_new_shares_into_the_containers_class() {
    let update = |given: Recorded, l3: Value, mb: Value, group: Value| {
        let input = json!({ "rdt": { "group": group }, "l3_cache_schema": l3, "mem_bw_schema": mb });
        planned_by::<Update>(given, input)
    };
    let web = json!("/sys/fs/resctrl/web");
    let file = "/sys/fs/resctrl/web/schemata";
    let lines = update(host(), json!("L3:0=3;1=f"), json!("MB:0=20"), web.clone()).unwrap();
    assert_eq!(lines, [format!("write L3:0=3;1=f, MB:0=20 to {file}")]);
    let lines = update(host(), Value::Null, json!("MB:0=20"), web.clone()).unwrap();
    assert_eq!(lines, [format!("write MB:0=20 to {file}")]);
    assert!(update(host(), Value::Null, Value::Null, Value::Null).unwrap().is_empty());
    // A container without a class, a processor without it, a machine without resctrl, a line that is none.
    let error = update(host(), json!("L3:0=3"), Value::Null, Value::Null).unwrap_err();
    assert!(error.to_string().contains("linux.intelRdt"), "{error}");
    let mut cache_alone = host();
    let resctrl = json!({ "mount": "/sys/fs/resctrl", "resources": ["L3"], "monitors": [] });
    cache_alone.host.insert("resctrl".into(), resctrl);
    let error = update(cache_alone, Value::Null, json!("MB:0=20"), web.clone()).unwrap_err();
    assert!(error.to_string().contains("memBwSchema asks for what this processor"), "{error}");
    let error = update(Recorded::default(), json!("L3:0=3"), Value::Null, web.clone()).unwrap_err();
    assert!(error.to_string().contains("needs a mounted resctrl file system"), "{error}");
    let error = update(host(), Value::Null, json!("L3:0=3"), web).unwrap_err();
    assert_eq!(error.field, "mem_bw_schema");
}

//! `hooks`: the six kinds, each in its namespaces, in its place, told the state, and with its own meaning of failure.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::boxed::Boxed;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        hooks_prestart_runs_on_the_host_while_creating,
        hooks_create_runtime_runs_on_the_host_while_creating,
        hooks_poststart_runs_on_the_host_once_running,
        hooks_poststop_runs_on_the_host_once_stopped,
        hooks_create_container_runs_in_the_containers_namespaces_with_the_hosts_files,
        hooks_start_container_runs_in_the_container_before_its_program,
        hooks_env_is_the_processes_inside_and_none_on_the_host_where_it_is_not_given,
        hooks_run_in_the_order_of_the_spec,
        hooks_that_fail_before_the_program_fail_the_container,
        hooks_poststart_that_fails_stops_the_container,
        hooks_poststop_that_fails_is_a_warning,
        hooks_timeout_ends_a_hook_that_takes_too_long,
        hooks_that_the_spec_forbids_are_refused,
        hooks_path_is_executed_as_it_is,
    ];
    tests.into_iter().map(|test| test.within("fields_hooks").needs(&[Root, Program("busybox")])).collect()
}

/// A hook that is a script of busybox on the host.
fn on_host(script: &str) -> Value {
    json!({ "path": program::find("busybox"), "args": ["sh", "-c", script] })
}

/// A hook that is a script of the container's own shell.
fn in_container(script: &str) -> Value {
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] })
}

/// Writes what a hook is told, and where it is, into a file of this name.
fn notes(container: &Boxed, name: &str) -> String {
    let file = container.outside(name);
    let at = file.display();
    format!(
        "cat > {at}; echo >> {at}; for n in mnt net pid uts; do readlink /proc/self/ns/$n >> {at}; done; pwd >> {at}; tr \"\\0\" \"\\n\" < /proc/$$/environ >> {at}; echo \"$0 $*\" >> {at}"
    )
}

struct Noted {
    state: Value,
    namespaces: Vec<String>,
    cwd: String,
    rest: String,
}

fn noted(container: &Boxed, name: &str) -> Result<Noted, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(container.outside(name))?;
    fs::remove_file(container.outside(name))?;
    let mut lines = text.lines();
    let state = serde_json::from_str(lines.next().unwrap_or_default())?;
    let namespaces = lines.by_ref().take(4).map(str::to_owned).collect();
    let cwd = lines.next().unwrap_or_default().to_owned();
    Ok(Noted { state, namespaces, cwd, rest: lines.collect::<Vec<_>>().join("\n") })
}

fn namespaces_of(process: &str) -> Vec<String> {
    let of = |name: &str| fs::read_link(format!("/proc/{process}/ns/{name}")).map(|link| link.display().to_string());
    ["mnt", "net", "pid", "uts"].iter().flat_map(|name| of(name)).collect()
}

/// One kind of hook on the host, which is told this status.
fn runs_on_the_host(lab: &Lab, kind: &str, status: &str) -> TestResult {
    let mut container = Boxed::runs(lab, "sleep 100")?;
    let script = notes(&container, "noted");
    container.edit(|config| {
        config["annotations"] = json!({ "org.example.team": "web" });
        let mut hook = on_host(&script);
        hook["args"] = json!(["as it is called", "-c", script, "zero", "one two"]);
        hook["args"][0] = json!("sh");
        hook["env"] = json!(["ONLY=this"]);
        config["hooks"] = json!({ kind: [hook] });
    })?;
    let pid = container.create()?;
    if kind == "poststart" {
        assert!(!container.outside("noted").exists(), "{kind} ran before the start");
        container.plan("oci/start", &["--keep"]).ended(0);
    }
    if kind == "poststop" {
        assert!(!container.outside("noted").exists(), "{kind} ran before the end");
        container.delete().ended(0);
    }
    let noted = noted(&container, "noted")?;
    let mut wanted = json!({ "ociVersion": "1.3.0", "id": container.id, "status": status, "pid": pid,
        "bundle": container.bundle.dir(), "annotations": { "org.example.team": "web" } });
    if kind == "poststop" {
        wanted.as_object_mut().map(|wanted| wanted.remove("pid"));
    }
    assert_eq!(noted.state, wanted);
    assert_eq!(noted.namespaces, namespaces_of("self"), "{kind} hooks run in the runtime's namespaces");
    assert_eq!(noted.cwd, container.bundle.dir().display().to_string());
    assert_eq!(noted.rest, "ONLY=this\nzero one two", "its own environment and arguments, and no others");
    if kind != "poststop" {
        container.delete().ended(0);
    }
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_prestart_runs_on_the_host_while_creating(lab: &Lab) -> TestResult {
    runs_on_the_host(lab, "prestart", "creating")
}

pub fn hooks_create_runtime_runs_on_the_host_while_creating(lab: &Lab) -> TestResult {
    runs_on_the_host(lab, "createRuntime", "creating")
}

pub fn hooks_poststart_runs_on_the_host_once_running(lab: &Lab) -> TestResult {
    runs_on_the_host(lab, "poststart", "running")
}

pub fn hooks_poststop_runs_on_the_host_once_stopped(lab: &Lab) -> TestResult {
    runs_on_the_host(lab, "poststop", "stopped")
}

pub fn hooks_create_container_runs_in_the_containers_namespaces_with_the_hosts_files(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "sleep 100")?;
    // Its path and its files are the host's; its processes, its network and its mounts the container's.
    let script = format!("{}; echo $$ >> {}", notes(&container, "noted"), container.outside("noted").display());
    container.edit(|config| config["hooks"] = json!({ "createContainer": [on_host(&script)] }))?;
    let pid = container.create()?;
    let noted = noted(&container, "noted")?;
    assert_eq!(
        (&noted.state["status"], &noted.state["pid"]),
        (&json!("creating"), &json!(1)),
        "its own number of the process"
    );
    // /proc is still the host's there, and so has no entry for a process that it knows by another number.
    assert_ne!(noted.namespaces, namespaces_of("self"));
    assert!(
        !noted.namespaces.is_empty() && noted.namespaces.iter().all(|n| namespaces_of(&pid.to_string()).contains(n)),
        "{:?}",
        noted.namespaces
    );
    container.delete().ended(0);
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_start_container_runs_in_the_container_before_its_program(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "cat /dev/shm/noted")?;
    let script = "cat > /dev/shm/noted; echo \" pid=$$ host=$(hostname)\" >> /dev/shm/noted";
    container.edit(|config| config["hooks"] = json!({ "startContainer": [in_container(script)] }))?;
    let pid = container.create()?;
    assert!(!std::path::Path::new(&format!("/proc/{pid}/root/dev/shm/noted")).exists(), "it ran before the start");
    container.delete().ended(0);
    let told = container.plan("oci/run", &[]).ended(0);
    let state: Value = serde_json::from_str(told.out.split(" pid=").next().unwrap_or_default())?;
    assert_eq!((&state["status"], &state["pid"], &state["id"]), (&json!("created"), &json!(1), &json!(container.id)));
    assert!(told.out.contains("host=runc"), "{}", told.out);
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_env_is_the_processes_inside_and_none_on_the_host_where_it_is_not_given(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    let outside = |name: &str| container.outside(name).display().to_string();
    // Read off the kernel, and by no shell, which adds variables of its own.
    let dump = |busybox: Value, file: &str| json!({ "path": busybox, "args": ["dd", "if=/proc/self/environ", format!("of={file}")] });
    let on_host = |file: &str| dump(json!(program::find("busybox")), file);
    let in_container = |file: &str| dump(json!("/bin/busybox"), file);
    let host = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let mut hooks = serde_json::Map::new();
    for stage in host {
        let mut own = on_host(&outside(&format!("{stage}.own")));
        own["env"] = json!(["OWN=1", "OWN=2"]);
        let mut empty = on_host(&outside(&format!("{stage}.empty")));
        empty["env"] = json!([]);
        hooks.insert(stage.into(), json!([own, empty, on_host(&outside(&format!("{stage}.none")))]));
    }
    let mut empty = in_container("/dev/shm/empty");
    empty["env"] = json!([]);
    hooks.insert("startContainer".into(), json!([in_container("/dev/shm/none"), empty]));
    let script = "cat /dev/shm/none; echo; cat /dev/shm/empty; echo";
    container.edit(|config| {
        config["hooks"] = hooks.into();
        config["process"]["env"] = json!(["PATH=/bin", "ONE=1", "ONE=two"]);
        config["process"]["args"] = json!(["sh", "-c", script]);
    })?;
    let told = container.plan("oci/run", &[]).ended(0);
    assert_eq!(told.out, "PATH=/bin\0ONE=two\0HOME=/root\0\n\n");
    for stage in host {
        let read = |name: &str| fs::read_to_string(container.outside(&format!("{stage}.{name}")));
        let inherited = if stage == "createContainer" { "PATH=/bin\0ONE=two\0" } else { "" };
        assert_eq!(
            (read("own")?.as_str(), read("empty")?.as_str(), read("none")?.as_str()),
            ("OWN=2\0", "", inherited),
            "{stage}"
        );
    }
    Ok(())
}

pub fn hooks_run_in_the_order_of_the_spec(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "echo program >> /order")?;
    let file = container.outside("order");
    let inside = container.bundle.rootfs().join("order");
    fs::write(&file, "")?;
    fs::write(&inside, "")?;
    let says = |word: &str| on_host(&format!("echo {word} >> {}", file.display()));
    container.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["hooks"] = json!({
            "prestart": [says("prestart1"), says("prestart2")], "createRuntime": [says("createRuntime")],
            "createContainer": [says("createContainer1"), says("createContainer2")],
            "startContainer": [in_container("echo startContainer >> /order")],
            "poststart": [says("poststart")], "poststop": [says("poststop1"), says("poststop2")],
        });
    })?;
    container.plan("oci/run", &[]).ended(0);
    let order = fs::read_to_string(&file)?;
    let words: Vec<&str> = order.split_whitespace().collect();
    let wanted = [
        "prestart1",
        "prestart2",
        "createRuntime",
        "createContainer1",
        "createContainer2",
        "poststart",
        "poststop1",
        "poststop2",
    ];
    assert_eq!(words, wanted);
    assert_eq!(fs::read_to_string(&inside)?, "startContainer\nprogram\n");
    Ok(())
}

/// A hook that fails takes the container with it, is named with its status and its last words, and nothing is left.
pub fn hooks_that_fail_before_the_program_fail_the_container(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "echo the program ran")?;
    let failing = "echo no such luck >&2; exit 9";
    for (kind, hook) in [
        ("prestart", on_host(failing)),
        ("createRuntime", on_host(failing)),
        ("createContainer", on_host(failing)),
        ("startContainer", in_container(failing)),
    ] {
        container.edit(|config| config["hooks"] = json!({ kind: [hook] }))?;
        let told = container.plan("oci/run", &[]).ended(1).says(&[kind, "exited with status 9", "no such luck"]);
        assert!(!told.out.contains("the program ran"));
        container.scene.nothing_left().map_err(|error| format!("{kind}: {error}"))?;
    }
    // One that is not there is named, too.
    container.edit(|config| config["hooks"] = json!({ "createRuntime": [{ "path": "/no/such/hook" }] }))?;
    container.plan("oci/run", &[]).ended(1).says(&["/no/such/hook", "No such file"]);
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_poststart_that_fails_stops_the_container(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "sleep 100")?;
    container.edit(|config| config["hooks"] = json!({ "poststart": [on_host("exit 7")] }))?;
    let pid = container.create()?;
    container.plan("oci/start", &[]).ended(1).says(&[
        "poststart hook",
        "exited with status 7",
        "the container was stopped",
    ]);
    let alive = fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"));
    assert!(!alive, "the container still runs");
    container.plan("oci/delete", &[]).ended(0);
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_poststop_that_fails_is_a_warning(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    let file = container.outside("second");
    container.edit(|config| {
        config["hooks"] = json!({ "poststop": [on_host("exit 7"), { "path": "/no/such/hook" }, on_host(&format!("touch {}", file.display()))] });
    })?;
    let told = container.plan("oci/run", &[]).ended(0);
    assert!(told.err.contains("warning: poststop hook") && told.err.contains("exited with status 7"), "{}", told.err);
    assert!(told.err.contains("/no/such/hook"), "{}", told.err);
    assert!(file.exists(), "the hooks after it did not run");
    fs::remove_file(&file)?;
    Ok(container.scene.nothing_left()?)
}

pub fn hooks_timeout_ends_a_hook_that_takes_too_long(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut hook = if kind == "startContainer" { in_container("sleep 60") } else { on_host("sleep 60") };
        hook["timeout"] = json!(1);
        container.edit(|config| config["hooks"] = json!({ kind: [hook] }))?;
        container.plan("oci/run", &[]).ended(1).says(&[kind, "killed after its time limit of 1s"]);
        container.scene.nothing_left().map_err(|error| format!("{kind}: {error}"))?;
    }
    Ok(())
}

pub fn hooks_that_the_spec_forbids_are_refused(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let cases = [
            (json!({ "path": "bin/hook" }), "path"),
            (json!({ "path": "/bin/hook", "timeout": 0 }), "timeout"),
            (json!({ "path": "/bin/hook", "timeout": -1 }), "timeout"),
            (json!({ "path": "/bin/hook", "env": ["novalue"] }), "env[0]"),
        ];
        for (hook, field) in cases {
            container.edit(|config| config["hooks"] = json!({ kind: [{ "path": "/bin/true" }, hook] }))?;
            let place = format!("hooks.{kind}[1].{field}");
            container.plan("oci/run", &[]).ended(125).says(&[&place]);
        }
    }
    Ok(container.scene.nothing_left()?)
}

/// What a hook makes for itself it may rely on: a script of the host with an interpreter line.
pub fn hooks_path_is_executed_as_it_is(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, "true")?;
    let (script, made) = (container.outside("hook.sh"), container.outside("made"));
    let busybox = program::find("busybox").ok_or("no busybox")?;
    fs::write(&script, format!("#!{} sh\necho \"$0|$1\" > {}\n", busybox.display(), made.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    container
        .edit(|config| config["hooks"] = json!({ "createRuntime": [{ "path": script, "args": ["name", "first"] }] }))?;
    container.plan("oci/run", &[]).ended(0);
    assert_eq!(fs::read_to_string(&made)?, format!("{}|first\n", script.display()));
    Ok(fs::remove_file(&made)?)
}

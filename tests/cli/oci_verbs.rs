//! `lifecycle-oci`: ps, events, pause, resume, update, spec, features.

use std::process::Command;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::{Value, json};

use crate::oci_scene::{self, Oci, eventually};
use crate::scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        #[needs(Program("busybox"), Program("ps"))]
        oci_ps_prints_the_containers_processes_and_no_others,
        #[needs(Program("busybox"))]
        oci_events_stats_prints_one_document_of_what_was_used,
        #[needs(Program("busybox"))]
        oci_events_interval_goes_on_until_the_container_ends,
        #[needs(Program("busybox"))]
        oci_events_tells_when_memory_runs_out,
        #[needs(Program("busybox"))]
        oci_pause_stops_every_process_until_resume,
        #[needs(Program("busybox"))]
        oci_kill_ends_a_paused_container_and_delete_force_too,
        #[needs(Program("busybox"))]
        oci_pause_and_resume_a_created_container,
        #[needs(Program("busybox"))]
        oci_update_changes_each_limit_by_its_flag,
        #[needs(Program("busybox"))]
        oci_update_blkio_weight_is_written_or_refused_with_its_controller,
        #[needs(Program("busybox"))]
        oci_update_resources_come_from_a_file_or_stdin,
        #[needs(Program("busybox"))]
        oci_spec_writes_a_config_that_runs_and_overwrites_nothing,
        oci_features_and_version_are_as_callers_read_them,
        oci_completions_and_man_cover_every_verb,
        oci_completions_complete_a_verbs_options,
    ];
    tests.into_iter().map(|test| test.within("oci_verbs").needs(&[Root])).collect()
}

pub fn oci_ps_prints_the_containers_processes_and_no_others(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "sleep 1234 & exec sleep 4321"])?;
    oci.running(&[]);
    let pid = oci.pid()?;
    eventually("two processes", || Ok(oci.told(&["ps", "--format", "json", &oci.id]).out.contains(',')))?;
    let pids: Vec<i32> = serde_json::from_str(&oci.told(&["ps", "-f", "json", &oci.id]).ended(0).out)?;
    assert!(pids.len() == 2 && pids.contains(&pid), "{pids:?} without {pid}");
    let table = oci.verb("ps").ended(0).out;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().next().is_some_and(|head| head.contains("PID")) && table.contains("sleep 1234"), "{table}");
    let table = oci.told(&["ps", &oci.id, "-o", "pid,args"]).ended(0).out;
    assert!(table.contains(&format!("{pid} sleep 4321")), "{table}");
    oci.told(&["ps", &oci.id, "-o", "args"]).ended(1).says(&["PID"]);
    oci.told(&["ps", &oci.id, "--nosuch"]).ended(1).says(&["ps failed"]);
    oci.told(&["ps", "other"]).ended(1).says(&["container does not exist"]);
    Ok(oci.gone()?)
}

pub fn oci_events_stats_prints_one_document_of_what_was_used(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "60"])?;
    oci.edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }))?;
    oci.running(&[]);
    let told = oci.told(&["events", "--stats", &oci.id]).ended(0);
    assert_eq!(told.out.lines().count(), 1);
    let event: Value = serde_json::from_str(&told.out)?;
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(oci.id)));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20));
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|ns| ns > 0), "{data}");
    assert_eq!(data["pids"]["current"], 1);
    assert_eq!(data["network_interfaces"], json!([]), "a network of its own, with a loopback alone");
    Ok(oci.gone()?)
}

pub fn oci_events_interval_goes_on_until_the_container_ends(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"])?;
    oci.running(&[]);
    let mut events = oci.start(&["events", "--interval", "100ms", &oci.id])?;
    events.wait_for("stats")?;
    oci.told(&["kill", &oci.id, "TERM"]).ended(0);
    let told = events.end()?.ended(0);
    for line in told.out.lines() {
        assert_eq!(serde_json::from_str::<Value>(line)?["type"], "stats");
    }
    oci.told(&["events", &oci.id]).ended(1).says(&["is not running"]);
    oci.told(&["events", "--interval", "0s", &oci.id]).ended(1).says(&["--interval"]);
    Ok(oci.gone()?)
}

pub fn oci_events_tells_when_memory_runs_out(lab: &Lab) -> TestResult {
    // The shell's child fills the memory; the shell itself lives on.
    let mut oci =
        Oci::new(lab, &["sh", "-c", "read line < /tmp/go; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 60"])?;
    oci.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    })?;
    let fifo = oci.bundle.rootfs().join("tmp/go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666))?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    let mut events = oci.start(&["events", "--interval", "100ms", &oci.id])?;
    events.wait_for("stats")?;
    std::fs::write(&fifo, "go\n")?;
    events.wait_for(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", oci.id))?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    events.end()?.ended(0);
    Ok(oci.gone()?)
}

pub fn oci_pause_stops_every_process_until_resume(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "while :; do echo x >> /tmp/ticks; sleep 0.01; done"])?;
    oci.edit(|config| config["root"]["readonly"] = json!(false))?;
    let ticks = oci.bundle.rootfs().join("tmp/ticks");
    std::fs::write(&ticks, "")?;
    oci.scene.begins_here()?;
    let length = || Ok(std::fs::metadata(&ticks).map_or(0, |file| file.len()));
    oci.running(&[]);
    eventually("the first tick", || Ok(length()? > 0))?;
    oci.verb("resume").ended(1).says(&["container not paused"]);
    let told = oci.verb("pause").ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    assert_eq!(oci.state()?["status"], "paused");
    let before = length()?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(length()?, before, "a paused container goes on");
    oci.verb("pause").ended(1).says(&["container not running"]);
    oci.told(&["exec", &oci.id, "true"]).ended(255).says(&["paused"]);
    oci.verb("delete").ended(1).says(&["paused"]);
    oci.verb("resume").ended(0);
    assert_eq!(oci.state()?["status"], "running");
    eventually("the next tick", || Ok(length()? > before))?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.verb("pause").ended(1).says(&["container not running"]);
    std::fs::write(&ticks, "")?;
    oci.told(&["delete", &oci.id]).ended(0);
    Ok(())
}

pub fn oci_kill_ends_a_paused_container_and_delete_force_too(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "60"])?;
    oci.running(&[]);
    oci.verb("pause").ended(0);
    oci.told(&["kill", &oci.id, "SIGKILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    oci.scene.nothing_left()?;
    oci.running(&[]);
    oci.verb("pause").ended(0);
    Ok(oci.gone()?)
}

pub fn oci_pause_and_resume_a_created_container(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "60"])?;
    oci.create(&[]);
    oci.verb("pause").ended(0);
    assert_eq!(oci.state()?["status"], "paused");
    oci.verb("resume").ended(0);
    assert_eq!(oci.state()?["status"], "created");
    oci.verb("start").ended(0);
    assert_eq!(oci.state()?["status"], "running");
    Ok(oci.gone()?)
}

pub fn oci_update_changes_each_limit_by_its_flag(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "60"])?;
    oci.edit(|config| {
        config["linux"]["resources"] = json!({
            "memory": { "limit": 32 << 20, "swap": 32 << 20, "reservation": 16 << 20 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 },
            "pids": { "limit": 10 },
        });
    })?;
    oci.running(&[]);
    let told = oci.told(&["update", "--pids-limit", "20", &oci.id]).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    assert_eq!(oci.limit("pids", "pids.max")?, "20");
    oci.told(&["update", &oci.id, "--pids-limit=-1"]).ended(0);
    assert_eq!(oci.limit("pids", "pids.max")?, "max");
    let v1 = oci.cgroup("memory")?.join("memory.limit_in_bytes").exists();
    if v1 {
        let is = |controller: &str, file: &str, value: &str| -> TestResult {
            assert_eq!(oci.limit(controller, file)?, value, "{file}");
            Ok(())
        };
        oci.told(&["update", "--memory", "64M", "--memory-swap", "128M", &oci.id]).ended(0);
        is("memory", "memory.limit_in_bytes", &(64 << 20).to_string())?;
        is("memory", "memory.memsw.limit_in_bytes", &(128 << 20).to_string())?;
        oci.told(&["update", "--memory-reservation", "33554432", &oci.id]).ended(0);
        is("memory", "memory.soft_limit_in_bytes", "33554432")?;
        oci.told(&["update", "--memory", "-1", &oci.id]).ended(0);
        let none = oci.limit("memory", "memory.limit_in_bytes")?;
        assert!(none.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 60), "{none}");
        is("memory", "memory.memsw.limit_in_bytes", &none)?;
        oci.told(&["update", "--cpu-period", "200000", "--cpu-quota", "80000", "--cpu-share", "256", &oci.id]).ended(0);
        is("cpu", "cpu.cfs_period_us", "200000")?;
        is("cpu", "cpu.cfs_quota_us", "80000")?;
        is("cpu", "cpu.shares", "256")?;
        oci.told(&["update", "--cpu-burst", "10000", &oci.id]).ended(0);
        is("cpu", "cpu.cfs_burst_us", "10000")?;
        oci.told(&["update", "--cpu-burst", "0", "--cpu-quota", "-1", &oci.id]).ended(0);
        is("cpu", "cpu.cfs_quota_us", "-1")?;
        oci.told(&["update", "--cpuset-cpus", "0", "--cpuset-mems", "0", &oci.id]).ended(0);
        is("cpuset", "cpuset.cpus", "0")?;
        oci.told(&["update", "--cpu-idle", "1", &oci.id]).ended(0);
        is("cpu", "cpu.idle", "1")?;
        oci.told(&["update", "--cpu-idle", "0", &oci.id]).ended(0);
    }
    oci.told(&["update", "--kernel-memory", "5M", &oci.id]).ended(0).says(&["level=warning", "--kernel-memory"]);
    let told = oci.told(&["update", "--kernel-memory-tcp", "5M", &oci.id]).ended(0);
    told.says(&["level=warning", "--kernel-memory-tcp"]);
    oci.told(&["update", "--memory", "64Q", &oci.id]).ended(1).says(&["--memory"]);
    oci.told(&["update", "--l3-cache-schema", "L3:0=f", &oci.id]).ended(1).says(&["intelRdt"]);
    oci.told(&["update", "--mem-bw-schema", "MB:0=70", &oci.id]).ended(1).says(&["intelRdt"]);
    oci.told(&["update", "--pids-limit", "5", "other"]).ended(1).says(&["container does not exist"]);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.told(&["update", "--pids-limit", "5", &oci.id]).ended(1).says(&["container not running"]);
    Ok(oci.gone()?)
}

pub fn oci_update_blkio_weight_is_written_or_refused_with_its_controller(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "60"])?;
    oci.running(&[]);
    let told = oci.told(&["update", "--blkio-weight", "300", &oci.id]);
    if told.code == 0 {
        let weight =
            ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight"].iter().find_map(|f| oci.limit("blkio", f).ok());
        assert!(weight.is_some_and(|weight| weight.contains("300")), "no file says 300");
    } else {
        told.ended(1).says(&["weight"]);
    }
    Ok(oci.gone()?)
}

pub fn oci_update_resources_come_from_a_file_or_stdin(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "60"])?;
    oci.running(&[]);
    oci.scene.write("resources.json", r#"{ "pids": { "limit": 7 }, "memory": null, "unknown": true }"#)?;
    // Other options do not count then.
    oci.told(&["update", "--resources", "resources.json", "--pids-limit", "99", &oci.id]).ended(0);
    assert_eq!(oci.limit("pids", "pids.max")?, "7");
    let mut update = oci.start(&["update", "--resources=-", &oci.id])?;
    update.type_in(r#"{"pids":{"limit":8}}"#, true)?;
    update.end()?.ended(0);
    assert_eq!(oci.limit("pids", "pids.max")?, "8");
    let mut update = oci.start(&["update", &oci.id, "-r", "-"])?;
    update.type_in(r#"{"pids":"#, true)?;
    update.end()?.ended(1).says(&["linux.resources"]);
    oci.told(&["update", "--resources", "nosuch", &oci.id]).ended(1).says(&["nosuch", "No such file"]);
    assert_eq!(oci.limit("pids", "pids.max")?, "8");
    oci.without(&["resources.json"])?;
    Ok(oci.gone()?)
}

pub fn oci_spec_writes_a_config_that_runs_and_overwrites_nothing(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["true"])?;
    let file = oci.bundle.dir().join("config.json");
    let before = std::fs::read(&file)?;
    oci.told(&["spec", "--bundle", "bundle"]).ended(1).says(&["config.json exists"]);
    assert_eq!(std::fs::read(&file)?, before);
    for rootless in [false, true] {
        std::fs::remove_file(&file)?;
        let mut spec = oci.command(&["spec", "-b", "bundle"]);
        let told = scene::told(if rootless { spec.arg("--rootless") } else { &mut spec }).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
        let config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        assert_eq!(config["ociVersion"], "1.3.0");
        assert_eq!(config["linux"]["uidMappings"].is_array(), rootless);
        oci.bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["hostname"]);
        })?;
        assert_eq!(oci.told(&["run", "--bundle", "bundle", &oci.id]).ended(0).out, "lifecycle\n");
    }
    // In the working directory without --bundle.
    let dir = lab.dir().join("empty");
    std::fs::create_dir(&dir)?;
    scene::told(oci.command(&["spec"]).current_dir(&dir)).ended(0);
    assert!(dir.join("config.json").is_file());
    oci.told(&["spec", "--bundle", "nosuch"]).ended(1).says(&["nosuch/config.json", "No such file"]);
    Ok(())
}

pub fn oci_features_and_version_are_as_callers_read_them(lab: &Lab) -> TestResult {
    let features = scene::told(oci_scene::command(lab).arg("features")).ended(0);
    assert_eq!(features.err, "");
    let features: Value = serde_json::from_str(&features.out)?;
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|list| list.contains(&json!(word)));
    assert!(has(&features["hooks"], "createContainer"));
    assert!(has(&features["mountOptions"], "rro"));
    assert!(has(&features["linux"]["namespaces"], "time"));
    assert!(has(&features["linux"]["capabilities"], "CAP_CHECKPOINT_RESTORE"));
    assert!(has(&features["linux"]["seccomp"]["actions"], "SCMP_ACT_ERRNO"));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert!(!lab.state_root().exists(), "asking what it can do made a state root");
    for option in ["--version", "-v"] {
        let version = scene::told(oci_scene::command(lab).arg(option)).ended(0).out;
        // podman takes the first line, containerd `runc version` and `spec:` by their prefix.
        let first = version.lines().next().unwrap_or_default();
        assert_eq!(first.split_whitespace().take(2).collect::<Vec<_>>(), ["lifecycle-oci", "version"], "{version}");
        assert!(version.contains("\nspec: 1.3.0\n") && version.contains("\nlibseccomp: 2."), "{version}");
    }
    Ok(())
}

pub fn oci_completions_complete_a_verbs_options(lab: &Lab) -> TestResult {
    let script = scene::told(oci_scene::command(lab).args(["completions", "bash"])).ended(0).out;
    let file = lab.dir().join("completions");
    std::fs::write(&file, script)?;
    let typed = r#"source completions; COMP_WORDS=(lifecycle-oci create --pi); COMP_CWORD=2
        of() { shift; while [ "$1" != -F ]; do shift; done; echo "$2"; }
        $(of $(complete -p lifecycle-oci)) lifecycle-oci --pi create; echo "${COMPREPLY[@]}""#;
    let told = scene::told(Command::new("bash").args(["-c", typed]).current_dir(lab.dir())).ended(0);
    assert_eq!(told.out.trim(), "--pidfd-socket --pid-file", "{}", told.err);
    Ok(())
}

pub fn oci_completions_and_man_cover_every_verb(lab: &Lab) -> TestResult {
    let verbs = [
        "create",
        "start",
        "run",
        "state",
        "kill",
        "delete",
        "exec",
        "list",
        "ps",
        "events",
        "pause",
        "resume",
        "update",
        "spec",
        "features",
        "checkpoint",
        "restore",
    ];
    let told = |arguments: &[&str]| scene::told(oci_scene::command(lab).args(arguments)).ended(0).out;
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = told(&["completions", shell]);
        for word in verbs.iter().chain(&["console-socket", "preserve-fds", "pids-limit"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let file = lab.dir().join(shell);
        std::fs::write(&file, script)?;
        if lifecycle_tests::program::find(shell).is_some() {
            let read = scene::told(Command::new(shell).arg(check).arg(&file)).ended(0);
            assert_eq!(read.err, "", "{shell}");
        }
    }
    let page = told(&["man"]);
    let plain = page.replace('\\', "");
    assert!(page.starts_with(".ie") || page.contains(".TH lifecycle-oci"), "{page}");
    for verb in verbs {
        assert!(plain.contains(&format!("lifecycle-oci {verb}")), "{verb} has no section");
        // Every option that --help of the verb tells is on the page.
        let help = told(&[verb, "--help"]);
        for option in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
            let name: String = option.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            assert!(plain.contains(&name), "{verb} {name} is not on the page");
        }
    }
    if lifecycle_tests::program::find("groff").is_some() {
        let file = lab.dir().join("page");
        std::fs::write(&file, &page)?;
        let read = scene::told(Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(&file)).ended(0);
        assert_eq!(read.err, "");
    }
    Ok(())
}

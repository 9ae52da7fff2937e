//! The words that podman, containerd, CRI-O and Docker look for in what a runtime says, and where they look.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::{Value, json};

use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_create_messages_tell_a_missing_program_from_one_that_may_not_run,
        oci_messages_of_state_kill_delete_and_start_are_what_callers_match,
        oci_log_has_the_reason_as_its_last_error_in_either_format,
        oci_log_has_what_is_wrong_with_the_command_line,
        oci_log_that_cannot_be_written_fails_all_but_the_end_of_a_container,
        oci_messages_of_wrong_ids_and_signals_are_runcs,
        oci_messages_are_short_whatever_a_config_holds,
        oci_messages_of_a_memory_limit_that_is_too_low_say_what_is_in_use,
        oci_messages_of_a_memory_limit_that_is_too_low_to_begin_with,
        oci_options_are_taken_before_and_behind_the_id,
        oci_verbs_take_every_id_that_is_a_file_name,
    ];
    tests.into_iter().map(|test| test.within("oci_messages").needs(&[Root, Program("busybox")])).collect()
}

/// podman's getOCIRuntimeError, Docker's translateContainerdStartErr: without regard to case.
fn reads(told: &crate::scene::Told, words: &str) -> bool {
    told.err.to_lowercase().contains(words)
}

pub fn oci_create_messages_tell_a_missing_program_from_one_that_may_not_run(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["nosuch"])?;
    let create = ["create", "--bundle", "bundle", &oci.id.clone()].map(str::to_owned);
    let create = |oci: &Oci| oci.told(&create.each_ref().map(String::as_str)).ended_badly();
    let told = create(&oci);
    assert!(reads(&told, "executable file not found in $path"), "{}", told.err);
    oci.edit(|config| config["process"]["args"] = json!(["/nosuch/program"]))?;
    let told = create(&oci);
    assert!(reads(&told, "no such file or directory"), "{}", told.err);
    oci.edit(|config| config["process"]["args"] = json!(["/etc/passwd"]))?;
    let told = create(&oci);
    assert!(reads(&told, "permission denied"), "{}", told.err);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_messages_of_state_kill_delete_and_start_are_what_callers_match(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    // containerd's checkKillError and go-runc, CRI-O's runtime_oci.go, podman's oci_conmon.
    for verb in ["state", "delete", "kill", "start", "pause", "resume", "ps", "events"] {
        oci.verb(verb).ended(1).says(&["does not exist"]);
    }
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    oci.running(&[]);
    oci.told(&["create", "--bundle", "bundle", &oci.id]).ended(1).says(&["already exists"]);
    oci.verb("start").ended(1).says(&["cannot start an already running container"]);
    oci.verb("resume").ended(1).says(&["container not paused"]);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    for arguments in [vec!["kill", &oci.id, "KILL"], vec!["pause", &oci.id], vec!["update", &oci.id]] {
        oci.told(&arguments).ended(1).says(&["container not running"]);
    }
    oci.verb("start").ended(1).says(&["cannot start a container that has stopped"]);
    Ok(oci.gone()?)
}

pub fn oci_log_has_the_reason_as_its_last_error_in_either_format(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["nosuch"])?;
    let log = lab.dir().join("log.json");
    // As containerd's shim and conmon call: options before the verb, and the bundle's by an absolute path.
    let bundle = oci.bundle.dir().display().to_string();
    let told =
        oci.told(&["--log", "log.json", "--log-format", "json", "create", "--bundle", &bundle, &oci.id]).ended_badly();
    assert!(!told.err.contains("level"), "stderr is for people: {}", told.err);
    let text = std::fs::read_to_string(&log)?;
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|msg| msg.contains("executable file not found in $PATH")), "{last}");
    assert!(last["time"].as_str().is_some_and(|time| time.contains('T')), "{last}");
    let told = oci.told(&["--log", "log.text", "state", &oci.id]).ended(1);
    assert_eq!(told.err, format!("load container {}: container does not exist\n", oci.id));
    let text = std::fs::read_to_string(lab.dir().join("log.text"))?;
    assert!(text.contains("level=error msg=\"load container"), "{text}");
    oci.told(&["--debug", "--log", "log.debug", "run", "-b", "bundle", &oci.id]).ended(127);
    assert!(std::fs::read_to_string(lab.dir().join("log.debug"))?.contains("level=debug"));
    Ok(())
}

/// Puts many names into a config.
type Edit = fn(&mut Value, Vec<String>);

pub fn oci_messages_are_short_whatever_a_config_holds(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["nosuch"])?;
    let many = |word: &str| -> Vec<String> { (0..500).map(|n| format!("{word}{n}")).collect() };
    let short = |told: &crate::scene::Told| {
        assert!(
            told.err.lines().all(|line| line.len() <= 1024),
            "{}…",
            told.err.chars().take(3000).collect::<String>()
        );
    };
    let create = |oci: &Oci| oci.told(&["create", "--bundle", "bundle", &oci.id]);
    let edits: [(&str, Edit); 5] = [
        ("$PATH", |config, many| config["process"]["env"] = json!([format!("PATH=/{}", many.join(":/"))])),
        ("CAP_X0", |config, many| config["process"]["args"] = json!(many)),
        ("CAP_", |config, many| config["process"]["capabilities"]["bounding"] = json!(many)),
        ("linux.sysctl", |config, many| {
            config["linux"]["sysctl"] =
                many.into_iter().map(|name| (name, json!("1"))).collect::<serde_json::Map<_, _>>().into();
        }),
        ("hostname", |config, many| config["hostname"] = json!(many.concat())),
    ];
    for (words, edit) in edits {
        let before = std::fs::read_to_string(oci.bundle.dir().join("config.json"))?;
        oci.edit(|config| edit(config, many("CAP_X")))?;
        let told = create(&oci);
        short(&told);
        assert!(told.err.contains(words) || told.code == 0, "{words}: {}", told.err);
        oci.told(&["delete", "--force", &oci.id]).ended(0);
        std::fs::write(oci.bundle.dir().join("config.json"), before)?;
    }
    // Of a list it is told how long it is.
    oci.edit(|config| {
        for name in many("unknown") {
            config["process"][name] = json!(1);
        }
    })?;
    let told = create(&oci);
    short(&told);
    assert!(told.err.contains("the runtime-spec has no ") && told.err.contains(" more … "), "{}", told.err);
    Ok(oci.scene.nothing_left()?)
}

/// What makes the container counts, too.
pub fn oci_messages_of_a_memory_limit_that_is_too_low_to_begin_with(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 65536, "swap": 65536 }))?;
    let told = oci.told(&["create", "--bundle", "bundle", &oci.id]).ended_badly();
    told.says(&["memory ran out", "limit of 65536 bytes", "too low", "were in use"]);
    Ok(oci.scene.nothing_left()?)
}

/// Version 1 refuses it; of version 2 the container would die, unless that is asked for not to be done.
pub fn oci_messages_of_a_memory_limit_that_is_too_low_say_what_is_in_use(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| config["linux"]["resources"]["memory"] = json!({ "checkBeforeUpdate": true }))?;
    oci.running(&[]);
    let told = oci.told(&["update", "--memory", "4096", &oci.id]).ended(1);
    told.says(&["memory", "bytes", "are in use", "4096"]);
    oci.gone()?;
    oci.edit(|config| config["linux"]["resources"]["memory"] = json!({}))?;
    oci.running(&[]);
    if oci.cgroup("memory")?.join("memory.limit_in_bytes").exists() {
        oci.told(&["update", "--memory", "4096", &oci.id]).ended(1).says(&["too low", "bytes are in use"]);
    }
    Ok(oci.gone()?)
}

/// As other runtimes take them, up to what a file system does.
pub fn oci_verbs_take_every_id_that_is_a_file_name(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let token = lab.token().to_owned();
    let long = |length: usize| format!("{token}-{}", "x".repeat(length - token.len() - 1));
    for id in [format!("_{token}"), format!("+{token}"), format!(".{token}"), format!("-{token}"), long(129), long(255)]
    {
        oci.told(&["run", "--detach", "--bundle", "bundle", "--", &id]).ended(0);
        oci.told(&["list", "--quiet"]).ended(0).prints(&[&id]);
        let told = oci.told(&["state", "--", &id]).ended(0);
        assert_eq!(serde_json::from_str::<Value>(&told.out)?["id"], id.as_str());
        oci.told(&["exec", "--", &id, "true"]).ended(0);
        oci.told(&["pause", "--", &id]).ended(0);
        oci.told(&["delete", "--force", "--", &id]).ended(0);
        oci.scene.nothing_left()?;
    }
    oci.id = long(256);
    oci.told(&["create", "--bundle", "bundle", &oci.id]).ended(1).says(&["invalid container ID format"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_options_are_taken_before_and_behind_the_id(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    let id = oci.id.as_str();
    let lines: &[&[&str]] = &[
        &["create", id, "--bundle", "bundle", "--pid-file", "pid", "--no-pivot", "--no-new-keyring"],
        &["start", id],
        &["state", id, "--log-format", "json"],
        &["--debug", "--log", "log", "exec", id, "true"],
        &["ps", id, "--format", "json"],
        &["list", "--format", "json"],
        &["list", "-q"],
        &["events", id, "--stats"],
        &["events", "--stats", id],
        &["pause", id],
        &["resume", id],
        &["update", id, "--pids-limit", "50"],
        &["update", "--pids-limit=60", id],
        &["exec", id, "true"],
        &["exec", "--user", "0:0", "--cwd", "/", id, "true"],
        &["kill", "--all", id, "CONT"],
        &["kill", id, "CONT", "--all"],
        &["kill", id, "18"],
        &["--rootless", "state", id],
        &["--rootless=false", "state", id],
        &["delete", id, "--force"],
        &["delete", "-f", id],
    ];
    for line in lines {
        let told = oci.told(line);
        assert_eq!(told.code, 0, "{line:?}: {}", told.err);
    }
    oci.without(&["log", "pid"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_log_has_what_is_wrong_with_the_command_line(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["true"])?;
    let lines: &[(&[&str], &str)] = &[
        (&["--log", "log", "--log-format", "json", "create", "--nosuch", "x"], "unexpected argument '--nosuch' found"),
        (&["--log=log", "--log-format=json", "state"], "were not provided: <CONTAINER>"),
        (&["list", "--log", "log", "--log-format", "json", "-f", "yaml"], "invalid value 'yaml' for '--format"),
        (&["--log", "log", "--log-format", "json", "nosuchverb"], "unrecognized subcommand 'nosuchverb'"),
    ];
    for (line, words) in lines {
        let told = oci.told(line).ended(1).says(&["--help"]);
        assert!(!told.err.contains("level"), "{}", told.err);
        let text = std::fs::read_to_string(lab.dir().join("log"))?;
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().is_some_and(|msg| msg.contains(words) && !msg.contains('\n')), "{last}");
    }
    // What was asked for and told is no error.
    oci.without(&["log"])?;
    oci.told(&["--log", "log", "state", "--help"]).ended(0);
    assert!(!lab.dir().join("log").exists());
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_log_that_cannot_be_written_fails_all_but_the_end_of_a_container(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    let id = oci.id.as_str();
    let told = |words: &[&str]| {
        oci.told(&[&["--log", "nosuch/log"], words].concat()).says(&["cannot write the log nosuch/log", "No such file"])
    };
    for words in [&["create", "--bundle", "bundle", id][..], &["run", "-d", "--bundle", "bundle", id], &["list"]] {
        told(words).ended(1);
        oci.verb("state").ended(1);
    }
    oci.running(&[]);
    told(&["exec", id, "touch", "/dev/shm/made"]).ended(1);
    assert!(!std::path::Path::new(&format!("/proc/{}/root/dev/shm/made", oci.pid()?)).exists());
    told(&["kill", id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    told(&["delete", id]).ended(0);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_messages_of_wrong_ids_and_signals_are_runcs(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    for id in ["a/b", "..", ".", "a b", "x\ny", "ä"] {
        for verb in ["create", "state", "delete", "kill", "start", "pause"] {
            oci.told(&[verb, id]).ended(1).says(&["invalid container ID format"]);
        }
        oci.told(&["exec", id, "true"]).ended(255).says(&["invalid container ID format"]);
    }
    oci.told(&["create", "--bundle", "bundle", ""]).ended(1).says(&["container id cannot be empty"]);
    oci.running(&[]);
    for signal in ["NOSUCH", "SIGNOSUCH", "999", "-1", "", "SIGRTMAX+1", "1.5"] {
        oci.told(&["kill", &oci.id, signal]).ended(1).says(&["unknown signal"]);
    }
    assert_eq!(oci.state()?["status"], "running");
    // Whether there is anybody.
    oci.told(&["kill", &oci.id, "0"]).ended(0);
    assert_eq!(oci.state()?["status"], "running");
    oci.told(&["exec", &oci.id]).ended(255).says(&["process args cannot be empty"]);
    let told = oci.told(&["exec", &oci.id, "/etc"]).ended(126);
    assert!(reads(&told, "permission denied"), "{}", told.err);
    let told = oci.told(&["exec", "--cap", "CAP_NOSUCH", &oci.id, "true"]).ended(0);
    assert_eq!(told.err.matches("CAP_NOSUCH").count(), 1, "{}", told.err);
    oci.verb("pause").ended(0);
    oci.verb("start").ended(1).says(&["cannot start a container in the paused state"]);
    oci.verb("resume").ended(0);
    oci.told(&["update", &oci.id, "--cpu-period", "5"])
        .ended(1)
        .says(&["linux.resources.cpu.period: must lie between"]);
    oci.told(&["events", "--interval", "0s", &oci.id]).ended(1).says(&["duration interval must be greater than 0"]);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.told(&["kill", &oci.id, "0"]).ended(1).says(&["container not running"]);
    Ok(oci.gone()?)
}

//! `lifecycle-oci`: options that belong to no other group of tests, each seen in what it changes.

use std::io::Read;
use std::os::unix::net::UnixListener;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::{Value, json};

use crate::oci_making::receive;
use crate::oci_scene::{Oci, eventually, passing};
use crate::scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Kernel, Program, Root};
    let tests = lifecycle_tests::tests![
        oci_list_format_and_quiet,
        oci_create_pid_file_and_preserve_fds,
        oci_run_and_exec_pid_file_stay_for_their_caller,
        #[needs(Program("nsenter"))]
        oci_create_and_run_no_pivot,
        #[needs(Kernel("/proc/keys", "/proc/keys"))]
        oci_create_and_run_no_new_keyring,
        oci_run_and_exec_console_socket,
        oci_run_and_exec_no_subreaper,
        oci_update_cpu_rt_period_and_cpu_rt_runtime,
        #[needs(Need::Other(!std::path::Path::new("/run/systemd/system").exists(), "a machine without systemd"))]
        oci_systemd_cgroup_is_refused_where_systemd_is_not,
    ];
    tests.into_iter().map(|test| test.within("oci_options").needs(&[Root, Program("busybox")])).collect()
}

pub fn oci_list_format_and_quiet(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    assert_eq!(oci.told(&["list", "--quiet"]).ended(0).out, "");
    oci.running(&[]);
    assert_eq!(oci.told(&["list", "--quiet"]).ended(0).out, format!("{}\n", oci.id));
    let all: Value = serde_json::from_str(&oci.told(&["list", "--format", "json"]).ended(0).out)?;
    let of_state = oci.state()?;
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    for key in ["id", "pid", "status", "bundle"] {
        assert_eq!(all[0][key], of_state[key], "{key}");
    }
    let table = oci.told(&["list", "--format", "table"]).ended(0).out;
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    let pid = oci.pid()?.to_string();
    assert_eq!(row[..3], [oci.id.as_str(), pid.as_str(), "running"], "{table}");
    // One whose state nobody can read hides no other.
    let damaged = lab.state_root().join("damaged");
    std::fs::create_dir(&damaged)?;
    std::fs::write(damaged.join("state.json"), "{ \"ociVersion\": 1")?;
    let told = oci.told(&["list", "--quiet"]).ended(0).says(&["level=warning", "load container damaged", "state.json"]);
    assert_eq!(told.out, format!("{}\n", oci.id));
    std::fs::remove_dir_all(&damaged)?;
    Ok(oci.gone()?)
}

pub fn oci_create_pid_file_and_preserve_fds(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "cat <&3 > /tmp/read; ls /proc/self/fd | wc -l >> /tmp/read"])?;
    oci.scene.write("three", "third\n")?;
    oci.edit(|config| config["root"]["readonly"] = json!(false))?;
    let create = ["create", "-b", "bundle", "--pid-file", "pid", "--preserve-fds", "1", &oci.id];
    let told = scene::told(&mut passing(lab, &create, "3<three 4<three")).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, oci.pid()?.to_string());
    oci.verb("start").ended(0);
    oci.wait_for_status("stopped")?;
    // 0 to 3, and the directory that ls reads.
    assert_eq!(std::fs::read_to_string(oci.bundle.rootfs().join("tmp/read"))?.replace(' ', ""), "third\n5\n");
    oci.verb("delete").ended(0);
    Ok(())
}

/// Whoever has asked for it reads it when he likes, after the end too, and removes it; where nothing came of what was asked, nothing is left.
pub fn oci_run_and_exec_pid_file_stay_for_their_caller(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "echo $$"])?;
    oci.edit(|config| config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|ns| ns["type"] != "pid"))?;
    let of_run = oci.told(&["run", "--bundle", "bundle", "--pid-file", "pid", &oci.id]).ended(0).out;
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, of_run.trim());
    oci.without(&["pid"])?;
    oci.scene.nothing_left()?;
    oci.edit(|config| config["process"]["args"] = json!(["sleep", "600"]))?;
    oci.create(&["--pid-file", "of-create"]);
    let of_create = oci.pid()?.to_string();
    let of_exec = oci.told(&["exec", "--pid-file", "pid", &oci.id, "sh", "-c", "echo $$"]).ended(0).out;
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, of_exec.trim());
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    assert_eq!(std::fs::read_to_string(lab.dir().join("of-create"))?, of_create);
    oci.without(&["pid", "of-create"])?;
    oci.scene.nothing_left()?;
    // Hooks fail after it was written.
    oci.edit(|config| config["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] }))?;
    oci.told(&["run", "--bundle", "bundle", "--pid-file", "pid", &oci.id]).ended(1).says(&["/bin/false"]);
    Ok(oci.scene.nothing_left()?)
}

/// Without pivot_root(2) the host's root stays below the container's, where whoever may unmount finds it.
pub fn oci_create_and_run_no_pivot(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    let finds_the_host = |line: &[&str]| -> Result<bool, Box<dyn std::error::Error>> {
        oci.told(&[line, &["--bundle", "bundle", &oci.id]].concat()).ended(0);
        if line[0] == "create" {
            oci.verb("start").ended(0);
        }
        // Its root is the bundle's either way, and there is nothing above it.
        assert_eq!(oci.inside(&["ls", "/../.."]), oci.inside(&["ls", "/"]));
        let pid = oci.pid()?.to_string();
        let enter = |words: &[&str]| {
            scene::told(std::process::Command::new("nsenter").args(["-t", &pid, "-m"]).args(words).current_dir("/"))
        };
        enter(&["/bin/busybox", "umount", "-l", "/"]).ended(0);
        let found = enter(&["/bin/sh", "-c", "test -d \"$0\"", &lab.dir().display().to_string()]).code == 0;
        oci.gone()?;
        Ok(found)
    };
    for line in [&["create"][..], &["run", "--detach"]] {
        assert!(!finds_the_host(line)?, "{line:?}");
        assert!(finds_the_host(&[line, &["--no-pivot"]].concat())?, "{line:?} --no-pivot");
    }
    Ok(())
}

pub fn oci_create_and_run_no_new_keyring(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["cat", "/proc/keys"])?;
    // The runtime-spec's usual masked paths have it.
    oci.edit(|config| config["linux"]["maskedPaths"] = json!([]))?;
    let own = format!("_ses.{}", oci.id);
    let keys =
        |oci: &Oci, options: &[&str]| oci.told(&[&["run", "-b", "bundle"], options, &[&oci.id]].concat()).ended(0).out;
    for (options, has) in [(&["--no-new-keyring"][..], false), (&[], true)] {
        oci.bundle.runs(&["cat", "/proc/keys"])?;
        oci.scene.begins_here()?;
        let seen = keys(&oci, options);
        assert_eq!(seen.contains(&own), has, "{options:?}:\n{seen}");
        oci.bundle.runs(&["sh", "-c", "cat /proc/keys > /dev/shm/keys; exec sleep 600"])?;
        oci.scene.begins_here()?;
        oci.running(options);
        let file = format!("/proc/{}/root/dev/shm/keys", oci.pid()?);
        eventually("the keys", || Ok(std::fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())))?;
        let seen = std::fs::read_to_string(&file)?;
        assert_eq!(seen.contains(&own), has, "{options:?}:\n{seen}");
        oci.gone()?;
    }
    Ok(())
}

pub fn oci_run_and_exec_console_socket(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "stty -echo; echo of run; sleep 600"])?;
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let says = |words: &str| -> TestResult {
        let mut terminal = std::fs::File::from(receive(&listener)?);
        let (mut text, mut buffer) = (String::new(), [0; 256]);
        while !text.contains(words) {
            let n = terminal.read(&mut buffer)?;
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        Ok(())
    };
    oci.told(&["run", "-d", "-b", "bundle", "--console-socket", "console.sock", &oci.id]).ended(0);
    says("of run")?;
    let exec = ["exec", "-t", "-d", "--pid-file", "pid", "--console-socket", "console.sock", &oci.id];
    oci.told(&[&exec[..], &["sh", "-c", "echo of exec; sleep 600"]].concat()).ended(0);
    says("of exec")?;
    let pid = std::fs::read_to_string(lab.dir().join("pid"))?;
    crate::oci_scene::reap_later(pid.parse()?);
    oci.without(&["pid"])?;
    Ok(oci.gone()?)
}

/// Ours is never a reaper of a program's orphans: the option is there for who gives it.
pub fn oci_run_and_exec_no_subreaper(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.told(&["run", "-d", "--no-subreaper", "-b", "bundle", &oci.id]).ended(0);
    let told = oci.told(&["exec", "--no-subreaper", &oci.id, "sh", "-c", "(sleep 5 &); exit 3"]).ended(3);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    Ok(oci.gone()?)
}

/// Parents that runs made have what their containers ask for at the time, one that somebody else made has what he gave it.
pub fn oci_update_cpu_rt_period_and_cpu_rt_runtime(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let top = std::path::Path::new("/sys/fs/cgroup/cpu");
    let update = |oci: &Oci, options: &[&str]| oci.told(&[&["update"], options, &[&oci.id]].concat());
    let both = ["--cpu-rt-period", "500000", "--cpu-rt-runtime", "1000"];
    let parent = format!("{}-parent", lab.token());
    oci.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/{parent}/made/c1")))?;
    oci.running(&[]);
    if !oci.cgroup("cpu")?.join("cpu.rt_period_us").exists() {
        update(&oci, &both).ended(1).says(&["resources.cpu.realtimeRuntime"]);
        return Ok(oci.gone()?);
    }
    // The container's own time and period, then its parents' time, of each second.
    let has = |oci: &Oci| -> lifecycle_tests::Result<[String; 4]> {
        let above = |at: &str| std::fs::read_to_string(top.join(at).join("cpu.rt_runtime_us")).unwrap_or_default();
        let parents = [format!("{parent}/made"), parent.clone()].map(|at| above(&at).trim().to_owned());
        let [inner, outer] = parents;
        Ok([oci.limit("cpu", "cpu.rt_runtime_us")?, oci.limit("cpu", "cpu.rt_period_us")?, inner, outer])
    };
    assert_eq!(has(&oci)?, ["0", "1000000", "0", "0"]);
    for (options, expected) in [
        (&both[..], ["1000", "500000", "2000", "2000"]),
        (&["--cpu-rt-runtime", "3000"], ["3000", "500000", "6000", "6000"]),
        (&["--cpu-rt-period", "1000000"], ["3000", "1000000", "3000", "3000"]),
        (&["--cpu-rt-runtime", "500"], ["500", "1000000", "500", "500"]),
    ] {
        let told = update(&oci, options).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""), "{options:?}");
        assert_eq!(has(&oci)?, expected, "{options:?}");
    }
    // All or nothing: there is no such processor.
    update(&oci, &["--cpu-rt-runtime", "4000", "--cpuset-cpus", "4095"]).ended(1);
    assert_eq!(has(&oci)?, ["500", "1000000", "500", "500"]);
    // With the container its parents go, and what they had.
    oci.gone()?;
    assert!(!top.join(&parent).exists());
    std::fs::create_dir(top.join(&parent))?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    update(&oci, &both).ended(1).says(&["resources.cpu.realtimeRuntime", "has 0 of each 1000000 to give"]);
    assert_eq!(has(&oci)?, ["0", "1000000", "0", "0"]);
    oci.gone()?;
    std::fs::remove_dir(top.join(&parent))?;
    Ok(())
}

pub fn oci_systemd_cgroup_is_refused_where_systemd_is_not(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["true"])?;
    oci.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("system.slice:lifecycle:{}", lab.token())))?;
    oci.told(&["--systemd-cgroup", "run", "-b", "bundle", &oci.id]).ended(1).says(&["systemd"]);
    Ok(oci.scene.nothing_left()?)
}

//! `lifecycle-oci checkpoint` and `restore`: with a criu that cannot work, and with a program in criu's place that shows what it is told.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While, criu, program};
use serde_json::json;

use crate::oci_making::{pid_of, receive};
use crate::oci_scene::{Oci, eventually, passing, reap_later};
use crate::scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_checkpoint_and_restore_say_what_criu_lacks_and_change_nothing,
        oci_checkpoint_gives_criu_every_option_and_deletes_the_container,
        oci_restore_makes_a_container_that_every_verb_knows,
        oci_checkpoint_status_fd_is_passed_on_to_criu,
        oci_restore_gives_criu_every_option,
        oci_restore_console_socket_takes_the_terminal,
        oci_restore_bundle_gets_the_mountpoints_that_it_lacks,
    ];
    tests.into_iter().map(|test| test.within("oci_criu").needs(&[Root, Program("busybox"), criu::named()])).collect()
}

fn stand_in(oci: &mut Oci) -> Result<String> {
    let path = criu::install(oci.lab.dir(), Some(&oci.lab.dir().join("told")))?;
    oci.scene.begins_here()?;
    Ok(path.display().to_string())
}

/// Its last request has all of these.
#[track_caller]
fn asks(lab: &Lab, wanted: &[&str]) -> TestResult {
    let words = told(lab)?;
    let last = words.lines().last().unwrap_or_default();
    for wanted in wanted {
        assert!(last.contains(wanted), "{wanted} is not in\n{last}");
    }
    Ok(())
}

fn told(lab: &Lab) -> Result<String> {
    std::fs::read_to_string(lab.dir().join("told")).when(|| "reading what criu was told".into())
}

pub fn oci_checkpoint_and_restore_say_what_criu_lacks_and_change_nothing(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let broken = oci.scene.write(
        "broken",
        "#!/bin/sh\necho 'Version: 0.1'\n[ $1 = check ] && { echo 'Error: no such feature' >&2; exit 1; }\n",
    )?;
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755))?;
    // Where it works criu keeps what it has found out.
    let fails = program::find("criu").is_some() && program::output("criu", &["check"]).is_err();
    oci.scene.begins_here()?;
    oci.running(&[]);
    let pid = oci.pid()?;
    let broken = broken.display().to_string();
    let mut ways: Vec<(&str, &[&str])> = vec![
        ("/nosuch/criu", &["there is no program", "/nosuch/criu", "--criu"]),
        (&broken, &["CRIU 0.1 cannot work on this machine", "no such feature"]),
    ];
    // The real one, where its own check fails.
    if fails {
        ways.push(("criu", &["CRIU", "cannot work on this machine"]));
    }
    for (criu, words) in ways {
        oci.told(&["--criu", criu, "checkpoint", "--image-path", "image", &oci.id]).ended(1).says(words);
        let restore = ["--criu", criu, "restore", "--bundle", "bundle", "--image-path", "image", "another"];
        oci.told(&restore).ended(1).says(words);
        assert_eq!((oci.pid()?, oci.state()?["status"].clone()), (pid, json!("running")), "{criu}");
        assert!(!lab.dir().join("image").exists(), "{criu}: an image was begun");
    }
    Ok(oci.gone()?)
}

pub fn oci_checkpoint_gives_criu_every_option_and_deletes_the_container(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/tmp", "type": "bind", "source": "/run", "options": ["rbind", "ro"] }));
        }
    })?;
    let criu = stand_in(&mut oci)?;
    oci.running(&[]);
    let pid = oci.pid()?;
    let checkpoint = |options: &[&str]| oci.told(&[&["--criu", &criu, "checkpoint"], options, &[&oci.id]].concat());
    checkpoint(&["--image-path", "pre", "--pre-dump"]).ended(0);
    asks(lab, &["pre-dump ", " track_mem=1"])?;
    checkpoint(&["--image-path", "image", "--leave-running", "--parent-path", "../pre"]).ended(0);
    asks(lab, &["dump ", " leave_running=1", " parent_img=../pre"])?;
    assert_eq!(oci.state()?["status"], "running");
    let all = [
        "--image-path",
        "image",
        "--work-path",
        "work",
        "--tcp-established",
        "--tcp-skip-in-flight",
        "--ext-unix-sk",
        "--shell-job",
        "--lazy-pages",
        "--file-locks",
        "--manage-cgroups-mode",
        "full",
        "--empty-ns",
        "network",
        "--auto-dedup",
        "--page-server",
        "127.0.0.1:9876",
    ];
    checkpoint(&all).ended(0);
    let dir = lab.dir().display();
    let wanted = [
        &format!(" images_dir_fd={dir}/image work_dir_fd={dir}/work log_file=dump.log log_level=4"),
        " tcp_established=1 tcp_skip_in_flight=1 ext_unix_sk=1 shell_job=1 lazy_pages=1 file_locks=1 auto_dedup=1",
        " empty_ns=1073741824 manage_cgroups_mode=4",
        " ps=127.0.0.1:9876",
        " external=mnt[/tmp]:/tmp",
        " freeze_cgroup=/sys/fs/cgroup/",
        " orphan_pts_master=1",
        &format!(" pid={pid} "),
    ];
    asks(lab, &wanted)?;
    // Saved, and gone but for the image.
    oci.verb("state").ended(1).says(&["does not exist"]);
    assert!(lab.dir().join("image/inventory.img").is_file() && lab.dir().join("image/descriptors.json").is_file());
    for dir in ["image", "pre", "work"] {
        std::fs::remove_dir_all(lab.dir().join(dir))?;
    }
    oci.without(&["told"])?;
    oci.told(&["--criu", &criu, "checkpoint", &oci.id]).ended(1).says(&["does not exist"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_restore_makes_a_container_that_every_verb_knows(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    std::fs::create_dir(lab.dir().join("image"))?;
    std::fs::write(lab.dir().join("image/descriptors.json"), r#"["/dev/null","pipe:[17]","pipe:[18]"]"#)?;
    oci.scene.begins_here()?;
    let restore =
        ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "image", "--detach", "--pid-file", "pid"];
    let told_by = |more: &[&str]| oci.told(&[&restore[..], more, &[&oci.id]].concat());
    told_by(&["--lsm-profile", "apparmor:web", "--lsm-mount-context", "ctx", "--manage-cgroups-mode", "strict"])
        .ended(0);
    let wanted = [
        "restore images_dir_fd=",
        " log_file=restore.log",
        " rst_sibling=1",
        " inherit_fd=pipe:[17]:",
        " inherit_fd=pipe:[18]:",
        " lsm_profile=apparmor:web",
        " lsm_mount_context=ctx",
        " manage_cgroups_mode=5",
        " root=",
        " notify_scripts=1",
        " orphan_pts_master=1",
    ];
    asks(lab, &wanted)?;
    let pid = oci.pid()?;
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, pid.to_string());
    assert_eq!(oci.state()?["status"], "running");
    eventually("the program", || {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("604"))
    })?;
    // Its cgroup is the one that was made for it, with its limits.
    assert!(oci.cgroup("pids")?.display().to_string().contains(lab.token()));
    oci.verb("pause").ended(0);
    assert_eq!(oci.state()?["status"], "paused");
    oci.verb("resume").ended(0);
    oci.told(&["update", "--pids-limit", "33", &oci.id]).ended(0);
    assert_eq!(oci.limit("pids", "pids.max")?, "33");
    told_by(&[]).ended(1).says(&["already exists"]);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    oci.without(&["told", "pid"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_checkpoint_status_fd_is_passed_on_to_criu(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    oci.running(&[]);
    let checkpoint =
        ["--criu", &criu, "checkpoint", "--image-path", "image", "--leave-running", "--status-fd", "3", &oci.id];
    scene::told(&mut passing(lab, &checkpoint, "3>status")).ended(0);
    asks(lab, &[" status_fd=3"])?;
    assert_eq!(std::fs::read_to_string(lab.dir().join("status"))?, "ready\n");
    std::fs::remove_dir_all(lab.dir().join("image"))?;
    oci.without(&["told", "status"])?;
    Ok(oci.gone()?)
}

pub fn oci_restore_gives_criu_every_option(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    std::fs::create_dir(lab.dir().join("image"))?;
    let listener = UnixListener::bind(lab.dir().join("pidfd.sock"))?;
    oci.scene.begins_here()?;
    let options = [
        "--tcp-established",
        "--tcp-skip-in-flight",
        "--ext-unix-sk",
        "--shell-job",
        "--lazy-pages",
        "--file-locks",
        "--auto-dedup",
        "--no-subreaper",
    ];
    let restore = ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "image", "--work-path", "work"];
    let rest = ["--empty-ns", "network", "--pidfd-socket", "pidfd.sock", "--detach", &oci.id];
    oci.told(&[&restore[..], &options, &rest].concat()).ended(0);
    let wanted = [
        " tcp_established=1 tcp_skip_in_flight=1 ext_unix_sk=1 shell_job=1 lazy_pages=1 file_locks=1 auto_dedup=1 empty_ns=1073741824",
        &format!(" work_dir_fd={}/work", lab.dir().display()),
    ];
    asks(lab, &wanted)?;
    let pid = oci.pid()?;
    assert_eq!(pid_of(&receive(&listener)?)?, pid);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    Ok(())
}

pub fn oci_restore_console_socket_takes_the_terminal(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    std::fs::create_dir(lab.dir().join("image"))?;
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    oci.scene.begins_here()?;
    let socket = ["--console-socket", "console.sock"];
    // Nothing is asked of criu where it is refused.
    let restore = ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "image"];
    let unwanted = oci.told(&[&restore[..], &socket, &["--detach", &oci.id]].concat()).ended(1);
    unwanted.says(&["cannot use console socket", "process.terminal"]);
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let restore = |options: &[&str]| oci.told(&[&restore[..], options, &[&oci.id]].concat());
    for options in [&["--detach"][..], &["--detach", "--shell-job"]] {
        restore(options)
            .ended(1)
            .says(&["cannot allocate tty if the runtime will detach without setting console socket"]);
    }
    oci.scene.nothing_left()?;
    restore(&["--detach", "--console-socket", "nosuch.sock"]).ended(1).says(&["connect", "nosuch.sock"]);
    oci.scene.nothing_left()?;
    assert!(!lab.dir().join("told").exists(), "criu was asked for something");
    let end = |pid| -> TestResult {
        oci.told(&["kill", &oci.id, "KILL"]).ended(0);
        reap_later(pid);
        oci.wait_for_status("stopped")?;
        oci.verb("delete").ended(0);
        Ok(())
    };
    std::fs::write(lab.dir().join("terminal"), "")?;
    restore(&[&socket[..], &["--detach"]].concat()).ended(0);
    let terminal = receive(&listener)?;
    assert!(rustix::pty::ptsname(&terminal, Vec::new()).is_ok(), "it is no master of a terminal");
    drop(terminal);
    end(oci.pid()?)?;
    // A terminal of the image that nobody waits for lets nothing come back.
    oci.bundle.edit(|config| config["process"]["terminal"] = json!(false))?;
    restore(&["--detach"]).ended(1).says(&["nobody to send it to", "process.terminal"]);
    oci.verb("state").ended(1).says(&["does not exist"]);
    oci.bundle.edit(|config| config["process"]["terminal"] = json!(true))?;
    oci.without(&["told", "terminal"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_restore_bundle_gets_the_mountpoints_that_it_lacks(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    for dir in ["image", "volume"] {
        std::fs::create_dir(lab.dir().join(dir))?;
    }
    oci.scene.write("hosts", "of the host\n")?;
    oci.bundle.edit(|config| {
        let bind = |at: &str, source| json!({ "destination": at, "type": "bind", "source": source, "options": ["ro"] });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.extend([bind("/data", "../volume"), bind("/data/below/hosts", "../hosts"), bind("/link/x", "/run")]);
        }
    })?;
    // In the container's root it leads to the container's own /srv.
    let rootfs = oci.bundle.rootfs();
    std::os::unix::fs::symlink("/srv", rootfs.join("link"))?;
    std::fs::create_dir_all(rootfs.join("srv"))?;
    for dir in ["proc", "dev", "sys"].map(|name| rootfs.join(name)).iter().filter(|dir| dir.exists()) {
        std::fs::remove_dir_all(dir)?;
    }
    oci.scene.begins_here()?;
    let restore = ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "image", "--detach", &oci.id];
    oci.told(&restore).ended(0);
    asks(lab, &[&format!(" external=mnt[/data]:{}/bundle/../volume", lab.dir().display())])?;
    for dir in ["proc", "dev", "sys", "data", "srv/x"] {
        assert!(rootfs.join(dir).is_dir(), "{dir} was not made");
    }
    assert!(lab.dir().join("volume/below/hosts").is_file(), "it was not made in the volume");
    assert!(!rootfs.join("dev/pts").exists(), "it is on a file system of its own");
    let pid = oci.pid()?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    assert!(rootfs.join("proc").is_dir(), "a mountpoint stays");
    // What is bound has to be there.
    std::fs::remove_file(lab.dir().join("hosts"))?;
    oci.told(&restore).ended(1).says(&["bundle/../hosts", "cannot be bound"]);
    oci.verb("state").ended(1).says(&["does not exist"]);
    Ok(())
}

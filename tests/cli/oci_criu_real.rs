//! `lifecycle-oci checkpoint` and `restore` with a criu that works: the one of a guest, or of a machine whose kernel it knows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While, program};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use serde_json::{Value, json};

use crate::attacks_descriptors::Outside;
use crate::oci_making::receive;
use crate::oci_scene::{Oci, eventually, reap_later};

/// All of them.
pub fn tests() -> Vec<Test> {
    let tests = lifecycle_tests::tests![
        oci_checkpoint_image_path_and_restore_detach_no_pivot_and_hooks,
        oci_checkpoint_pre_dump_parent_path_leave_running_and_work_path,
        oci_checkpoint_file_locks_and_tcp_established,
        oci_restore_console_socket_takes_a_live_terminal,
        oci_restore_cut_off_anywhere_leaves_nothing,
    ];
    tests.into_iter().map(|test| test.within("oci_criu_real").needs(&needs())).collect()
}

/// What it takes to save a container and to bring it back.
pub fn needs() -> [Need; 3] {
    let works = program::find("criu").is_some() && program::output("criu", &["check"]).is_ok();
    [Need::Root, Need::Program("busybox"), Need::Other(works, "a criu that works on this kernel")]
}

/// It counts in memory, and writes every number once.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/counts; sleep 0.05; done";

/// A container that counts, and may write to its root.
pub fn counting(lab: &Lab) -> Result<Oci<'_>> {
    let mut oci = Oci::new(lab, &["sh", "-c", COUNT])?;
    oci.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["resources"]["pids"] = json!({ "limit": 55 });
    })?;
    Ok(oci)
}

/// `create` and `start`. What the tests' own output is would be a file outside of the container, which criu does not save.
pub fn running(oci: &Oci, stdout: Stdio) -> TestResult {
    let create = ["create", "--bundle", "bundle", &oci.id];
    assert!(oci.command(&create).stdout(stdout).stderr(Stdio::null()).status()?.success());
    oci.verb("start").ended(0);
    Ok(())
}

/// How far it has counted.
pub fn counted(oci: &Oci) -> usize {
    counts(oci).lines().count()
}

pub fn counts(oci: &Oci) -> String {
    std::fs::read_to_string(oci.bundle.rootfs().join("tmp/counts")).unwrap_or_default()
}

pub fn counts_on(oci: &Oci) -> Result<()> {
    let before = counted(oci);
    eventually("the next number", || Ok(counted(oci) > before + 1))
}

/// Takes away what the program and criu have written.
pub fn without(oci: &Oci, files: &[&str], dirs: &[&str]) -> TestResult {
    // There criu keeps what it has found out of the kernel.
    std::fs::remove_file("/run/criu.kdat").when(|| "removing /run/criu.kdat".into())?;
    for file in files {
        std::fs::remove_file(oci.bundle.rootfs().join(file)).when(|| format!("removing {file}"))?;
    }
    for dir in dirs {
        std::fs::remove_dir_all(oci.lab.dir().join(dir)).when(|| format!("removing {dir}"))?;
    }
    Ok(())
}

/// A hook that notes its kind, the status and the id that it is told, and whether it sees the container's process.
fn noting(lab: &Lab, kind: &str) -> Value {
    let script = format!(
        "state=$(cat); pid=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
         status=$(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\).*/\\1/'); \
         [ -d /proc/$pid/ns ] && own=$(readlink /proc/$pid/ns/net) || own=none; \
         [ \"$own\" = \"$(readlink /proc/self/ns/net)\" ] && own=host; echo {kind} $status ${{own%%:*}} >> {}",
        lab.dir().join("hooks").display()
    );
    json!([{ "path": program::find("busybox"), "args": ["sh", "-c", script] }])
}

pub fn oci_checkpoint_image_path_and_restore_detach_no_pivot_and_hooks(lab: &Lab) -> TestResult {
    let mut oci = counting(lab)?;
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    for dir in [oci.bundle.rootfs().join("data"), lab.dir().join("volume")] {
        std::fs::create_dir(&dir)?;
    }
    oci.scene.write("volume/word", "of the volume\n")?;
    oci.bundle.edit(|config| {
        let data = json!({ "destination": "/data/", "type": "bind", "source": "../volume", "options": ["rbind"] });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(data);
        }
    })?;
    oci.edit(|config| kinds.iter().for_each(|kind| config["hooks"][*kind] = noting(lab, kind)))?;
    running(&oci, Stdio::null())?;
    eventually("the first numbers", || Ok(counted(&oci) > 3))?;
    let hooks = || std::fs::read_to_string(lab.dir().join("hooks"));
    let made = "prestart creating net\ncreateRuntime creating net\npoststart running net\n";
    assert_eq!(hooks()?, made);
    let told = oci.told(&["checkpoint", "--image-path", "image", &oci.id]).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    // It is gone, and with it all but the image.
    oci.verb("state").ended(1).says(&["does not exist"]);
    let saved = counted(&oci);
    let stopped = format!("{made}poststop stopped none\n");
    assert_eq!(hooks()?, stopped);
    oci.without(&["hooks"])?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(counted(&oci), saved, "it counts after its end");
    // On a fresh root, which lacks mountpoints.
    for name in ["proc", "sys", "dev", "data"] {
        std::fs::remove_dir(oci.bundle.rootfs().join(name)).when(|| format!("removing {name}"))?;
    }
    // And it comes back where it was: --no-pivot is for runc's callers, criu makes the root anyway.
    let restore =
        ["restore", "--bundle", "bundle", "--image-path", "image", "--detach", "--pid-file", "pid", "--no-pivot"];
    let told = oci.told(&[&restore[..], &[&oci.id]].concat()).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    assert_eq!(hooks()?, made);
    counts_on(&oci)?;
    let all: Vec<String> = counts(&oci).lines().map(str::to_owned).collect();
    let wanted: Vec<String> = (1..=all.len()).map(|n| n.to_string()).collect();
    assert_eq!(all, wanted, "it has not gone on where it was");
    let pid = oci.pid()?;
    let outside = Outside::new(lab)?;
    assert_eq!(outside.ways_out(pid), [""; 0], "it has got a descriptor that leads out");
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, pid.to_string());
    assert_eq!(oci.state()?["status"], "running");
    assert_eq!(oci.limit("pids", "pids.max")?, "55");
    assert_eq!(oci.inside(&["hostname"]), "runc\n");
    assert!(oci.inside(&["ls", "/"]).contains("bin\n"));
    assert_eq!(oci.inside(&["cat", "/data/word"]), "of the volume\n");
    oci.verb("pause").ended(0);
    let before = counted(&oci);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(counted(&oci), before, "a paused container goes on");
    oci.verb("resume").ended(0);
    counts_on(&oci)?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    assert_eq!(hooks()?, stopped);
    oci.without(&["hooks", "pid"])?;
    without(&oci, &["tmp/counts"], &["image", "outside"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_checkpoint_pre_dump_parent_path_leave_running_and_work_path(lab: &Lab) -> TestResult {
    let mut oci = counting(lab)?;
    oci.bundle.runs(&["sh", "-c", &COUNT.replace("echo $i >>", "echo printed; echo $i >>")])?;
    oci.scene.begins_here()?;
    let (unread, write) = std::io::pipe()?;
    running(&oci, write.into())?;
    counts_on(&oci)?;
    oci.told(&["checkpoint", "--image-path", "pre", "--pre-dump", &oci.id]).ended(0);
    counts_on(&oci)?;
    let checkpoint = ["checkpoint", "--image-path", "image", "--parent-path", "../pre", "--work-path", "work"];
    oci.told(&[&checkpoint[..], &["--leave-running", &oci.id]].concat()).ended(0);
    let saved = counted(&oci);
    counts_on(&oci)?;
    assert_eq!(oci.state()?["status"], "running");
    assert!(lab.dir().join("work/dump.log").is_file() && !lab.dir().join("image/dump.log").exists());
    assert_eq!(
        std::fs::read_link(lab.dir().join("image/parent")).when(|| "reading image/parent".into())?,
        Path::new("../pre")
    );
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    // Under another name, in a cgroup of that name, from both images together.
    oci.id = format!("{}-c2", lab.token());
    std::fs::write(oci.bundle.rootfs().join("tmp/counts"), "")?;
    let restore = ["restore", "-b", "bundle", "--image-path", "image", "--work-path", "work", "-d", &oci.id];
    // A hook that fails lets nothing come back.
    oci.bundle.edit(|config| config["hooks"]["createRuntime"] = json!([{ "path": "/bin/false" }]))?;
    oci.told(&restore).ended(1).says(&["createRuntime hook /bin/false", "exited with status 1"]);
    oci.verb("state").ended(1).says(&["does not exist"]);
    assert_eq!(counts(&oci), "", "it was let go");
    oci.bundle.edit(|config| config["hooks"] = json!({}))?;
    // What it prints goes where the caller wants it now.
    let (mut read, write) = std::io::pipe()?;
    assert!(oci.command(&restore).stdout(write).status().when(|| "restoring".into())?.success());
    let mut printed = [0; 8];
    read.read_exact(&mut printed).when(|| "reading what it prints".into())?;
    assert_eq!(&printed, b"printed\n");
    eventually("a number", || Ok(counted(&oci) > 0))?;
    let first: usize = counts(&oci).lines().next().unwrap_or_default().parse()?;
    assert!((2..=saved + 1).contains(&first), "{first} does not follow {saved}");
    let cgroup = oci.cgroup("pids")?.display().to_string();
    assert!(cgroup.contains(&oci.id), "{cgroup}");
    assert_eq!(oci.limit("pids", "pids.max")?, "55");
    assert!(lab.dir().join("work/restore.log").is_file());
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    oci.bundle.edit(|config| config.as_object_mut().map_or((), |config| drop(config.remove("hooks"))))?;
    without(&oci, &["tmp/counts"], &["pre", "image", "work"])?;
    drop((read, unread));
    Ok(oci.scene.nothing_left()?)
}

/// It has a connection to itself over which it counts.
const CONNECTED: &str = "sleep 3600 | nc -l -p 4000 > /tmp/counts & \
    until busybox netstat -tln | grep -q :4000; do sleep 0.1; done; \
    { i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done; } | nc 127.0.0.1 4000";

pub fn oci_checkpoint_file_locks_and_tcp_established(lab: &Lab) -> TestResult {
    let mut oci = counting(lab)?;
    // busybox has no flock: the host's, with the libraries that it needs.
    oci.bundle.runs(&["/usr/bin/flock", "/tmp/lock", "/bin/sh", "-c", CONNECTED])?;
    for name in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), oci.bundle.rootfs().join(name))?;
    }
    oci.bundle.edit(|config| {
        let usr = json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(usr);
        }
    })?;
    std::fs::create_dir(oci.bundle.rootfs().join("usr"))?;
    oci.scene.begins_here()?;
    running(&oci, Stdio::null())?;
    eventually("the first numbers", || Ok(counted(&oci) > 3))?;
    let checkpoint =
        |options: &[&str]| oci.told(&[&["checkpoint", "--image-path", "image"], options, &[&oci.id]].concat());
    // Without the options criu refuses, and the container goes on.
    checkpoint(&["--file-locks"]).ended(1).says(&["--tcp-established", "--work-path"]);
    checkpoint(&["--tcp-established"]).ended(1).says(&["lock", "--work-path"]);
    counts_on(&oci)?;
    checkpoint(&["--file-locks", "--tcp-established"]).ended(0);
    let saved = counted(&oci);
    let restore = ["restore", "-b", "bundle", "--image-path", "image", "--detach", "--file-locks", "--tcp-established"];
    oci.told(&[&restore[..], &[&oci.id]].concat()).ended(0);
    counts_on(&oci)?;
    assert!(counted(&oci) > saved);
    let locks = std::fs::read_to_string("/proc/locks")?;
    let lock = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(oci.bundle.rootfs().join("tmp/lock"))?);
    assert!(locks.contains(&format!(":{lock} ")), "{lock} is not locked:\n{locks}");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    std::fs::remove_file(oci.bundle.rootfs().join("tmp/lock"))?;
    without(&oci, &["tmp/counts"], &["image"])?;
    Ok(oci.scene.nothing_left()?)
}

/// It answers each line with what it knows of its terminal, and ends with its input.
pub const ANSWERS: &str = "trap 'echo interrupted; again=y' INT; i=0; \
    while :; do read line || [ $again ] || exit 7; again=; i=$((i+1)); echo \"$i: $line at $(tty) of $(stty size).\"; done";

/// Writes a line, and reads until the answer has come.
pub fn answered(terminal: &mut File, line: &str, answer: &str) -> TestResult {
    terminal.write_all(line.as_bytes())?;
    let (mut text, mut buffer) = (String::new(), [0; 256]);
    while !text.contains(answer) {
        let n = terminal.read(&mut buffer).when(|| format!("waiting for {answer:?} after {text:?}"))?;
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(())
}

pub fn oci_restore_console_socket_takes_a_live_terminal(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", ANSWERS])?;
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    oci.running(&["--console-socket", "console.sock"]);
    let mut terminal = File::from(receive(&listener)?);
    let size = |terminal: &File, rows, columns| {
        tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
    };
    size(&terminal, 33, 99)?;
    answered(&mut terminal, "first\n", "1: first at /dev/pts/0 of 33 99.")?;
    let told = oci.told(&["checkpoint", "--image-path", "image", &oci.id]).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    oci.verb("state").ended(1).says(&["does not exist"]);
    drop(terminal);
    let restore = |options: &[&str]| {
        oci.told(&[&["restore", "-b", "bundle", "--image-path", "image"], options, &[&oci.id]].concat())
    };
    restore(&["--detach"]).ended(1).says(&["cannot allocate tty", "without setting console socket"]);
    restore(&["--detach", "--console-socket", "nosuch.sock"]).ended(1).says(&["nosuch.sock"]);
    oci.verb("state").ended(1).says(&["does not exist"]);
    let told = restore(&["--detach", "--console-socket", "console.sock"]).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    let mut terminal = File::from(receive(&listener)?);
    let restored = tcgetwinsize(&terminal)?;
    assert_eq!((restored.ws_row, restored.ws_col), (33, 99));
    answered(&mut terminal, "second\n", "2: second at /dev/pts/0 of 33 99.")?;
    size(&terminal, 44, 111)?;
    answered(&mut terminal, "third\n", "3: third at /dev/pts/0 of 44 111.")?;
    // It is the container's console, too, and the controlling terminal.
    let pid = oci.pid()?;
    for fd in 0..3 {
        let link = format!("/proc/{pid}/fd/{fd}");
        assert_eq!(std::fs::read_link(&link).when(|| format!("reading {link}"))?, Path::new("/dev/pts/0"));
    }
    assert_eq!(oci.inside(&["stat", "-c", "%t:%T", "/dev/console"]), "88:0\n");
    answered(&mut terminal, "\x03", "interrupted")?;
    answered(&mut terminal, "fourth\n", ": fourth at ")?;
    // Nobody else has the other end: it hangs up.
    drop(terminal);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    // Nobody detaches: the caller's stdin and stdout are carried.
    let mut started = oci.start(&["restore", "-b", "bundle", "--image-path", "image", &oci.id])?;
    started.type_in("fourth\n", true)?;
    let told = started.end()?.ended(7);
    assert!(told.out.contains("2: fourth at /dev/pts/0 of "), "{}", told.out);
    oci.verb("state").ended(1).says(&["does not exist"]);
    without(&oci, &[], &["image"])?;
    Ok(oci.scene.nothing_left()?)
}

/// Kills criu, and lets the caller think that all is well.
const KILL_CRIU: &str =
    "for p in /proc/[0-9]*; do read name < $p/comm && [ $name = criu ] && kill -9 ${p#/proc/}; done; exit 0";

pub fn oci_restore_cut_off_anywhere_leaves_nothing(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", ANSWERS])?;
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    oci.running(&["--console-socket", "console.sock"]);
    let mut terminal = File::from(receive(&listener)?);
    answered(&mut terminal, "first\n", "1: first at ")?;
    oci.told(&["checkpoint", "--image-path", "image", &oci.id]).ended(0);
    drop(terminal);
    let restore =
        ["restore", "-b", "bundle", "--image-path", "image", "-d", "--console-socket", "console.sock", &oci.id];
    let hook = |script: &str| json!([{ "path": program::find("busybox"), "args": ["sh", "-c", script] }]);
    let nothing_left = |what: &str| -> TestResult {
        oci.told(&["delete", "--force", &oci.id]).ended(0);
        oci.verb("state").ended(1).says(&["does not exist"]);
        // Their parent is this process now.
        while rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some()) {}
        let names = std::fs::read_dir("/proc")?
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
        assert!(!names.into_iter().any(|name| name == "criu\n"), "criu is still there after {what}");
        let made = std::fs::read_dir("/tmp")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        assert_eq!(made.filter(|name| name.contains("criu")).collect::<Vec<_>>(), [""; 0], "after {what}");
        Ok(())
    };
    // The engine in the middle, and criu.
    let config = std::fs::read_to_string(lab.dir().join("bundle/config.json"))?;
    for (script, words) in [("kill -9 $PPID", None), (KILL_CRIU, Some("criu was killed by SIGKILL"))] {
        oci.bundle.edit(|config| config["hooks"]["createRuntime"] = hook(script))?;
        let told = oci.told(&restore);
        match words {
            Some(words) => drop(told.ended(1).says(&[words])),
            None => assert_ne!(told.code, 0),
        }
        drop(listener.accept()?);
        nothing_left(script)?;
    }
    std::fs::write(lab.dir().join("bundle/config.json"), &config)?;
    // The engine when criu has all processes, and hands their terminal out.
    let started = oci.start(&restore)?;
    let terminal = receive(&listener)?;
    started.signal(rustix::process::Signal::KILL)?;
    started.end()?;
    drop(terminal);
    nothing_left("the terminal came")?;
    without(&oci, &[], &["image"])?;
    Ok(oci.scene.nothing_left()?)
}

//! `lifecycle-oci create`, `run`, `kill`, `delete`: options, descriptors, terminals, signals.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::oci_scene::{Oci, eventually, passing, reap_later};
use crate::scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_create_and_exec_pidfd_socket_gets_the_process,
        oci_create_console_socket_takes_the_terminal,
        #[needs(Program("setsid"))]
        oci_run_terminal_has_the_callers_size_whenever_that_changes,
        oci_run_preserve_fds_and_listen_fds_are_the_programs,
        oci_run_ends_with_the_programs_code_and_keep_leaves_the_container,
        oci_kill_takes_signals_by_name_and_number_realtime_ones_too,
        oci_kill_all_reaches_every_process_of_a_stopped_container_too,
        oci_create_and_run_that_are_cancelled_leave_nothing,
    ];
    tests.into_iter().map(|test| test.within("oci_making").needs(&[Root, Program("busybox")])).collect()
}

/// What comes on the next connection.
pub fn receive(listener: &UnixListener) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let (connection, _) = listener.accept()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let got =
        recvmsg(&connection, &mut [std::io::IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    assert!(got.bytes > 0, "a message of no bytes");
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.next().ok_or_else(|| "no descriptor came".into())
}

/// The process that a pidfd stands for, by its number here.
pub fn pid_of(pidfd: &OwnedFd) -> Result<i32, Box<dyn std::error::Error>> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:")).ok_or("no pidfd")?;
    Ok(line.trim().parse()?)
}

pub fn oci_create_and_exec_pidfd_socket_gets_the_process(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let listener = UnixListener::bind(lab.dir().join("pidfd.sock"))?;
    oci.scene.begins_here()?;
    oci.running(&["--pidfd-socket", "pidfd.sock"]);
    assert_eq!(pid_of(&receive(&listener)?)?, oci.pid()?);
    let exec = ["exec", "-d", "--pid-file", "exec.pid", "--pidfd-socket", "pidfd.sock", &oci.id, "sleep", "600"];
    oci.told(&exec).ended(0);
    let pid = std::fs::read_to_string(lab.dir().join("exec.pid"))?;
    assert_eq!(pid_of(&receive(&listener)?)?.to_string(), pid);
    oci.without(&["exec.pid"])?;
    reap_later(pid.parse()?);
    oci.gone()?;
    oci.bundle.runs(&["true"])?;
    oci.scene.begins_here()?;
    oci.told(&["run", "-b", "bundle", "--pidfd-socket", "pidfd.sock", &oci.id]).ended(0);
    let of_run = receive(&listener)?;
    assert_eq!(pid_of(&of_run)?, -1, "a process that is gone");
    drop(of_run);
    oci.scene.nothing_left()?;
    oci.told(&["create", "-b", "bundle", "--pidfd-socket", "nosuch.sock", &oci.id]).ended(1).says(&["nosuch.sock"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_create_console_socket_takes_the_terminal(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "tty; read line; echo got $line"])?;
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let told = oci.told(&["create", "-b", "bundle", &oci.id]).ended(1);
    told.says(&["cannot allocate tty if", "without setting console socket"]);
    oci.scene.nothing_left()?;
    oci.running(&["--console-socket", "console.sock"]);
    let mut terminal = std::fs::File::from(receive(&listener)?);
    terminal.write_all(b"words\n")?;
    let (mut text, mut buffer) = (String::new(), [0; 256]);
    // The last reader's end is EIO.
    while let Ok(1..) = terminal.read(&mut buffer).inspect(|n| text.push_str(&String::from_utf8_lossy(&buffer[..*n]))) {
    }
    assert!(text.contains("/dev/pts/0") && text.contains("got words"), "{text}");
    drop(terminal);
    oci.gone()?;
    oci.edit(|config| config["process"]["terminal"] = json!(false))?;
    let told = oci.told(&["create", "-b", "bundle", "--console-socket", "console.sock", &oci.id]).ended(1);
    told.says(&["cannot use console socket"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_run_terminal_has_the_callers_size_whenever_that_changes(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "while :; do stty size; sleep 0.05; done"])?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let terminal = std::fs::File::options().read(true).write(true).open(name.to_str()?)?;
    let size = |rows, columns| {
        tcsetwinsize(master.as_fd(), Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
    };
    size(20, 70)?;
    let run = oci.command(&["run", "-b", "bundle", &oci.id]);
    // A session whose terminal this is: the kernel tells its foreground of a change.
    let mut command = std::process::Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(run.get_program()).args(run.get_args()).current_dir(lab.dir());
    let shown = lab.dir().join("shown");
    let output = std::fs::File::create(&shown)?;
    let mut child = command.stdin(Stdio::from(terminal.try_clone()?)).stdout(output).spawn()?;
    drop(command);
    let says = |words: &str| -> lifecycle_tests::Result<()> {
        eventually(words, || Ok(std::fs::read_to_string(&shown).unwrap_or_default().contains(words)))
    };
    says("20 70")?;
    size(33, 99)?;
    says("33 99")?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    assert_eq!(child.wait()?.code(), Some(137));
    Ok(())
}

pub fn oci_run_preserve_fds_and_listen_fds_are_the_programs(lab: &Lab) -> TestResult {
    let script = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3; cat <&4; ls /proc/self/fd | wc -l";
    let mut oci = Oci::new(lab, &["sh", "-c", script])?;
    oci.scene.write("three", "third\n")?;
    oci.scene.write("four", "fourth\n")?;
    oci.scene.begins_here()?;
    let run = ["run", "-b", "bundle", "--preserve-fds", "2", &oci.id];
    let told = scene::told(&mut passing(lab, &run, "3<three 4<four 5<three")).ended(0);
    assert_eq!(told.out, "\nthird\nfourth\n6\n", "{}", told.err);
    let listening = |pid: &str, options: &[&str]| {
        let run = [&["run", "-b", "bundle"], options, &[&oci.id]].concat();
        let mut command = passing(lab, &run, "3<three 4<four");
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web").env("PASSED_PID", pid);
        scene::told(&mut command)
    };
    // The first is the socket, and the one of --preserve-fds comes behind it.
    let told = listening("own", &["--preserve-fds", "1"]).ended(0);
    assert_eq!(told.out, "1 1 web\nthird\nfourth\n6\n", "{}", told.err);
    // More than there can be, and one more.
    listening("own", &["--preserve-fds", "4294967295"]).ended(1).says(&["preserved-fd 1 (of 4294967295)"]);
    // Meant for another process.
    let told = listening("1", &["--preserve-fds", "2"]).ended(0);
    assert_eq!(told.out, "\nthird\nfourth\n6\n", "{}", told.err);
    oci.told(&["run", "-b", "bundle", "--preserve-fds", "3", &oci.id]).ended(1).says(&["preserved-fd 0 (of 3)"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_run_ends_with_the_programs_code_and_keep_leaves_the_container(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "echo out; exit 42"])?;
    assert_eq!(oci.told(&["run", "-b", "bundle", &oci.id]).ended(42).out, "out\n");
    oci.scene.nothing_left()?;
    oci.told(&["run", "-b", "bundle", "--keep", &oci.id]).ended(42);
    assert_eq!(oci.state()?["status"], "stopped");
    oci.told(&["run", "-b", "bundle", &oci.id]).ended(1).says(&["already exists"]);
    oci.verb("delete").ended(0);
    oci.scene.nothing_left()?;
    oci.bundle.runs(&["sleep", "600"])?;
    oci.scene.begins_here()?;
    let told = oci.told(&["run", &oci.id, "--bundle", "bundle", "--detach", "--pid-file", "pid"]).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    assert_eq!(oci.state()?["status"], "running");
    assert_eq!(std::fs::read_to_string(lab.dir().join("pid"))?, oci.pid()?.to_string());
    oci.verb("delete").ended(1).says(&["running"]);
    oci.without(&["pid"])?;
    oci.gone()?;
    // Hooks fail when it starts: what was created for it goes again.
    oci.edit(|config| config["hooks"] = json!({ "startContainer": [{ "path": "/bin/false" }] }))?;
    oci.told(&["run", "--bundle", "bundle", "--detach", &oci.id]).ended(1).says(&["/bin/false"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_kill_takes_signals_by_name_and_number_realtime_ones_too(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    // Without a PID namespace of its own a process is deaf to no signal.
    oci.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    for (signal, code) in [("SIGRTMIN+3", 165), ("37", 165), ("TERM", 143), ("SIGHUP", 129), ("9", 137), ("usr1", 138)]
    {
        let run = oci.start(&["run", "-b", "bundle", &oci.id])?;
        eventually("running", || Ok(oci.verb("state").out.contains("\"running\"")))?;
        oci.told(&["kill", &oci.id, signal]).ended(0);
        run.end()?.ended(code);
    }
    oci.told(&["kill", &oci.id, "NOSUCH"]).ended(1).says(&["NOSUCH"]);
    oci.told(&["kill", &oci.id, "TERM"]).ended(1).says(&["container does not exist"]);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_kill_all_reaches_every_process_of_a_stopped_container_too(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "sleep 601 & sleep 602 & exit 0"])?;
    oci.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    oci.running(&[]);
    oci.wait_for_status("stopped")?;
    let left =
        || serde_json::from_str::<Vec<i32>>(&oci.told(&["ps", "-f", "json", &oci.id]).ended(0).out).unwrap_or_default();
    assert_eq!(left().len(), 2);
    oci.told(&["kill", &oci.id, "KILL"]).ended(1).says(&["container not running"]);
    oci.told(&["kill", "--all", &oci.id, "KILL"]).ended(0);
    eventually("their end", || Ok(left().iter().all(|pid| !alive(*pid))))?;
    oci.told(&["kill", &oci.id, "KILL", "--all"]).ended(0);
    Ok(oci.gone()?)
}

/// A zombie is dead.
fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().is_empty() && !rest.trim_start().starts_with('Z'))
}

pub fn oci_create_and_run_that_are_cancelled_leave_nothing(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["true"])?;
    oci.edit(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "600"] }] });
    })?;
    for (verb, signal) in
        [("create", Signal::TERM), ("create", Signal::INT), ("run", Signal::TERM), ("run", Signal::INT)]
    {
        let making = oci.start(&[verb, "--bundle", "bundle", &oci.id])?;
        let children = format!("/proc/{0}/task/{0}/children", making.pid());
        eventually("the hook", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            let is_hook =
                |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
            Ok(text.split_whitespace().any(is_hook))
        })?;
        making.signal(signal)?;
        let told = making.end()?;
        assert!(told.code == 1 || told.code == 128 + signal.as_raw(), "{verb}: {} {}", told.code, told.err);
        oci.scene.nothing_left().map_err(|error| format!("{verb} {signal:?}: {error}"))?;
    }
    Ok(())
}

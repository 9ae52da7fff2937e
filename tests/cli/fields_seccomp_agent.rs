//! `linux.seccomp`: calls that a program outside of the container answers.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::seccomp;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use crate::fields_seccomp::{but, filtered, returns};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        linux_seccomp_listener_path_gets_the_descriptor_and_the_state,
        linux_seccomp_listener_path_where_nobody_listens_fails_before_the_container,
        linux_seccomp_flags_wait_killable_recv_keeps_signals_from_a_notified_call,
    ];
    tests.into_iter().map(|test| test.within("fields_seccomp_agent").needs(&[Root, Program("busybox")])).collect()
}

/// What an agent was told, and what has been asked of it.
struct Agent(JoinHandle<std::io::Result<(Value, Vec<i32>)>>);

impl Agent {
    /// Listens, takes one container, and answers its calls until it ends.
    fn listens(
        path: &Path,
        answer: impl Fn(&OwnedFd, seccomp::Notified) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        Ok(Self(std::thread::spawn(move || {
            let (connection, _) = listener.accept()?;
            let (state, fd) = Self::take(&connection)?;
            let mut calls = Vec::new();
            // Hung up: the last process under the filter has ended.
            while let Ok(call) = Self::next(&fd) {
                calls.push(call.call);
                answer(&fd, call)?;
            }
            Ok((state, calls))
        })))
    }

    fn take(mut connection: &UnixStream) -> std::io::Result<(Value, OwnedFd)> {
        let mut text = vec![0; 4096];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut parts = [std::io::IoSliceMut::new(&mut text)];
        let got = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let bytes = got.bytes;
        let fds: Vec<RawFd> = got
            .cmsgs()?
            .filter_map(|m| if let ControlMessageOwned::ScmRights(fds) = m { Some(fds) } else { None })
            .flatten()
            .collect();
        let [fd] = fds[..] else { return Err(std::io::Error::other(format!("{} descriptors came", fds.len()))) };
        text.truncate(bytes);
        // "The connection … MUST be closed after sending a seccomp state."
        connection.read_to_end(&mut text)?;
        Ok((serde_json::from_slice(&text)?, seccomp::owned(fd)))
    }

    fn next(fd: &OwnedFd) -> std::io::Result<seccomp::Notified> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut polled = [PollFd::new(fd, PollFlags::IN)];
        poll(&mut polled, None)?;
        if polled[0].revents().contains(PollFlags::IN) {
            seccomp::receive(fd.as_fd())
        } else {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }

    fn end(self) -> Result<(Value, Vec<i32>), Box<dyn std::error::Error>> {
        Ok(self.0.join().map_err(|_| "the agent panicked")??)
    }
}

pub fn linux_seccomp_listener_path_gets_the_descriptor_and_the_state(lab: &Lab) -> TestResult {
    let mut container = filtered(lab, "mkdir /dev/shm/made 2>&1; rmdir /dev/shm/made 2>&1; echo $?", &but(json!([])))?;
    let socket = container.outside("agent.sock");
    container.edit(|config| {
        config["annotations"] = json!({ "org.example.team": "web" });
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "for the agent",
            // What the agent's descriptor is sent by is forbidden to the program.
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }, { "names": ["sendmsg", "rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30 }],
        });
    })?;
    for no_new_privileges in [true, false] {
        container.bundle.edit(|config| config["process"]["noNewPrivileges"] = json!(no_new_privileges))?;
        let agent = Agent::listens(&socket, |fd, call| seccomp::answer(fd.as_fd(), call.id, Some(25)))?;
        container.scene.begins_here()?;
        let pid = container.create()?;
        // With no_new_privileges it is loaded last of all, in `start`.
        if !no_new_privileges {
            assert_eq!(returns(pid)?.len(), 2, "the part that notifies, and the rest");
        }
        container.plan("oci/start", &["--keep"]).ended(0);
        let (state, calls) = agent.end().map(|told| (told.0, told.1))?;
        assert_eq!(calls, [libc::SYS_mkdir as i32]);
        let wanted = json!({ "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "for the agent", "state": {
            "ociVersion": "1.3.0", "id": container.id, "status": "creating", "pid": pid,
            "bundle": container.bundle.dir(), "annotations": { "org.example.team": "web" } } });
        assert_eq!(state, wanted);
        container.delete().ended(0);
        fs::remove_file(&socket)?;
    }
    let agent = Agent::listens(&socket, |fd, call| seccomp::answer(fd.as_fd(), call.id, Some(25)))?;
    let told = container.plan("oci/run", &[]).ended(0);
    assert!(
        told.out.contains("Inappropriate ioctl")
            && told.out.contains("Read-only file system")
            && told.out.ends_with("1\n"),
        "{}",
        told.out
    );
    agent.end()?;
    Ok(())
}

pub fn linux_seccomp_listener_path_where_nobody_listens_fails_before_the_container(lab: &Lab) -> TestResult {
    let mut container = filtered(lab, "true", &but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }])))?;
    container.plan("oci/run", &[]).ended(125).says(&["linux.seccomp.listenerPath: is required"]);
    let socket = container.outside("nobody.sock");
    container.edit(|config| config["linux"]["seccomp"]["listenerPath"] = json!(socket))?;
    container.plan("oci/run", &[]).ended(1).says(&[
        "connect(",
        "nobody.sock",
        "linux.seccomp.listenerPath must be a unix socket",
    ]);
    container.scene.nothing_left()?;
    // Not used, so not looked at.
    container.edit(|config| config["linux"]["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ERRNO"))?;
    container.plan("oci/run", &[]).ended(0);
    for (names, said) in
        [(json!(["write"]), "`write` cannot be notified"), (json!(["sendmsg", "sendmmsg"]), "cannot both be notified")]
    {
        container.edit(|config| {
            config["linux"]["seccomp"]["syscalls"][0] = json!({ "names": names, "action": "SCMP_ACT_NOTIFY" });
        })?;
        container.plan("oci/run", &[]).ended(125).says(&["linux.seccomp.syscalls", said]);
    }
    // The agent goes away without having taken anything: it is told all the same, or the create fails; nothing hangs.
    container.edit(|config| {
        config["linux"]["seccomp"]["syscalls"][0] =
            json!({ "names": ["sendmsg", "mkdir"], "action": "SCMP_ACT_NOTIFY" });
    })?;
    let agent = Agent::listens(&socket, |fd, call| seccomp::answer(fd.as_fd(), call.id, None))?;
    container.plan("oci/run", &[]).ended(0);
    assert_eq!(agent.end()?.1, [0; 0]);
    fs::remove_file(&socket)?;
    Ok(())
}

pub fn linux_seccomp_flags_wait_killable_recv_keeps_signals_from_a_notified_call(lab: &Lab) -> TestResult {
    let script = "trap 'echo signalled' USR1; kill -0 $$; echo $?";
    let mut container = filtered(lab, script, &but(json!([])))?;
    let socket = container.outside("agent.sock");
    for flag in [false, true] {
        container.edit(|config| {
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
                "flags": if flag { json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]) } else { json!([]) },
                "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_NOTIFY" }] });
        })?;
        let agent = Agent::listens(&socket, move |fd, call| {
            let pid = rustix::process::Pid::from_raw(call.pid.cast_signed()).ok_or(std::io::ErrorKind::NotFound)?;
            rustix::process::kill_process(pid, rustix::process::Signal::USR1)?;
            // Long enough for a signal that does interrupt.
            std::thread::sleep(std::time::Duration::from_millis(200));
            if seccomp::waits(fd.as_fd(), call.id) { seccomp::answer(fd.as_fd(), call.id, None) } else { Ok(()) }
        })?;
        let told = container.plan("oci/run", &[]).ended(0).prints(&["signalled"]);
        assert_eq!(told.out.ends_with("0\n"), flag, "a call that a signal interrupts fails: {}{}", told.out, told.err);
        assert_eq!(agent.end()?.1, [libc::SYS_kill as i32]);
        fs::remove_file(&socket)?;
    }
    Ok(())
}

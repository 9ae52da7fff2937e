//! What an effect finds around it in a run, made by the effects before it: namespaces of its own, a root, a process, a cgroup.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, Effect};
use lifecycle_engine::facts::Host;
use lifecycle_engine::site::block_on;
use lifecycle_steps::facts::Machine;
use lifecycle_steps::outcomes::Process;
use lifecycle_tests::harness::Need;
use lifecycle_tests::machine::{hierarchies, remove_cgroup};
use lifecycle_tests::program::{output, quiet};
use lifecycle_tests::{PATIENCE, Result, While, criu};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::pipe::pipe;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::subject::Order;

/// The step of which every example takes its process.
const INIT: &str = "init";
/// The step of which every example takes its cgroup.
const CGROUP: &str = "cgroup";
/// Which controllers a cgroup's children have.
const CONTROLLERS: &str = "cgroup.subtree_control";

type Failure = Box<dyn std::error::Error>;

/// Whether systemd makes what the effect changes.
pub fn by_systemd(kind: &str) -> bool {
    kind.starts_with("systemd.")
}

/// What an effect needs of the machine that nobody can make around it.
pub fn needs(kind: &str) -> &'static [Need] {
    static SYSTEMD: LazyLock<[Need; 1]> = LazyLock::new(|| {
        let there = Path::new("/run/systemd/system").is_dir() && rustix::process::getuid().is_root();
        [Need::Other(there, "systemd as the machine's first process")]
    });
    static NEEDS: LazyLock<[Need; 1]> = LazyLock::new(|| {
        // To enable it at the top is to change the machine's own cgroup.
        let hierarchies = hierarchies().unwrap_or_default();
        let mut enabled = hierarchies
            .iter()
            .filter(|hierarchy| hierarchy.unified)
            .map(|hierarchy| fs::read_to_string(hierarchy.mount.join(CONTROLLERS)).unwrap_or_default());
        let there = enabled.any(|enabled| enabled.split_whitespace().any(|name| name == "pids"));
        [Need::Other(there, "a hierarchy of version 2 whose top lets its children use pids")]
    });
    static MODULES: LazyLock<[[Need; 1]; 2]> = LazyLock::new(|| {
        let active: Vec<String> = serde_json::from_value(Machine.read("lsm")).unwrap_or_default();
        let there = |module: &str| active.iter().any(|name| name == module);
        [[Need::Other(there("apparmor"), "AppArmor in force")], [Need::Other(there("selinux"), "SELinux in force")]]
    });
    static RESCTRL: LazyLock<[Need; 1]> = LazyLock::new(|| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        [Need::Other(mounts.contains(" - resctrl "), "a mounted resctrl, which takes a processor with RDT")]
    });
    match kind {
        _ if by_systemd(kind) => &*SYSTEMD,
        "cgroup.controllers" => &*NEEDS,
        "apparmor_profile" => &MODULES[0],
        "selinux_label" => &MODULES[1],
        // Who is in a group can be taken back by the kernel alone.
        "rdt.join" => &*RESCTRL,
        _ => &[],
    }
}

/// Gives the children of a cgroup the controller that the examples use, where the cgroup has it itself. Version 1 has nothing to enable.
fn enable(dir: &Path) -> Result<()> {
    let has = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    if !has.split_whitespace().any(|name| name == "pids") {
        return Ok(());
    }
    let file = dir.join(CONTROLLERS);
    fs::write(&file, "+pids").when(|| format!("writing {}", file.display()))
}

/// What stands for the whole of a test, and was there before: a cgroup that somebody else made, a server, files to cover.
pub struct Standing {
    cgroup: Option<PathBuf>,
    scope: Option<Child>,
}

impl Standing {
    /// For one example.
    pub fn make(kind: &str, effect: &dyn Effect, scratch: &Path) -> Result<Self> {
        let cgroup = cgroup_of(kind, effect);
        if let Some(cgroup) = &cgroup {
            // Another test's may remove a parent on the way.
            let made = (0..64).find_map(|_| fs::create_dir_all(cgroup).ok());
            made.ok_or("it goes away again").when(|| format!("making {}", cgroup.display()))?;
            // The topmost is the other tests', too: whoever needs it there must not change what this one sees.
            cgroup.ancestors().nth(2).map_or(Ok(()), enable)?;
        }
        let dirs: &[&str] = match kind {
            "root.mask" => &["masked"],
            "root.readonly_path" => &["readonly"],
            "criu.dump" => &["image"],
            _ => &[],
        };
        for dir in dirs {
            fs::create_dir(scratch.join(dir)).when(|| format!("making {dir}"))?;
        }
        match kind {
            "cgroup.controllers" | "cgroup.update" | "cgroup.write" => {
                cgroup.as_deref().and_then(Path::parent).map_or(Ok(()), enable)?;
            }
            "probe.http" => serve_nothing()?,
            "device.move" => lay_a_cable()?,
            "criu.dump" | "criu.begin" | "criu.finish" => criu::install(scratch, None).map(drop)?,
            "rdt.schemata" => fs::write(scratch.join("schemata"), "L3:0=fff\n").when(|| "writing schemata".into())?,
            "send_pidfd" => take_descriptors(scratch)?,
            "notify.bind" => hear_notifications(scratch)?,
            _ => {}
        }
        let scope = if kind == "systemd.properties" { Some(somebodys_scope(effect)?) } else { None };
        Ok(Self { cgroup, scope })
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(mut scope) = self.scope.take() {
            let _ = scope.kill();
            let _ = scope.wait();
        }
        // What cannot be removed is found by the harness, by its name; the topmost is the other tests', too.
        let Some(cgroup) = &self.cgroup else { return };
        for dir in cgroup.ancestors().take(2) {
            let _ = remove_cgroup(dir);
        }
        let _ = cgroup.ancestors().nth(2).map(fs::remove_dir);
    }
}

/// A scope of the example's name around a program that does nothing.
fn somebodys_scope(effect: &dyn Effect) -> Result<Child> {
    let data = effect.data().unwrap_or_default();
    let unit = data["unit"].as_str().unwrap_or_default();
    let unit_option = format!("--unit={unit}");
    let arguments = ["--quiet", "--scope", &unit_option, "--property=TasksMax=7", "sleep", "600"];
    let doing = || format!("starting {unit}");
    let child = Command::new("systemd-run").args(arguments).stdin(Stdio::null()).spawn().when(doing)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !output("systemctl", &["is-active", unit]).is_ok_and(|state| state.trim() == "active") {
        if Instant::now() > deadline {
            return Err("it does not become active").when(doing);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// The cgroup that the example works in.
fn cgroup_of(kind: &str, effect: &dyn Effect) -> Option<PathBuf> {
    let data = effect.data().unwrap_or_default();
    let at = match kind {
        "cgroup.write" | "cgroup.devices" | "cgroup.controllers" | "cgroup.freeze" | "cgroup.realtime"
        | "cgroup.update" => data.get("at"),
        "criu.begin" | "enter_cgroup" => data.pointer("/cgroup/v1/0").or_else(|| data.pointer("/cgroup/v2")),
        _ => None,
    };
    at.and_then(Value::as_str).map(PathBuf::from)
}

/// Takes whatever comes, and lets go of it.
fn take_descriptors(scratch: &Path) -> Result<()> {
    let listener = UnixListener::bind(scratch.join("socket")).when(|| "listening for descriptors".into())?;
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // Open until its other end is closed.
            let _ = connection.and_then(|mut connection| connection.read_to_end(&mut Vec::new()));
        }
    });
    Ok(())
}

/// A service manager, to the very end of this process.
fn hear_notifications(scratch: &Path) -> Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(scratch.as_os_str().as_encoded_bytes());
    let socket = address.and_then(|address| UnixDatagram::bind_addr(&address));
    std::mem::forget(socket.when(|| "listening for notifications".into())?);
    Ok(())
}

/// Answers every request on port 9 with 204, as the example of `probe.http` expects.
fn serve_nothing() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:9").when(|| "listening on port 9".into())?;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // A client that was killed is nobody to answer.
            let Ok(mut client) = client else { continue };
            let head =
                BufReader::new(&client).lines().map_while(std::io::Result::ok).take_while(|line| !line.is_empty());
            head.for_each(drop);
            let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    Ok(())
}

/// The device that the example of `device.move` lends, with something to lose.
fn lay_a_cable() -> Result<()> {
    let ip = |words: &str| quiet("ip", &words.split(' ').collect::<Vec<_>>());
    ip("link add lcexample3 type veth peer name lcexample4")?;
    ip("link set lcexample4 up")?;
    ip("link set lcexample3 mtu 1400 up")?;
    ip("addr add 192.0.2.1/24 dev lcexample3")?;
    ip("addr add 2001:db8::1/64 nodad dev lcexample3")?;
    ip("route add 198.51.100.0/24 via 192.0.2.7 dev lcexample3")?;
    // Until the kernel has given both ends what it gives a link that comes up.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let shown = output("ip", &["-6", "addr"])?;
        if shown.matches("fe80").count() == 2 && !shown.contains("tentative") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("lcexample3 does not come up").when(|| "laying a cable".into())
}

/// What the applying process holds until it ends.
#[derive(Default)]
pub struct Held {
    process: Option<Child>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It ends when its standard input does; one that the effect has ended and reaped already is what we want.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Whether it happens inside a container's process, so that a process with namespaces of its own has to stand for that.
fn is_inside(kind: &str, class: Class) -> bool {
    matches!(class, Class::Scoped | Class::Commit) || kind.starts_with("root.")
}

/// Makes what the effect needs, in the process that is to apply it, and puts what it is told into `outcomes`.
pub fn enter(kind: &str, effect: &dyn Effect, scratch: &Path) -> std::result::Result<(Held, Outcomes), Failure> {
    let mut held = Held::default();
    let mut outcomes = Outcomes::new();
    match kind {
        "await_end" | "notify.forward" => held.process = Some(child(&["true"], None)?),
        "cgroup.adopt" | "criu.dump" | "end_process" | "signal" | "oom_score_adj" | "raise_rlimits"
        | "relay_console" | "root.enter" | "send_pidfd" | "stdio_owner" | "systemd.scope" => {
            held.process = Some(child(&["cat"], Some("cat"))?);
        }
        "netns.pin" | "device.move" => held.process = Some(child(&["unshare", "--net", "cat"], Some("cat"))?),
        "id_maps" => held.process = Some(child(&["unshare", "--user", "cat"], Some("cat"))?),
        "release" => {
            let [fifo, report] = make_fifos(scratch)?;
            // It takes the byte and closes both FIFOs, as an init whose exec succeeds does, and must not wait there for ever when nobody comes.
            let script =
                "{ exec dd bs=1 count=1 <&2 3>&1 >/dev/null 2>/dev/null; } & exec >/dev/null 2>&1; cat; kill $!";
            let mut init = Command::new("sh");
            init.args(["-c", script]).stdin(Stdio::piped()).stdout(report).stderr(fifo);
            held.process = Some(init.spawn()?);
        }
        _ => {}
    }
    if let Some(child) = &held.process {
        let pid = Pid::from_child(child);
        outcomes.push((INIT.into(), json!(Process::of(pid)?)));
    }
    if let (Some(dir), Some(child)) = (adopted(kind, effect), &held.process) {
        // As systemd makes it, with the process in it.
        let made = (0..64).find_map(|_| fs::create_dir_all(&dir).ok());
        made.ok_or("a parent of the cgroup goes away again")?;
        fs::write(dir.join("cgroup.procs"), child.id().to_string())?;
    }
    if let Some(dir) = adopted(kind, effect).or_else(|| cgroup_of(kind, effect)).filter(|_| kind != "enter_cgroup") {
        let found = fs::metadata(dir)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        outcomes.push((
            CGROUP.into(),
            json!({ "made": false, "dev": found.dev(), "ino": found.ino(), "boot": boot.trim() }),
        ));
    }
    Ok((held, outcomes))
}

/// The cgroup of an example that takes it over from systemd, and takes it away.
fn adopted(kind: &str, effect: &dyn Effect) -> Option<PathBuf> {
    let data = effect.data().unwrap_or_default();
    data.get("at").and_then(Value::as_str).filter(|_| kind == "cgroup.adopt").map(PathBuf::from)
}

fn seqpacket() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// By step.
pub type Outcomes = Vec<(Arc<str>, Value)>;

/// Applies what stands before the effect in every run, and gives it the descriptors that it takes over.
pub fn prepare(order: &Order, effect: &dyn Effect, cx: &mut Cx) -> std::result::Result<(), Failure> {
    let (kind, scratch) = (order.kind.as_str(), order.scratch.as_path());
    if is_inside(kind, order.class) {
        leave_the_lab()?;
        for namespace in ["mnt", "uts", "ipc", "net"] {
            cx.fds.mark(namespace);
        }
    }
    let before: &[&str] = match kind {
        "root.bind" | "root.overlay" => &["root.propagation"],
        "root.propagation" => &[],
        "device.move" => &["netns.pin"],
        kind if kind.starts_with("root.") => &["root.propagation", "root.bind"],
        _ => &[],
    };
    let registry = lifecycle_steps::registry();
    for kind in before {
        let kind = registry.effect(kind).ok_or("no such effect")?;
        let first = (kind.examples)(scratch).into_iter().next().ok_or("no example")?;
        let saw = first.before(cx)?;
        if let Applied::Pending(pending) = first.apply(&saw, cx)? {
            block_on(pending, cx)?;
        }
    }
    match kind {
        "criu.finish" => {
            let (ours, theirs) = seqpacket()?;
            let mut finishes = Command::new(scratch.join("criu"));
            let finishes = finishes.args(["finish", "0"]).stdin(theirs).stdout(Stdio::null()).spawn()?;
            cx.fds.put("criu", pidfd_open(Pid::from_child(&finishes), PidfdFlags::empty())?);
            cx.fds.put("criu/socket", ours);
        }
        "await_start" => {
            // Started already.
            let (fifo, start) = pipe()?;
            rustix::io::write(&start, b"0")?;
            cx.fds.put("fifo", fifo);
            cx.fds.put("fifo-report", start);
        }
        "console" => {
            furnish_dev()?;
            let (engine, init) = UnixStream::pair()?;
            cx.fds.put("console", init.into());
            // To the very end of this process: its terminal hangs up, and with it its session, when the master is closed.
            std::mem::forget(engine);
        }
        "notify.forward" => {
            for name in ["manager", "socket"] {
                cx.fds.put(format!("engine:notify:{name}"), UnixDatagram::unbound()?.into());
            }
        }
        "seccomp_listener" => {
            let (init, agent) = UnixStream::pair()?;
            cx.fds.put("seccomp-agent", init.into());
            cx.fds.put("seccomp-listener", File::open("/dev/null")?.into());
            // It takes what comes, and keeps it.
            std::mem::forget(agent);
        }
        // Whose other end is closed: the container has ended before it opened a terminal.
        "relay_console" => cx.fds.put("engine:console:init", UnixStream::pair()?.0.into()),
        "enter_cgroup" => {
            let dir = cgroup_of(kind, effect).ok_or("the example has no cgroup")?;
            let file = [dir.join("tasks"), dir.join("cgroup.procs")].into_iter().find(|file| file.exists());
            let file = File::options().write(true).open(file.ok_or("no file to join by")?)?;
            cx.fds.put("cgroup:0", file.into());
        }
        _ => {}
    }
    Ok(())
}

/// What dies with a namespace is applied in namespaces that die with this process.
fn leave_the_lab() -> std::result::Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    Ok(())
}

/// A /dev as a container has it, so that nothing is made in the machine's.
fn furnish_dev() -> std::result::Result<(), Failure> {
    let none: Option<&str> = None;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), none)?;
    fs::create_dir("/dev/pts")?;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), MsFlags::empty(), Some("newinstance,ptmxmode=0666"))?;
    Ok(())
}

/// Both FIFOs of a created container.
fn fifos(scratch: &Path) -> [PathBuf; 2] {
    ["exec.fifo", "exec.report"].map(|name| scratch.join(name))
}

/// Makes them; answers with what its init holds of them.
fn make_fifos(scratch: &Path) -> rustix::io::Result<[OwnedFd; 2]> {
    let paths = fifos(scratch);
    for path in &paths {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    }
    let open = |path: &Path, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let [fifo, report] = &paths;
    let _reader = open(report, OFlags::RDONLY | OFlags::NONBLOCK)?;
    Ok([open(fifo, OFlags::RDWR)?, open(report, OFlags::WRONLY)?])
}

/// Removes the cgroup that the effect found there, and its parents that are empty.
fn leave_adopted(kind: &str, scratch: &Path) -> std::result::Result<(), Failure> {
    let registry = lifecycle_steps::registry();
    let effect = registry.effect(kind).and_then(|kind| (kind.examples)(scratch).into_iter().next());
    let Some(dir) = effect.and_then(|effect| adopted(kind, effect.as_ref())) else { return Ok(()) };
    for dir in dir.ancestors().take(2).filter(|dir| dir.exists()) {
        remove_cgroup(dir)?;
    }
    // The topmost is the other tests', too.
    let _ = dir.ancestors().nth(2).map(fs::remove_dir);
    Ok(())
}

/// Takes back what [`enter`] made for one round, as the steps before the effect's would.
pub fn leave(kind: &str, scratch: &Path) -> std::result::Result<(), Failure> {
    if kind == "cgroup.adopt" {
        return leave_adopted(kind, scratch);
    }
    let files = match kind {
        "release" => fifos(scratch).to_vec(),
        "device.move" => {
            let pin = scratch.join("netns");
            // Not mounted where the round ended before it was.
            while umount2(&pin, MntFlags::MNT_DETACH).is_ok() {}
            vec![pin]
        }
        _ => return Ok(()),
    };
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Another program, which ends by itself when this process does: its standard input is ours to close.
fn child(words: &[&str], last: Option<&str>) -> std::result::Result<Child, Failure> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    // It is in its namespaces when it has become its last program.
    while last.is_some() && comm(&child)?.as_deref() != last {
        // Killed on the way there: the effect has to cope with that.
        if child.try_wait()?.is_some() {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{} does not start", words.join(" ")).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(child)
}

fn comm(child: &Child) -> std::result::Result<Option<String>, Failure> {
    match fs::read_to_string(format!("/proc/{}/comm", child.id())) {
        Ok(comm) => Ok(Some(comm.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

//! sd_notify: what a container says of itself reaches the caller's service manager, and nothing else does.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use rustix::process::Signal;

use crate::oci_scene::{Oci, eventually};
use crate::scene::{self, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_start_notify_socket_waits_until_the_container_is_ready,
        oci_start_notify_socket_ends_with_the_container_and_fails_without_a_manager,
        oci_run_notify_socket_passes_on_what_the_container_says,
        oci_run_notify_socket_flooded_takes_little_memory_and_signals_are_heard,
        oci_start_notify_socket_flooded_ends_when_it_is_told_to,
        oci_delete_force_removes_what_a_killed_run_listened_on,
    ];
    tests.into_iter().map(|test| test.within("oci_notify").needs(&[Root, Program("busybox")])).collect()
}

/// A service manager, and a container whose program does nothing.
struct Service<'a> {
    oci: Oci<'a>,
    manager: UnixDatagram,
    path: PathBuf,
}

impl<'a> Service<'a> {
    fn new(lab: &'a Lab, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut oci = Oci::new(lab, arguments)?;
        let path = lab.dir().join("manager.sock");
        let manager = UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(Duration::from_secs(10)))?;
        // The mountpoint is made in the root, and stays.
        std::fs::create_dir_all(oci.bundle.rootfs().join("run/notify"))?;
        oci.scene.begins_here()?;
        Ok(Self { oci, manager, path })
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.oci.command(arguments);
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }

    /// `run` of a container that has said that it is ready.
    fn run(&self) -> Result<Started, Box<dyn std::error::Error>> {
        let run = Started::new(&mut self.command(&["run", "-b", "bundle", &self.oci.id]))?;
        eventually("the container", || Ok(self.oci.verb("state").out.contains("\"running\"")))?;
        self.says("READY=1")?;
        assert_eq!(self.hears()?, "READY=1");
        Ok(run)
    }

    /// What the manager hears next.
    fn hears(&self) -> std::io::Result<String> {
        let mut buffer = [0; 4096];
        let length = self.manager.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Says something at the place where the container's program finds the socket.
    fn says(&self, words: &str) -> Result<(), Box<dyn std::error::Error>> {
        let socket = format!("/proc/{}/root/run/notify/notify.sock", self.oci.pid()?);
        eventually("the socket", || Ok(std::fs::exists(&socket).unwrap_or(false)))?;
        UnixDatagram::unbound()?.send_to(words.as_bytes(), &socket)?;
        Ok(())
    }
}

pub fn oci_start_notify_socket_waits_until_the_container_is_ready(lab: &Lab) -> TestResult {
    let service = Service::new(lab, &["sleep", "600"])?;
    let oci = &service.oci;
    scene::told(&mut service.command(&["create", "-b", "bundle", &oci.id])).ended(0);
    let start = Started::new(&mut service.command(&["start", &oci.id]))?;
    oci.wait_for_status("running")?;
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", oci.pid()?))?;
    assert!(environment.split('\0').any(|entry| entry == "NOTIFY_SOCKET=/run/notify/notify.sock"), "{environment}");
    service.says("STATUS=warming up\nWATCHDOG=1\nMAINPID=1\nFDSTORE=1")?;
    assert_eq!(service.hears()?, "STATUS=warming up");
    std::thread::sleep(Duration::from_millis(100));
    assert!(std::fs::exists(format!("/proc/{}/exe", start.pid()))?, "start does not wait");
    service.says("READY=1\nSTATUS=up\n")?;
    let heard = [service.hears()?, service.hears()?, service.hears()?, service.hears()?];
    assert_eq!(
        heard,
        ["READY=1".to_owned(), format!("MAINPID={}", oci.pid()?), "STATUS=up".into(), "BARRIER=1".into()]
    );
    start.end()?.ended(0);
    Ok(oci.gone()?)
}

pub fn oci_start_notify_socket_ends_with_the_container_and_fails_without_a_manager(lab: &Lab) -> TestResult {
    let service = Service::new(lab, &["sleep", "0.2"])?;
    let oci = &service.oci;
    scene::told(&mut service.command(&["create", "-b", "bundle", &oci.id])).ended(0);
    let told = scene::told(oci.command(&["start", &oci.id]).env("NOTIFY_SOCKET", "/nosuch"));
    told.ended(1).says(&["/nosuch", "NOTIFY_SOCKET"]);
    assert_eq!(oci.state()?["status"], "created", "it was started although nobody can be notified");
    scene::told(&mut service.command(&["start", &oci.id])).ended(0);
    assert_eq!(oci.state()?["status"], "stopped");
    oci.gone()?;
    // Created without one: there is nowhere to notify, and nothing to wait for.
    oci.bundle.runs(&["sleep", "600"])?;
    oci.create(&[]);
    scene::told(&mut service.command(&["start", &oci.id])).ended(0);
    oci.told(&["delete", "-f", &oci.id]).ended(0);
    Ok(())
}

pub fn oci_run_notify_socket_passes_on_what_the_container_says(lab: &Lab) -> TestResult {
    let service = Service::new(lab, &["sleep", "600"])?;
    let oci = &service.oci;
    let run = service.run()?;
    service.says("STATUS=busy")?;
    assert_eq!(service.hears()?, "STATUS=busy", "the service's main process is `run` itself");
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    run.end()?.ended(137);
    Ok(oci.scene.nothing_left()?)
}

/// As many messages as somebody can send, on a number of threads, until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(service: &Service, sent: &Arc<AtomicUsize>) -> Result<Self, Box<dyn std::error::Error>> {
        let socket = format!("/proc/{}/root/run/notify/notify.sock", service.oci.pid()?);
        eventually("the socket", || Ok(std::fs::exists(&socket).unwrap_or(false)))?;
        let over = Arc::new(AtomicBool::new(false));
        // Many words in each, all of which are to be passed on.
        let message = "STATUS=0123456789abcdef\n".repeat(150);
        let sender = || {
            let (over, sent, socket, message) = (over.clone(), sent.clone(), socket.clone(), message.clone());
            std::thread::spawn(move || {
                let Ok(from) = UnixDatagram::unbound() else { return };
                while !over.load(Relaxed) && from.send_to(message.as_bytes(), &socket).is_ok() {
                    sent.fetch_add(1, Relaxed);
                }
            })
        };
        let threads = (0..2).map(|_| sender()).collect();
        Ok(Self { over, threads })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// The memory that the process has touched, in bytes.
fn memory(pid: i32) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("it has ended")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// A service manager that does not listen, and a container that says more than it can take.
pub fn oci_run_notify_socket_flooded_takes_little_memory_and_signals_are_heard(lab: &Lab) -> TestResult {
    let ends = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let service = Service::new(lab, &["sh", "-c", ends])?;
    let oci = &service.oci;
    let run = Started::new(&mut service.command(&["run", "-b", "bundle", &oci.id]))?;
    eventually("the container", || Ok(oci.verb("state").out.contains("\"running\"")))?;
    let before = memory(run.pid())?;
    let sent = Arc::new(AtomicUsize::new(0));
    let flood = Flood::of(&service, &sent)?;
    // 100,000 messages of 150 words each.
    eventually("the flood", || Ok(sent.load(Relaxed) > 100_000))?;
    let grown = memory(run.pid())?.saturating_sub(before);
    assert!(grown < 4 << 20, "the engine has grown by {} MiB", grown >> 20);
    // While it goes on.
    run.signal(Signal::TERM)?;
    run.end()?.ended(7);
    drop(flood);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_start_notify_socket_flooded_ends_when_it_is_told_to(lab: &Lab) -> TestResult {
    let service = Service::new(lab, &["sleep", "600"])?;
    let oci = &service.oci;
    scene::told(&mut service.command(&["create", "-b", "bundle", &oci.id])).ended(0);
    let start = Started::new(&mut service.command(&["start", &oci.id]))?;
    let sent = Arc::new(AtomicUsize::new(0));
    let flood = Flood::of(&service, &sent)?;
    eventually("the flood", || Ok(sent.load(Relaxed) > 10_000))?;
    start.signal(Signal::TERM)?;
    start.end()?.ended(1).says(&["cancelled by signal 15"]);
    drop(flood);
    Ok(oci.gone()?)
}

pub fn oci_delete_force_removes_what_a_killed_run_listened_on(lab: &Lab) -> TestResult {
    let service = Service::new(lab, &["sleep", "600"])?;
    let oci = &service.oci;
    let run = service.run()?;
    run.signal(Signal::KILL)?;
    run.end()?.ended(137);
    Ok(oci.gone()?)
}

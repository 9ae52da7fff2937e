//! The options of `lifecycle-oci checkpoint` and `restore` with a criu that works, one by one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While, program};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::apparmor::{self, Profile};
use crate::oci_criu_real::{self, ANSWERS, answered, counted, counting, counts_on, running, without};
use crate::oci_making::receive;
use crate::oci_scene::{Oci, eventually, passing};

/// All of them.
pub fn tests() -> Vec<Test> {
    let tests = lifecycle_tests::tests![
        oci_checkpoint_and_restore_shell_job_with_either_terminal,
        oci_checkpoint_and_restore_ext_unix_sk_keeps_a_socket_that_leads_out,
        oci_checkpoint_and_restore_empty_ns_leaves_the_network_to_others,
        oci_checkpoint_page_server_takes_the_memory,
        oci_checkpoint_and_restore_lazy_pages_and_status_fd,
    ];
    let confined = lifecycle_tests::tests![oci_restore_lsm_profile_confines_what_comes_back];
    let confined = confined.into_iter().map(|test| test.needs(&apparmor::needs()));
    let needs: Vec<Need> = oci_criu_real::needs().to_vec();
    tests.into_iter().chain(confined).map(|test| test.within("oci_criu_options").needs(&needs)).collect()
}

const CHECKPOINT: [&str; 3] = ["checkpoint", "--image-path", "image"];
const RESTORE: [&str; 6] = ["restore", "--bundle", "bundle", "--image-path", "image", "--detach"];

/// A verb with more options, which is to end well.
#[track_caller]
fn done(oci: &Oci, verb: &[&str], options: &[&str]) {
    oci.told(&[verb, options, &[&oci.id]].concat()).ended(0);
}

/// The container counts on from where it was.
fn goes_on(oci: &Oci, saved: usize) -> TestResult {
    counts_on(oci)?;
    let first = std::fs::read_to_string(oci.bundle.rootfs().join("tmp/counts"))?;
    let wanted: Vec<String> = (1..=first.lines().count()).map(|n| n.to_string()).collect();
    assert_eq!(first.lines().collect::<Vec<_>>(), wanted, "it has not gone on where it was");
    assert!(wanted.len() > saved);
    Ok(())
}

/// A terminal from outside lies on no mount of the container, and criu says so. One of the container's own comes back as without the option: the
/// leader of its session is in the image.
pub fn oci_checkpoint_and_restore_shell_job_with_either_terminal(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", ANSWERS])?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let own = File::options().read(true).write(true).open(name.to_str()?)?;
    let mut create = oci.command(&["create", "--bundle", "bundle", &oci.id]);
    assert!(create.stdin(own.try_clone()?).stdout(own.try_clone()?).stderr(own).status()?.success());
    drop(create);
    oci.verb("start").ended(0);
    let mut terminal = File::from(master);
    answered(&mut terminal, "first\n", "1: first at ")?;
    let refused = oci.told(&[&CHECKPOINT[..], &["--shell-job", &oci.id]].concat()).ended(1);
    refused.says(&["Can't lookup mount", &format!("path={}", name.to_str()?)]);
    answered(&mut terminal, "second\n", "2: second at ")?;
    drop(terminal);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    let listener = UnixListener::bind(lab.dir().join("console.sock"))?;
    std::fs::remove_file("/run/criu.kdat").when(|| "removing /run/criu.kdat".into())?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    oci.running(&["--console-socket", "console.sock"]);
    let mut terminal = File::from(receive(&listener)?);
    answered(&mut terminal, "first\n", "1: first at /dev/pts/0 of ")?;
    done(&oci, &CHECKPOINT, &["--shell-job"]);
    drop(terminal);
    oci.told(&[&RESTORE[..], &["--shell-job", &oci.id]].concat()).ended(1).says(&["without setting console socket"]);
    done(&oci, &RESTORE, &["--shell-job", "--console-socket", "console.sock"]);
    let mut terminal = File::from(receive(&listener)?);
    answered(&mut terminal, "second\n", "2: second at /dev/pts/0 of ")?;
    drop(terminal);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &[], &["image"])?;
    Ok(oci.scene.nothing_left()?)
}

/// It sends what it counts out of the container, and nothing else.
const SENDS: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";

pub fn oci_checkpoint_and_restore_ext_unix_sk_keeps_a_socket_that_leads_out(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", SENDS])?;
    let volume = lab.dir().join("volume");
    std::fs::create_dir(&volume)?;
    let path = volume.join("log.sock");
    // Its name is the same inside and outside, and so is its network namespace, by which criu finds who is at the other end.
    std::fs::create_dir_all(oci.bundle.rootfs().join(volume.strip_prefix("/")?))?;
    oci.bundle.edit(|config| {
        let bind = json!({ "destination": volume, "type": "bind", "source": volume, "options": ["rbind"] });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(bind);
        }
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
    })?;
    let listener = UnixDatagram::bind(&path)?;
    listener.set_read_timeout(Some(Duration::from_secs(30)))?;
    oci.scene.begins_here()?;
    let out = UnixDatagram::unbound()?;
    out.connect(&path)?;
    running(&oci, Stdio::from(OwnedFd::from(out)))?;
    let number = || -> Result<u64, Box<dyn std::error::Error>> {
        let mut buffer = [0; 32];
        let length = listener.recv(&mut buffer)?;
        Ok(std::str::from_utf8(&buffer[..length])?.trim().parse()?)
    };
    assert_eq!((number()?, number()?), (1, 2));
    oci.told(&[&CHECKPOINT[..], &[&oci.id]].concat()).ended(1).says(&["--ext-unix-sk"]);
    done(&oci, &CHECKPOINT, &["--ext-unix-sk"]);
    listener.set_nonblocking(true)?;
    let mut last = 2;
    while let Ok(next) = number() {
        assert_eq!(next, last + 1);
        last = next;
    }
    listener.set_nonblocking(false)?;
    done(&oci, &RESTORE, &["--ext-unix-sk"]);
    assert_eq!(number()?, last + 1);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &[], &["image"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_checkpoint_and_restore_empty_ns_leaves_the_network_to_others(lab: &Lab) -> TestResult {
    let mut oci = counting(lab)?;
    running(&oci, Stdio::null())?;
    counts_on(&oci)?;
    let up = |oci: &Oci| oci.inside(&["ip", "link", "show", "lo"]).contains(",UP");
    assert!(up(&oci), "the container has its loopback up");
    done(&oci, &CHECKPOINT, &["--empty-ns", "network"]);
    let saved = counted(&oci);
    // Whoever gives the network does so when the namespace is there, and empty.
    let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); exec nsenter -t $pid -n ip link add other type veth peer name peer";
    let hook = json!([{ "path": program::find("busybox"), "args": ["sh", "-c", script] }]);
    oci.edit(|config| config["hooks"]["createRuntime"] = hook)?;
    done(&oci, &RESTORE, &["--empty-ns", "network"]);
    goes_on(&oci, saved)?;
    assert!(!up(&oci), "criu has filled the network namespace");
    assert!(oci.inside(&["ip", "link"]).contains("other"), "the hook's network is not there");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &["tmp/counts"], &["image"])?;
    Ok(())
}

/// criu itself, at the other side.
fn serves(lab: &Lab, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(program::find("criu").unwrap_or_default());
    let command = command.args(arguments).current_dir(lab.dir()).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().when(|| format!("starting criu {arguments:?}"))
}

/// Somebody listens at the port.
fn listens(port: u16) -> Result<()> {
    let wanted = format!(":{port:04X} ");
    eventually("a server", || {
        let tables =
            ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default());
        Ok(tables.iter().flat_map(|table| table.lines()).any(|line| line.contains(&wanted) && line.contains(" 0A ")))
    })
}

pub fn oci_checkpoint_page_server_takes_the_memory(lab: &Lab) -> TestResult {
    let oci = counting(lab)?;
    running(&oci, Stdio::null())?;
    counts_on(&oci)?;
    let pages = lab.dir().join("pages");
    std::fs::create_dir(&pages)?;
    let mut server = serves(lab, &["page-server", "-D", "pages", "--address", "127.0.0.1", "--port", "9876"])?;
    listens(9876)?;
    done(&oci, &CHECKPOINT, &["--page-server", "127.0.0.1:9876"]);
    assert!(server.wait()?.success());
    let saved = counted(&oci);
    let image = lab.dir().join("image");
    let memory = |dir| -> Result<Vec<_>> {
        let names =
            std::fs::read_dir(dir).when(|| "listing an image".into())?.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(names.filter(|path| path.to_string_lossy().contains("/pages-")).collect())
    };
    assert!(memory(&image)?.is_empty() && !memory(&pages)?.is_empty(), "the memory is not where the server is");
    for entry in std::fs::read_dir(&pages)? {
        let path = entry?.path();
        std::fs::copy(&path, image.join(path.file_name().unwrap_or_default()))?;
    }
    done(&oci, &RESTORE, &[]);
    goes_on(&oci, saved)?;
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &["tmp/counts"], &["image", "pages"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_checkpoint_and_restore_lazy_pages_and_status_fd(lab: &Lab) -> TestResult {
    let mut oci = counting(lab)?;
    running(&oci, Stdio::null())?;
    counts_on(&oci)?;
    let saved = oci.id.clone();
    let checkpoint =
        [&CHECKPOINT[..], &["--lazy-pages", "--page-server", "127.0.0.1:9877", "--status-fd", "3", &saved]];
    let mut checkpoint = passing(lab, &checkpoint.concat(), "3>status");
    let mut checkpoint = checkpoint.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // A byte says that it is ready, and who wants the memory may come.
    eventually("the status", || Ok(std::fs::metadata(lab.dir().join("status")).is_ok_and(|status| status.len() > 0)))?;
    listens(9877)?;
    let before = counted(&oci);
    std::fs::create_dir(lab.dir().join("work"))?;
    let lazy = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", "9877", "-D", "image", "-W", "work"];
    let mut lazy = serves(lab, &lazy)?;
    eventually("the socket", || Ok(lab.dir().join("work/lazy-pages.socket").exists()))?;
    oci.id = format!("{}-c2", lab.token());
    done(&oci, &RESTORE, &["--lazy-pages", "--work-path", "work"]);
    goes_on(&oci, before)?;
    // With the last of the memory given all of them are done, and what was saved is gone.
    assert!(checkpoint.wait()?.success() && lazy.wait()?.success());
    oci.told(&["state", &saved]).ended(1).says(&["does not exist"]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &["tmp/counts"], &["image", "work"])?;
    oci.without(&["status"])?;
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_restore_lsm_profile_confines_what_comes_back(lab: &Lab) -> TestResult {
    let profiles = ["one", "two"].map(|name| Profile::named(format!("lifecycle-{}-{name}", lab.token())));
    let [one, two] = profiles;
    let (one, two) = (one?, two?);
    let mut oci = counting(lab)?;
    oci.edit(|config| config["process"]["apparmorProfile"] = json!(one.name))?;
    running(&oci, Stdio::null())?;
    counts_on(&oci)?;
    let confined_by = |oci: &Oci, profile: &Profile| -> TestResult {
        let current = std::fs::read_to_string(format!("/proc/{}/attr/apparmor/current", oci.pid()?))?;
        assert_eq!(current.trim(), format!("{} (enforce)", profile.name));
        Ok(())
    };
    confined_by(&oci, &one)?;
    done(&oci, &CHECKPOINT, &[]);
    let saved = counted(&oci);
    done(&oci, &RESTORE, &["--lsm-profile", &format!("apparmor:{}", two.name)]);
    goes_on(&oci, saved)?;
    confined_by(&oci, &two)?;
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without(&oci, &["tmp/counts"], &["image"])?;
    oci.scene.nothing_left()?;
    one.remove()?;
    Ok(two.remove()?)
}

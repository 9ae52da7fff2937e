//! What somebody on the machine who is neither the caller nor in the container can do to it: nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, lchown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};

use crate::oci_scene::{Oci, eventually};
use crate::scene::{self, NOBODY, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_bystander_reaches_nothing_of_a_container,
        a_bystander_cannot_speak_for_a_container_nor_hold_it_up,
        a_bystander_cannot_speak_for_a_container_with_users_of_its_own,
        the_state_of_an_older_build_is_taken_as_it_is,
        a_log_is_written_by_no_link_of_a_bystander,
        events_and_a_trace_are_written_by_no_link_of_a_bystander,
    ];
    tests.into_iter().map(|test| test.within("bystanders").needs(&[Root, Program("busybox")])).collect()
}

/// As somebody who owns nothing, in a thread of its own: credentials are a thread's, and so is what they open.
#[expect(clippy::disallowed_methods, reason = "nobody looks at a test")]
fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).and_then(|()| set_thread_res_gid(gid, gid, gid)).expect("his groups");
        set_thread_res_uid(uid, uid, uid).expect("his user id");
        act()
    });
    thread.join().expect("a bystander")
}

/// A service manager, and a container with or without users of its own that has been created for it.
fn created(lab: &Lab, users: bool) -> Result<(Oci<'_>, UnixDatagram, PathBuf), Box<dyn std::error::Error>> {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let address = lab.dir().join("manager.sock");
    let manager = UnixDatagram::bind(&address)?;
    manager.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    fs::create_dir_all(oci.bundle.rootfs().join("run/notify"))?;
    oci.edit(|config| {
        if users {
            with_users(config);
        }
    })?;
    scene::told(oci.command(&["create", "-b", "bundle", &oci.id]).env("NOTIFY_SOCKET", &address)).ended(0);
    Ok((oci, manager, address))
}

fn with_users(config: &mut Value) {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
}

/// Everything below the directory.
fn tree(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(tree(&entry.path())?);
        }
        all.push(entry.path());
    }
    Ok(all)
}

pub fn a_bystander_reaches_nothing_of_a_container(lab: &Lab) -> TestResult {
    for users in [false, true] {
        let (oci, ..) = created(lab, users)?;
        let root = lab.state_root();
        let all = tree(&root)?;
        for name in ["journal", "state.json", "exec.fifo", "notify"] {
            assert!(all.contains(&root.join(&oci.id).join(name)), "{name} is not there: {all:?}");
        }
        let seen = as_nobody({
            let root = root.clone();
            move || {
                let mut seen: Vec<PathBuf> =
                    all.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()).collect();
                seen.extend(fs::read_dir(&root).is_ok().then_some(root));
                seen
            }
        });
        assert_eq!(seen, Vec::<PathBuf>::new());
        for dir in [root.clone(), root.join(&oci.id)] {
            assert_eq!(fs::metadata(&dir)?.mode() & 0o7777, 0o700, "{}", dir.display());
        }
        oci.told(&["delete", "--force", &oci.id]).ended(0);
        fs::remove_file(lab.dir().join("manager.sock"))?;
        fs::remove_dir_all(lab.dir().join("bundle"))?;
    }
    Ok(())
}

/// What init would say if it could not go on.
const WORDS: &str = r#"{"failed":{"node":0,"effect":0,"error":{"what":"words of a bystander"}}}"#;

pub fn a_bystander_cannot_speak_for_a_container_nor_hold_it_up(lab: &Lab) -> TestResult {
    speaks(lab, false)
}

pub fn a_bystander_cannot_speak_for_a_container_with_users_of_its_own(lab: &Lab) -> TestResult {
    speaks(lab, true)
}

fn speaks(lab: &Lab, users: bool) -> TestResult {
    let (oci, manager, address) = created(lab, users)?;
    let fifo = lab.state_root().join(&oci.id).join("exec.fifo");
    // He waits for the reader as init does, and does not close his end.
    let writes = std::thread::spawn({
        let fifo = fifo.clone();
        move || {
            as_nobody(move || {
                let file = fs::OpenOptions::new().write(true).open(fifo)?;
                io::Write::write_all(&mut &file, format!("{WORDS}\n").as_bytes())?;
                io::Result::Ok(file)
            })
        }
    });
    let start = Started::new(oci.command(&["start", &oci.id]).env("NOTIFY_SOCKET", &address))?;
    let socket = lab.state_root().join(&oci.id).join("notify/notify.sock");
    eventually("the socket", || Ok(socket.exists()))?;
    let said = as_nobody({
        let socket = socket.clone();
        move || UnixDatagram::unbound()?.send_to(b"READY=1", socket)
    });
    // Everybody in the container can say something, whoever it is that has the state root.
    oci.told(&["exec", "--user", "1000:1000", &oci.id, "test", "-w", "/run/notify/notify.sock"]).ended(0);
    // The container itself is heard, and `start` ends for that.
    let inside = format!("/proc/{}/root/run/notify/notify.sock", oci.pid()?);
    UnixDatagram::unbound()?.send_to(b"STATUS=its own\nREADY=1", inside)?;
    let mut first = [0; 64];
    let heard = manager.recv(&mut first).map(|length| String::from_utf8_lossy(&first[..length]).into_owned());
    assert!(heard.as_ref().is_ok_and(|words| words == "STATUS=its own"), "{heard:?}, and the bystander: {said:?}");
    while manager.recv(&mut first).map(|length| &first[..length] != b"BARRIER=1")? {}
    let told = start.end()?;
    assert!(!told.err.contains("bystander"), "start tells his words: {}", told.err);
    told.ended(0);
    let refused = |error: io::Result<()>| error.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    assert!(refused(said.map(drop)), "he may write to the socket");
    assert!(refused(writes.join().expect("a bystander").map(drop)), "he may write to the FIFO");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

/// Others could look into it.
pub fn the_state_of_an_older_build_is_taken_as_it_is(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    fs::DirBuilder::new().mode(0o711).create(lab.state_root())?;
    oci.create(&[]);
    let run = lab.state_root().join(&oci.id);
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    oci.verb("start").ended(0);
    assert_eq!(oci.inside(&["echo", "well"]), "well\n");
    assert!(oci.told(&["list", "-q"]).ended(0).out.contains(&oci.id));
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    assert!(!run.exists());
    Ok(())
}

pub fn a_log_is_written_by_no_link_of_a_bystander(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["true"])?;
    let (secret, dir) = (lab.dir().join("of-root"), lab.dir().join("his"));
    fs::write(&secret, "of the host\n")?;
    fs::create_dir(&dir)?;
    symlink(&secret, dir.join("log"))?;
    lchown(dir.join("log"), Some(NOBODY), Some(NOBODY))?;
    chown(&dir, Some(NOBODY), Some(NOBODY))?;
    let state = |log: &str| oci.told(&["--log", log, "state", &oci.id]).ended(1);
    state("his/log").says(&["cannot write the log his/log"]);
    assert_eq!(fs::read_to_string(&secret)?, "of the host\n");
    // The caller's own leads where he wants, and so does /dev/stderr.
    symlink("of-root", lab.dir().join("link"))?;
    state("link");
    assert!(fs::read_to_string(&secret)?.contains("does not exist"));
    let told = state("/dev/stderr");
    assert!(!told.err.contains("cannot write the log"), "{}", told.err);
    // Nobody waits until he reads what he makes.
    let fifo = dir.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status()?.success());
    chown(&fifo, Some(NOBODY), Some(NOBODY))?;
    state("his/fifo").says(&["cannot write the log his/fifo"]);
    Ok(())
}

pub fn events_and_a_trace_are_written_by_no_link_of_a_bystander(lab: &Lab) -> TestResult {
    let scene = scene::Scene::new(lab)?;
    let dir = lab.dir().join("his");
    fs::create_dir(&dir)?;
    chown(&dir, Some(NOBODY), Some(NOBODY))?;
    for option in ["--events", "--trace"] {
        let (secret, none) = (lab.dir().join("of-root"), lab.dir().join("none"));
        fs::write(&secret, "of the host\n")?;
        for target in [&secret, &none] {
            let link = dir.join("link");
            symlink(target, &link)?;
            lchown(&link, Some(NOBODY), Some(NOBODY))?;
            scene.told(&["run", option, "his/link", "hello", "--", "true"]).ended(125).says(&["symbolic link of uid"]);
            assert_eq!(fs::read_to_string(&secret)?, "of the host\n", "{option}");
            assert!(!none.exists(), "{option} has made a file where the link leads");
            fs::remove_file(link)?;
        }
    }
    Ok(())
}

//! A container's stdin, stdout and stderr: whose they are.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While};
use rustix::fs::{CWD, FileType, Mode, fstat, mkfifoat};
use serde_json::json;

use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_pipe_of_the_callers_is_the_containers_users,
        a_pipe_of_the_callers_is_the_mapped_users_in_a_user_namespace,
        what_a_container_had_is_its_former_owners_again,
        a_file_or_a_device_of_the_host_stays_whose_it_is,
    ];
    tests.into_iter().map(|test| test.within("stdio").needs(&[Root, Program("busybox")])).collect()
}

/// What needs to open its streams once more.
const WRITES: &str = "echo out > /dev/stdout && echo err > /dev/stderr && cat /dev/stdin";

fn of_user<'a>(lab: &'a Lab, arguments: &[&str]) -> Result<Oci<'a>> {
    let mut oci = Oci::new(lab, arguments)?;
    oci.edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))?;
    Ok(oci)
}

fn fifo(path: &Path) -> Result<File> {
    mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).when(|| format!("making {}", path.display()))?;
    // Open at both ends, so that nobody waits.
    let both = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path);
    both.when(|| format!("opening {}", path.display()))
}

fn owner(path: &Path) -> Result<(u32, u32)> {
    let stat = fs::metadata(path).when(|| format!("looking at {}", path.display()))?;
    Ok((stat.uid(), stat.gid()))
}

/// All three are pipes.
fn reads(oci: &Oci, arguments: &[&str]) -> TestResult {
    let mut command = oci.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"in\n")?;
    let told = child.wait_with_output()?;
    let texts = (String::from_utf8(told.stdout)?, String::from_utf8(told.stderr)?);
    assert_eq!(texts, ("out\nin\n".into(), "err\n".into()), "{arguments:?}");
    Ok(())
}

pub fn a_pipe_of_the_callers_is_the_containers_users(lab: &Lab) -> TestResult {
    let mut oci = of_user(lab, &["sh", "-c", WRITES])?;
    reads(&oci, &["run", "--bundle", "bundle", &oci.id])?;
    // Nobody waits for it.
    let (out, path) = (lab.dir().join("out"), lab.dir().join("fifo"));
    oci.edit(|config| config["process"]["args"] = json!(["sh", "-c", "echo out > /dev/stdout; exec sleep 600"]))?;
    let pipe = fifo(&path)?;
    let mut reader = std::process::Command::new("head")
        .args(["-n1"])
        .stdin(pipe.try_clone()?)
        .stdout(File::create(&out)?)
        .spawn()?;
    let mut create = oci.command(&["create", "--bundle", "bundle", &oci.id]);
    assert!(create.stdout(pipe.try_clone()?).stderr(Stdio::null()).status()?.success());
    assert_eq!(owner(&path)?, (1000, 0), "the group stays");
    oci.verb("start").ended(0);
    reader.wait()?;
    assert_eq!(fs::read_to_string(&out)?, "out\n");
    fs::remove_file(&path)?;
    fs::remove_file(&out)?;
    drop((pipe, create));
    for user in ["1000:1000", "1001:5", "0"] {
        reads(&oci, &["exec", "--user", user, &oci.id, "sh", "-c", WRITES])?;
    }
    Ok(oci.gone()?)
}

pub fn a_pipe_of_the_callers_is_the_mapped_users_in_a_user_namespace(lab: &Lab) -> TestResult {
    let mut oci = of_user(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "user" }));
        }
    })?;
    let path = lab.dir().join("fifo");
    let pipe = fifo(&path)?;
    let with = |arguments: &[&str]| -> Result<()> {
        let mut command = oci.command(arguments);
        let ended = command.stdout(pipe.try_clone().when(|| "a pipe".into())?).status().when(|| "running".into())?;
        assert!(ended.success(), "{arguments:?}: {ended}");
        Ok(())
    };
    with(&["create", "--bundle", "bundle", &oci.id])?;
    assert_eq!(owner(&path)?, (101_000, 0));
    oci.verb("start").ended(0);
    let seen = "echo mapped > /dev/stdout";
    with(&["exec", "--user", "7:7", &oci.id, "sh", "-c", seen])?;
    let mut written = [0; 7];
    std::io::Read::read_exact(&mut &pipe, &mut written)?;
    assert_eq!(&written, b"mapped\n");
    assert_eq!(owner(&path)?, (101_000, 0));
    fs::remove_file(&path)?;
    drop(pipe);
    Ok(oci.gone()?)
}

pub fn what_a_container_had_is_its_former_owners_again(lab: &Lab) -> TestResult {
    let oci = of_user(lab, &["sleep", "600"])?;
    let path = lab.dir().join("fifo");
    let pipe = fifo(&path)?;
    std::os::unix::fs::chown(&path, Some(42), Some(43))?;
    let with = |arguments: &[&str]| -> TestResult {
        let ended = oci.command(arguments).stdout(pipe.try_clone()?).stderr(Stdio::null()).status()?;
        assert!(ended.success(), "{arguments:?}: {ended}");
        Ok(())
    };
    with(&["run", "--detach", "--bundle", "bundle", &oci.id])?;
    assert_eq!(owner(&path)?, (1000, 43));
    with(&["exec", "--user", "7", &oci.id, "true"])?;
    assert_eq!(owner(&path)?, (1000, 43), "after an exec that has ended");
    // By another process, which does not have it.
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    assert_eq!(owner(&path)?, (42, 43));
    fs::remove_file(&path)?;
    // What did not come to be, neither.
    let (own, theirs) = UnixStream::pair()?;
    let mut fails = oci.command(&["run", "--bundle", "bundle", "--pid-file", "/nosuch/pid", &oci.id]);
    assert!(!fails.stdout(OwnedFd::from(theirs.try_clone()?)).stderr(Stdio::null()).status()?.success());
    assert_eq!((fstat(&theirs)?.st_uid, fstat(&own)?.st_uid), (0, 0));
    drop((pipe, own, theirs, fails));
    Ok(oci.scene.nothing_left()?)
}

/// What the container gets must not let it change what others on the host have.
pub fn a_file_or_a_device_of_the_host_stays_whose_it_is(lab: &Lab) -> TestResult {
    let oci = of_user(lab, &["true"])?;
    let path = lab.dir().join("file");
    let file = File::create(&path)?;
    let null = || File::options().read(true).write(true).open("/dev/null");
    let before = (owner(&path)?, owner(Path::new("/dev/null"))?);
    for device in [null()?, File::options().read(true).write(true).open("/dev/ptmx")?] {
        assert_eq!(FileType::from_raw_mode(fstat(&device)?.st_mode), FileType::CharacterDevice);
        let owned = fstat(&device)?.st_uid;
        let mut command = oci.command(&["run", "--bundle", "bundle", &oci.id]);
        let ended =
            command.stdin(device.try_clone()?).stdout(file.try_clone()?).stderr(device.try_clone()?).status()?;
        assert!(ended.success(), "{ended}");
        assert_eq!(fstat(&device)?.st_uid, owned);
    }
    assert_eq!((owner(&path)?, owner(Path::new("/dev/null"))?), before);
    fs::remove_file(&path)?;
    drop(file);
    Ok(oci.scene.nothing_left()?)
}

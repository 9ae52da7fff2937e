//! The fields of config.json about namespaces, the cgroup's place, and other platforms. A test's name begins with the field's path.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While};
use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::fields::{Field, proc, tmpfs};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        #[needs(Program("unshare"))]
        linux_namespaces_type_and_path,
        #[needs(Program("unshare"))]
        linux_namespaces_path_of_a_mount_namespace,
        linux_namespaces_without_a_mount_namespace,
        linux_time_offsets_secs_and_nanosecs,
        linux_uid_mappings_and_gid_mappings,
        linux_cgroups_path,
        vm_windows_solaris_zos_and_freebsd_are_refused,
        process_command_line_is_not_interpreted,
    ];
    tests.into_iter().map(|test| test.within("fields_namespaces").needs(&[Root, Program("busybox")])).collect()
}

/// Each type but those that a container cannot do without here, and its file below /proc/PID/ns.
const TYPES: [(&str, &str); 6] =
    [("ipc", "ipc"), ("uts", "uts"), ("network", "net"), ("cgroup", "cgroup"), ("pid", "pid"), ("time", "time")];

fn link(pid: &str, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/ns/{file}");
    let link = fs::read_link(&path).when(|| format!("reading {path}"))?;
    Ok(link.display().to_string())
}

/// The container's namespaces without this type, and with these entries more.
fn namespaces(config: &mut Value, without: &str, more: &[Value]) {
    // Its own names and sysctls need namespaces of its own.
    config["hostname"] = Value::Null;
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.retain(|namespace| namespace["type"] != without);
        all.extend_from_slice(more);
    }
}

/// A process in namespaces of its own, all but the mount and user namespaces.
fn holder() -> std::result::Result<Child, Box<dyn std::error::Error>> {
    let options = ["--ipc", "--uts", "--net", "--cgroup", "--pid", "--time", "--fork", "sleep", "60"];
    let holder = Command::new("unshare").args(options).spawn()?;
    let children = format!("/proc/{0}/task/{0}/children", holder.id());
    while fs::read_to_string(&children)?.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(holder)
}

pub fn linux_namespaces_type_and_path(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let mut holder = holder()?;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id()))?;
    let held = children.trim().to_owned();
    for (kind, file) in TYPES {
        let (host, theirs) = (link("self", file)?, link(&held, file)?);
        assert_ne!(host, theirs, "{kind}");
        let path = format!("/proc/{held}/ns/{file}");
        for (entry, what) in [
            (None, "the caller's"),
            (Some(json!({ "type": kind })), "new"),
            (Some(json!({ "type": kind, "path": path })), "joined"),
        ] {
            field.config(|config| namespaces(config, kind, entry.as_slice()))?;
            field.running(|pid| {
                let seen = link(&pid.to_string(), file)?;
                let right = match what {
                    "the caller's" => seen == host,
                    "new" => seen != host && seen != theirs,
                    _ => seen == theirs,
                };
                if right {
                    Ok(())
                } else {
                    Err(Error::new(format!("{kind} {what}"), format!("{seen}, host {host}, other {theirs}")))
                }
            })?;
        }
        field.config(|config| namespaces(config, kind, &[json!({ "type": kind })]))?;
    }
    holder.kill()?;
    holder.wait()?;
    field.config(|config| namespaces(config, "ipc", &[json!({ "type": "ipc" }), json!({ "type": "ipc" })]))?;
    field.is_refused(&["linux.namespaces", "ipc"])?;
    // Before anything is touched.
    for (path, words) in [
        ("/proc/self/ns/net", "/proc/self/ns/net is a network namespace, not one of type ipc"),
        ("/etc/passwd", "/etc/passwd is not a namespace"),
        ("/proc/self/ns/absent", "/proc/self/ns/absent cannot be joined: No such file"),
    ] {
        field.config(|config| namespaces(config, "ipc", &[json!({ "type": "ipc", "path": path })]))?;
        field.cannot_be_planned(&["linux.namespaces[", "].path", words])?;
    }
    // CVE-2021-43784: one too long for whatever it might be put into.
    field.config(|config| namespaces(config, "ipc", &[json!({ "type": "ipc", "path": "/a".repeat(40_000) })]))?;
    field.cannot_be_planned(&["linux.namespaces[", "File name too long"])?;
    // Its root could mount nothing there.
    field.config(|config| namespaces(config, "mount", &[json!({ "type": "user" })]))?;
    Ok(field.cannot_be_planned(&["linux.namespaces: has a user namespace and no mount namespace"])?)
}

/// As with runc, but for the caller's own mounts, which stay as they are: the root is a mount of its own among them, all else is mounted in it, and
/// `delete` takes it away with all that is on it by then.
pub fn linux_namespaces_without_a_mount_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    fs::create_dir(host.join("later"))?;
    fs::write(lab.dir().join("of-the-host"), "")?;
    fs::write(field.bundle.rootfs().join("of-the-image"), "")?;
    field.directories(&["vol"])?;
    field.mount(json!({ "destination": "/vol", "source": host, "options": ["rbind"] }))?;
    field.config(|config| {
        namespaces(config, "mount", &[]);
        config["linux"]["maskedPaths"] = json!(["/etc/passwd"]);
    })?;
    let root = field.bundle.rootfs();
    let mounts = || fs::read_to_string("/proc/self/mountinfo");
    let before = mounts()?;
    for more in [None, Some(format!("--mask={}", lifecycle_tests::older::all()))] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        field.bundle.runs(&["sleep", "60"])?;
        field.created_with(&more, |pid| {
            assert_eq!(link(&pid.to_string(), "mnt")?, link("self", "mnt")?);
            let seen = fs::read_link(format!("/proc/{pid}/root")).when(|| "reading its root".into())?;
            assert_eq!(seen, root);
            let now = mounts().when(|| "reading the mounts".into())?;
            let (old, new): (Vec<&str>, Vec<&str>) = now.lines().partition(|line| before.contains(line));
            assert_eq!(old.len(), before.lines().count(), "a mount of the caller's has changed:\n{now}");
            for line in new {
                let at = line.split(' ').nth(4).unwrap_or_default();
                assert!(Path::new(at).starts_with(&root), "{line}");
                assert!(!line.contains(" shared:"), "{line}");
            }
            // A volume is a slave of the host's, as it is elsewhere.
            tmpfs(&host.join("later"), MsFlags::empty())?;
            let came =
                mounts().when(|| "reading the mounts".into())?.contains(&format!(" {}/vol/later ", root.display()));
            nix::mount::umount(&host.join("later")).when(|| "unmounting".into())?;
            assert!(came, "what the host mounts has not come");
            // What the container mounts on its own root goes with it.
            tmpfs(&root, MsFlags::empty())?;
            Ok(())
        })?;
        assert_eq!(mounts()?, before);
        let told = field.told_with(&[&more[..], &["--fail-at", "create/protect:after"]].concat());
        assert!(told.code != 0, "{}", told.out);
        assert_eq!(mounts()?, before, "after a failure");
        field.told_with(&[&more[..], &["--fail-at", "create/protect:crash"]].concat());
        assert_ne!(mounts()?, before, "nothing was made");
        field.scene.told(&["recover"]).ended(0);
        assert_eq!(mounts()?, before, "after a crash");
    }
    let inside = field.shell(
        "readlink /proc/self/ns/mnt; ls -d /of-the-* /vol/*; cat /etc/passwd; touch /new 2>&1 | grep -c Read-only",
    )?;
    assert_eq!(inside, format!("{}\n/of-the-image\n/vol/later\n1\n", link("self", "mnt")?));
    assert_eq!(mounts()?, before);
    field.running(|_| {
        let process = json!({ "args": ["ls", "/"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        let told = field.executes(&process)?.ended(0);
        assert!(told.out.contains("of-the-image\n"), "an exec is not in the container's root: {}", told.out);
        Ok(())
    })?;
    assert_eq!(mounts()?, before);
    field.config(|config| config["linux"]["rootfsPropagation"] = json!("rshared"))?;
    field.is_refused(&["can only be private"])?;
    nix::mount::umount(&host)?;
    Ok(())
}

/// The container is in that namespace itself and sees what is mounted there. Its root becomes that of all who are in it, as with other runtimes.
pub fn linux_namespaces_path_of_a_mount_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.directories(&["only"])?;
    let at = field.bundle.rootfs().join("only");
    let script = format!("mount -t tmpfs only {0} && echo there > {0}/file && exec sleep 60", at.display());
    let mut holder =
        Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &script]).spawn()?;
    let seen = format!("/proc/{}/root{}/file", holder.id(), at.display());
    crate::oci_scene::eventually("the other's mount", || Ok(fs::metadata(&seen).is_ok()))?;
    let namespace = link(&holder.id().to_string(), "mnt")?;
    let path = format!("/proc/{}/ns/mnt", holder.id());
    field.bundle.edit(|config| namespaces(config, "mount", &[json!({ "type": "mount", "path": path })]))?;
    let told = field.prints(&["sh", "-c", "cat /only/file; readlink /proc/self/ns/mnt"]);
    holder.kill()?;
    holder.wait()?;
    assert_eq!(told?, format!("there\n{namespace}\n"));
    Ok(())
}

pub fn linux_time_offsets_secs_and_nanosecs(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        namespaces(config, "time", &[json!({ "type": "time" })]);
        config["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": 1_000_000, "nanosecs": 7 }, "boottime": { "secs": 2_000_000 } });
    })?;
    field.running(|pid| {
        let offsets = proc(pid, "timens_offsets")?;
        let offsets: Vec<&str> = offsets.split_whitespace().collect();
        assert_eq!(offsets, ["monotonic", "1000000", "7", "boottime", "2000000", "0"]);
        Ok(())
    })?;
    let uptime = field.prints(&["cat", "/proc/uptime"])?;
    assert!(uptime.split('.').next().is_some_and(|secs| secs.parse::<u64>().is_ok_and(|n| n >= 2_000_000)), "{uptime}");
    field.config(|config| config["linux"]["timeOffsets"] = json!({ "monotonic": { "nanosecs": 1_000_000_000 } }))?;
    field.is_refused(&["linux.timeOffsets.monotonic"])?;
    field.config(|config| {
        namespaces(config, "time", &[]);
        config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 1 } });
    })?;
    Ok(field.is_refused(&["linux.timeOffsets", "time namespace"])?)
}

pub fn linux_uid_mappings_and_gid_mappings(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.user_namespace(100_000)?;
    field.config(|config| {
        config["linux"]["uidMappings"] = json!([
            { "containerID": 0, "hostID": 100_000, "size": 1000 },
            { "containerID": 5000, "hostID": 200_000, "size": 1 },
        ]);
        config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 300_000, "size": 2000 }]);
    })?;
    field.running(|pid| {
        let map =
            |name: &str| Ok::<_, Error>(proc(pid, name)?.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(map("uid_map")?, ["0", "100000", "1000", "5000", "200000", "1"]);
        assert_eq!(map("gid_map")?, ["0", "300000", "2000"]);
        let status = proc(pid, "status")?;
        assert_eq!(crate::fields::line(&status, "Uid"), "100000 100000 100000 100000");
        assert_eq!(crate::fields::line(&status, "Gid"), "300000 300000 300000 300000");
        Ok(())
    })?;
    field.config(|config| config["process"]["user"] = json!({ "uid": 5001, "gid": 0, "additionalGids": [2000] }))?;
    field.cannot_be_planned(&["process.user.uid: 5001 is no id", "process.user.additionalGids[0]: 2000 is no id"])?;
    field.config(|config| config["linux"]["uidMappings"] = json!([]))?;
    Ok(field.is_refused(&["uidMappings"])?)
}

pub fn linux_cgroups_path(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    // An absolute one is below the top of each hierarchy; `..` goes up within it.
    for path in ["deep/container", "deep/../other"] {
        field.config(|config| config["linux"]["cgroupsPath"] = json!(format!("/{}/{path}", lab.token())))?;
        let wanted = format!("/{}/{}", lab.token(), path.replace("deep/../", ""));
        field.running(|pid| {
            let cgroups = proc(pid, "cgroup")?;
            let there = cgroups.lines().filter(|line| line.ends_with(&wanted)).count();
            assert!(
                there > 0 && cgroups.lines().all(|line| line.ends_with(&wanted) || line.ends_with(":/")),
                "{cgroups}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

pub fn vm_windows_solaris_zos_and_freebsd_are_refused(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for platform in ["vm", "windows", "solaris", "zos", "freebsd"] {
        field.config(|config| config[platform] = json!({ "some": "thing" }))?;
        field.cannot_be_planned(&[platform, "take the section out"])?;
        field.config(|config| config[platform] = Value::Null)?;
    }
    Ok(())
}

/// Windows' own: they change nothing.
pub fn process_command_line_is_not_interpreted(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["commandLine"] = json!("echo by the line");
        config["process"]["user"]["username"] = json!("nobody");
    })?;
    assert_eq!(field.shell("echo by args; id -u")?, "by args\n0\n");
    Ok(())
}

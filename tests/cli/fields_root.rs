//! The fields of config.json that fill the container's root beside its mounts, each performed on a real container and read off it. A test's
//! name begins with the fields' path in the runtime-spec.

use std::fs;

use lifecycle_tests::While;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::fields::{Field, mounted, proc, tmpfs};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        mounts_type_cgroup,
        mounts_type_cgroup_in_a_user_namespace_is_read_only,
        linux_default_devices,
        linux_devices,
        linux_rootfs_propagation,
        linux_rootfs_propagation_slave_is_one_of_the_host,
        root_path_and_readonly,
        linux_masked_paths_and_readonly_paths,
    ];
    tests.into_iter().map(|test| test.within("fields_root").needs(&[Root, Program("busybox")])).collect()
}

const SELF: [&str; 2] = ["cat", "/proc/self/mountinfo"];

/// The hierarchies of the host, as far as the container is in them.
pub fn mounts_type_cgroup(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let script = "for h in /sys/fs/cgroup/*/; do test -e $h/cgroup.procs && echo $(basename $h) $(grep -c . $h/cgroup.procs); done; \
                  mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo read-only";
    let script = script.replace("$(basename $h)", "${h#/sys/fs/cgroup/}");
    // On a host with both versions the second one is not shown, as with runc; on one with that alone, it is /sys/fs/cgroup itself.
    let hierarchies = lifecycle_tests::machine::hierarchies()?;
    let mounts = hierarchies.iter().filter(|found| !found.unified).map(|found| found.mount.display().to_string());
    let mut version_1: Vec<String> = mounts.map(|mount| mount.replace("/sys/fs/cgroup/", "")).collect();
    version_1.sort_unstable();
    for own_namespace in [false, true] {
        if own_namespace {
            field.config(|config| {
                if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                    namespaces.push(json!({ "type": "cgroup" }));
                }
            })?;
        }
        let inside = field.shell(&script)?;
        assert!(inside.ends_with("read-only\n"), "{inside}");
        // Each hierarchy that the container has a cgroup in, with its own two processes, and nobody else's.
        let seen: Vec<&str> = inside.lines().filter(|line| *line != "read-only").collect();
        let mut names: Vec<&str> = seen.iter().filter_map(|line| line.split('/').next()).collect();
        names.sort_unstable();
        assert_eq!(names, version_1, "{inside}");
        for line in seen {
            let count: u32 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            assert!((1..=3).contains(&count), "own namespace: {own_namespace}: {line}");
        }
    }
    Ok(())
}

/// CVE-2023-25809: bound into a user namespace, the caller's own cgroups would be the container's to change, whatever the config asks for.
pub fn mounts_type_cgroup_in_a_user_namespace_is_read_only(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.user_namespace(100_000)?;
    field.config(|config| {
        for mount in config["mounts"].as_array_mut().into_iter().flatten().filter(|mount| mount["type"] == "cgroup") {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    })?;
    let inside = field.shell("cat /proc/self/mountinfo")?;
    let cgroups: Vec<&str> = inside.lines().filter(|line| line.contains(" - cgroup")).collect();
    assert!(!cgroups.is_empty(), "{inside}");
    for line in cgroups {
        assert!(line.split(' ').nth(5).is_some_and(|options| options.split(',').any(|o| o == "ro")), "{line}");
    }
    Ok(())
}

/// config-linux.md, "Default Devices"; runtime-linux.md, "Dev symbolic links".
pub fn linux_default_devices(lab: &Lab) -> TestResult {
    let field = Field::new(lab)?;
    let devices = "null zero full random urandom tty";
    let script = format!(
        "cd /dev; stat -c '%n %F %t:%T %a' {devices}; for l in ptmx fd stdin stdout stderr; do echo $l $(readlink $l); done; \
         echo gone > /dev/null; head -c 3 /dev/zero | wc -c; stat -c '%n %F' pts/ptmx"
    );
    let inside = field.shell(&script)?;
    let expected = [
        "null character special file 1:3 666",
        "zero character special file 1:5 666",
        "full character special file 1:7 666",
        "random character special file 1:8 666",
        "urandom character special file 1:9 666",
        "tty character special file 5:0 666",
        "ptmx pts/ptmx",
        "fd /proc/self/fd",
        "stdin /proc/self/fd/0",
        "stdout /proc/self/fd/1",
        "stderr /proc/self/fd/2",
        "3",
        "pts/ptmx character special file",
    ];
    assert_eq!(inside.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

pub fn linux_devices(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/deep/loop7", "type": "b", "major": 7, "minor": 7 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 },
        ]);
    })?;
    let inside = field.shell("cd /dev; stat -c '%n %F %t:%T %a %u:%g' fuse deep/loop7 pipe")?;
    let expected = [
        "fuse character special file a:e5 640 7:8",
        "deep/loop7 block special file 7:7 666 0:0",
        "pipe fifo 0:0 600 0:0",
    ];
    assert_eq!(inside.lines().collect::<Vec<_>>(), expected);
    field.config(|config| config["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "c" }]))?;
    Ok(field.is_refused(&["linux.devices[0].major"])?)
}

pub fn linux_rootfs_propagation(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    field.directories(&["mnt"])?;
    field.mount(json!({ "destination": "/mnt", "source": host, "options": ["bind"] }))?;
    for (asked, root, volume) in [
        (Value::Null, None, Some("master")),
        (json!("private"), None, None),
        (json!("rprivate"), None, None),
        (json!("slave"), Some("master"), Some("master")),
        (json!("rslave"), Some("master"), Some("master")),
        (json!("shared"), Some("shared"), Some("shared")),
        (json!("rshared"), Some("shared"), Some("shared")),
        (json!("unbindable"), Some("unbindable"), None),
    ] {
        field.config(|config| config["linux"]["rootfsPropagation"] = asked.clone())?;
        let told = field.prints(&SELF);
        let inside = told.map_err(|error| format!("{asked}: {error}"))?;
        let kind = |path: &str| {
            mounted(&inside, path)
                .propagation
                .first()
                .map(|field| field.split(':').next().unwrap_or_default().to_owned())
        };
        assert_eq!(kind("/").as_deref(), root, "root with {asked}:\n{inside}");
        assert_eq!(kind("/mnt").as_deref(), volume, "a volume with {asked}:\n{inside}");
    }
    Ok(())
}

/// What the host mounts below the root, or takes away there, is so in the container, and nothing comes back. Also where a user namespace locks what
/// comes from the host.
pub fn linux_rootfs_propagation_slave_is_one_of_the_host(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.directories(&["later"])?;
    let later = field.bundle.rootfs().join("later");
    for (asked, users) in [("slave", false), ("rslave", false), ("rslave", true)] {
        field.config(|config| config["linux"]["rootfsPropagation"] = json!(asked))?;
        if users {
            field.user_namespace(100_000)?;
        }
        for more in [None, Some(format!("--mask={}", lifecycle_tests::older::all()))] {
            field.created_with(&more.iter().map(String::as_str).collect::<Vec<_>>(), |pid| {
                let seen = || Ok::<_, lifecycle_tests::Error>(proc(pid, "mountinfo")?.contains(" /later "));
                assert!(!seen()?);
                tmpfs(&later, MsFlags::empty())?;
                assert!(seen()?, "{asked}, users: {users}: the host's mount has not come");
                nix::mount::umount(&later).when(|| "unmounting".into())?;
                assert!(!seen()?, "{asked}, users: {users}: the host's mount has not gone");
                Ok(())
            })?;
        }
    }
    Ok(())
}

pub fn root_path_and_readonly(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for readonly in [true, false] {
        field.config(|config| config["root"] = json!({ "path": "rootfs", "readonly": readonly }))?;
        let inside = field.shell("touch /made 2>/dev/null && echo written; cat /proc/self/mountinfo")?;
        assert_eq!(mounted(&inside, "/").has("ro"), readonly, "{inside}");
        assert_eq!(inside.starts_with("written\n"), !readonly, "{inside}");
        assert_eq!(field.bundle.rootfs().join("made").exists(), !readonly);
        // Mounts in it stay as they are.
        assert!(mounted(&inside, "/dev/shm").has("rw"));
    }
    let elsewhere = lab.dir().join("elsewhere");
    fs::rename(field.bundle.rootfs(), &elsewhere)?;
    fs::write(elsewhere.join("etc/where"), "elsewhere\n")?;
    field.config(|config| config["root"]["path"] = json!(elsewhere))?;
    assert_eq!(field.prints(&["cat", "/etc/where"])?, "elsewhere\n");
    // What is none is told before anything is touched.
    for (path, why) in [(elsewhere.join("etc/where"), "is not a directory"), ("rootfs".into(), "No such file")] {
        field.config(|config| config["root"]["path"] = json!(path))?;
        field.cannot_be_planned(&["config.json:", "root.path: ", why])?;
    }
    Ok(())
}

pub fn linux_masked_paths_and_readonly_paths(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.directories(&["secret", "fixed/sub"])?;
    fs::write(field.bundle.rootfs().join("secret/key"), "key\n")?;
    fs::write(field.bundle.rootfs().join("etc/key"), "key\n")?;
    field.config(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["maskedPaths"] = json!(["/secret", "/etc/key", "/not/there"]);
        config["linux"]["readonlyPaths"] = json!(["/fixed", "/proc/sys", "/not/there"]);
    })?;
    let inside = field.shell(
        "ls /secret; cat /etc/key; (echo x > /secret/y) 2>/dev/null || echo masked; (echo x > /fixed/sub/y) 2>/dev/null || echo fixed; \
         (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo no sysctl; echo x > /etc/other && echo written; \
         cat /proc/self/mountinfo",
    )?;
    let lines: Vec<&str> = inside.lines().take(4).collect();
    assert_eq!(lines, ["masked", "fixed", "no sysctl", "written"], "{inside}");
    assert!(mounted(&inside, "/proc/sys").has("ro") && mounted(&inside, "/fixed").has("ro"));
    assert!(!field.bundle.rootfs().join("fixed/sub/y").exists());
    Ok(())
}

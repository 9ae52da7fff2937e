//! The fields of config.json that make what the container sees as files, each performed on a real container and read off its mounts. A test's
//! name begins with the fields' path in the runtime-spec.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::fields::{Field, mounted, proc};

/// Mounts a tmpfs on the host's side.
fn tmpfs(at: &Path, flags: MsFlags) -> Result<()> {
    let none: Option<&str> = None;
    fs::create_dir_all(at).when(|| format!("making {}", at.display()))?;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, none).when(|| format!("mounting {}", at.display()))
}

const SELF: [&str; 2] = ["cat", "/proc/self/mountinfo"];

/// Attributes as options write them, and as mountinfo shows them.
const ATTRIBUTES: [(&str, &str); 8] = [
    ("ro", "ro"),
    ("nosuid", "nosuid"),
    ("nodev", "nodev"),
    ("noexec", "noexec"),
    ("noatime", "noatime"),
    ("nodiratime", "nodiratime"),
    ("relatime", "relatime"),
    ("nosymfollow", "nosymfollow"),
];

pub fn mounts_options_attributes(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    for (option, _) in ATTRIBUTES {
        let (fresh, bound) = (format!("/mnt/{option}"), format!("/mnt/bound-{option}"));
        field.directories(&[&fresh[1..], &bound[1..]])?;
        field.mount(json!({ "destination": fresh, "type": "tmpfs", "options": [option] }))?;
        field.mount(json!({ "destination": bound, "source": host, "options": ["bind", option] }))?;
    }
    field.directories(&["mnt/strictatime"])?;
    field
        .mount(json!({ "destination": "/mnt/strictatime", "type": "tmpfs", "options": ["noatime", "strictatime"] }))?;
    let inside = field.prints(&SELF)?;
    for (option, shown) in ATTRIBUTES {
        for place in ["", "bound-"] {
            let found = mounted(&inside, &format!("/mnt/{place}{option}"));
            assert!(found.has(shown), "{place}{option}: {found:?}");
            for (_, other) in ATTRIBUTES.iter().filter(|(other, _)| *other != option && *other != "relatime") {
                assert!(!found.has(other), "{place}{option} has {other}: {found:?}");
            }
        }
    }
    let strict = mounted(&inside, "/mnt/strictatime");
    assert!(!strict.has("noatime") && !strict.has("relatime"), "{strict:?}");
    Ok(())
}

/// What the host's mount has, taken away.
pub fn mounts_options_attributes_cleared(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    let all = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME;
    tmpfs(&host, MsFlags::empty())?;
    let none: Option<&str> = None;
    mount(none, &host, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | all, none)?;
    field.directories(&["mnt/kept"])?;
    field.mount(json!({ "destination": "/mnt/kept", "source": host, "options": ["bind"] }))?;
    for (option, gone) in [
        ("rw", "ro"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("norelatime", "noatime"),
        ("nostrictatime", "noatime"),
    ] {
        let at = format!("mnt/{option}");
        field.directories(&[&at])?;
        field.mount(json!({ "destination": format!("/{at}"), "source": host, "options": ["bind", option] }))?;
        let inside = field.prints(&SELF)?;
        assert!(mounted(&inside, "/mnt/kept").has(gone));
        assert!(!mounted(&inside, &format!("/{at}")).has(gone), "{option}:\n{inside}");
    }
    Ok(())
}

pub fn mounts_options_recursive_attributes(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    let kept = field.bundle.rootfs();
    assert!(kept.is_dir());
    let before = 7;
    for (option, shown) in ATTRIBUTES {
        field.directories(&["mnt/all", "mnt/top"])?;
        field.mounts_are(before)?;
        field
            .mount(json!({ "destination": "/mnt/all", "source": host, "options": ["rbind", format!("r{option}")] }))?;
        field.mount(json!({ "destination": "/mnt/top", "source": host, "options": ["rbind", option] }))?;
        let inside = field.prints(&SELF)?;
        for place in ["/mnt/all", "/mnt/all/below", "/mnt/top"] {
            assert!(mounted(&inside, place).has(shown), "r{option} on {place}:\n{inside}");
        }
        assert!(
            option == "relatime" || !mounted(&inside, "/mnt/top/below").has(shown),
            "{option} went below:\n{inside}"
        );
    }
    Ok(())
}

pub fn mounts_options_recursive_attributes_cleared(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    let none: Option<&str> = None;
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    let all = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME;
    for place in [host.join("below"), host.clone()] {
        mount(none, &place, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | all, none)?;
    }
    field.directories(&["mnt/all"])?;
    for (option, gone) in [
        ("rrw", "ro"),
        ("rsuid", "nosuid"),
        ("rdev", "nodev"),
        ("rexec", "noexec"),
        ("ratime", "noatime"),
        ("rdiratime", "nodiratime"),
        ("rnorelatime", "noatime"),
        ("rnostrictatime", "noatime"),
        ("rstrictatime", "noatime"),
        ("rsymfollow", "nosymfollow"),
    ] {
        field.mounts_are(7)?;
        field.mount(json!({ "destination": "/mnt/all", "source": host, "options": ["rbind", option] }))?;
        let inside = field.prints(&SELF)?;
        for place in ["/mnt/all", "/mnt/all/below"] {
            assert!(!mounted(&inside, place).has(gone), "{option} on {place}:\n{inside}");
        }
        if option == "rstrictatime" {
            assert!(!mounted(&inside, "/mnt/all/below").has("relatime"), "{inside}");
        }
    }
    Ok(())
}

/// What belongs to the file system; and what asks for nothing.
pub fn mounts_options_of_the_file_system(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (name, options, shown) in [
        ("sync", json!(["sync"]), "sync"),
        ("dirsync", json!(["dirsync"]), "dirsync"),
        ("lazytime", json!(["lazytime"]), "lazytime"),
        ("size", json!(["size=64k", "mode=0711"]), "size=64k"),
        ("iversion", json!(["iversion", "size=68k"]), "size=68k"),
        (
            "usual",
            json!(["defaults", "async", "loud", "silent", "nomand", "nolazytime", "noiversion", "size=72k"]),
            "size=72k",
        ),
    ] {
        let at = format!("mnt/{name}");
        field.directories(&[&at])?;
        field.mount(json!({ "destination": format!("/{at}"), "type": "tmpfs", "options": options }))?;
        let inside = field.prints(&SELF)?;
        let found = mounted(&inside, &format!("/{at}"));
        assert!(found.options.iter().any(|option| option == shown), "{name}: {found:?}");
    }
    assert_eq!(field.prints(&["stat", "-c", "%a", "/mnt/size"])?, "711\n");
    let host = field.host("host")?;
    for (options, words) in [
        (json!(["bind", "sync"]), "`sync` is an option of a file system"),
        (json!(["rbind", "size=1m"]), "`size=1m` is an option of a file system"),
        (json!(["bind", "mand"]), "`mand` cannot be had"),
    ] {
        field.mounts_are(7)?;
        field.mount(json!({ "destination": "/mnt", "source": host, "options": options }))?;
        field.is_refused(&[words])?;
    }
    Ok(())
}

pub fn mounts_options_propagation(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    // In the lab everything is shared.
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    fs::create_dir(host.join("later"))?;
    let kinds = ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"];
    for kind in kinds {
        let at = format!("mnt/{kind}");
        field.directories(&[&at])?;
        field.mount(json!({ "destination": format!("/{at}"), "source": host, "options": ["rbind", kind] }))?;
    }
    field.running(|pid| {
        let inside = proc(pid, "mountinfo")?;
        for kind in kinds {
            let shown = |place: &str| {
                let found = mounted(&inside, &format!("/mnt/{kind}{place}"));
                found
                    .propagation
                    .iter()
                    .map(|field| field.split(':').next().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            };
            let (plain, recursive) = (kind.trim_start_matches('r'), kind.starts_with('r'));
            // As slaves of the host's they are when they are bound.
            let expected: &[&str] = match plain {
                "shared" => &["shared", "master"],
                "slave" => &["master"],
                "private" => &[],
                _ => &["unbindable"],
            };
            assert_eq!(shown(""), expected, "{kind}:\n{inside}");
            let below: &[&str] = if recursive { expected } else { &["master"] };
            assert_eq!(shown("/below"), below, "{kind} below:\n{inside}");
        }
        // What the host mounts now comes to the slaves alone.
        tmpfs(&host.join("later"), MsFlags::empty())?;
        let inside = proc(pid, "mountinfo")?;
        let came = |kind: &str| inside.contains(&format!(" /mnt/{kind}/later "));
        nix::mount::umount(&host.join("later")).when(|| "unmounting".into())?;
        assert_eq!(kinds.map(came), [true, true, true, true, false, false, false, false], "{inside}");
        Ok(())
    })?;
    Ok(())
}

pub fn mounts_bind_and_rbind(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    fs::write(host.join("below/file"), "below\n")?;
    fs::write(host.join("file"), "of the host\n")?;
    field.directories(&["mnt/one", "mnt/all", "mnt/relative"])?;
    field.mount(json!({ "destination": "/mnt/one", "type": "bind", "source": host }))?;
    field.mount(json!({ "destination": "/mnt/all", "type": "none", "source": host, "options": ["rbind"] }))?;
    // Relative to the bundle.
    field.mount(json!({ "destination": "/mnt/relative", "source": "../host/below", "options": ["bind"] }))?;
    let inside = field.shell(
        "ls /mnt/one/below; cat /mnt/one/file /mnt/all/below/file /mnt/relative/file; echo changed > /mnt/one/file",
    )?;
    assert_eq!(inside, "of the host\nbelow\nbelow\n");
    assert_eq!(fs::read_to_string(host.join("file"))?, "changed\n");
    Ok(())
}

/// A file on a file; what is missing in the root is made, and stays.
pub fn mounts_destination_of_a_file_and_missing(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = field.host("host")?;
    fs::write(host.join("resolv.conf"), "nameserver 192.0.2.1\n")?;
    field.mount(
        json!({ "destination": "/etc/passwd", "source": host.join("resolv.conf"), "options": ["bind", "ro"] }),
    )?;
    field
        .mount(json!({ "destination": "/deep/below/file", "source": host.join("resolv.conf"), "options": ["bind"] }))?;
    field.mount(json!({ "destination": "/deep/dir", "type": "tmpfs", "options": ["size=64k"] }))?;
    // "Relative" ones are read from /, as every runtime does.
    field.mount(json!({ "destination": "deep/relative", "type": "tmpfs", "options": ["size=68k"] }))?;
    let before = fs::read_to_string(field.bundle.rootfs().join("etc/passwd"))?;
    let inside = field.shell(
        "cat /etc/passwd /deep/below/file; cat /proc/self/mountinfo; echo x 2>/dev/null > /etc/passwd || true",
    )?;
    assert!(inside.starts_with("nameserver 192.0.2.1\nnameserver 192.0.2.1\n"), "{inside}");
    assert!(mounted(&inside, "/etc/passwd").has("ro"));
    assert!(mounted(&inside, "/deep/relative").options.contains(&"size=68k".to_owned()));
    let root = field.bundle.rootfs();
    assert_eq!(fs::read_to_string(root.join("etc/passwd"))?, before);
    assert_eq!(fs::metadata(root.join("deep/below/file"))?.len(), 0);
    assert!(fs::metadata(root.join("deep/dir"))?.is_dir());
    Ok(())
}

pub fn mounts_options_tmpcopyup(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let data = field.bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub"))?;
    fs::write(data.join("sub/file"), "of the image\n")?;
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o644))?;
    chown(data.join("sub/file"), Some(12), Some(34))?;
    field.mount(json!({ "destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "ro"] }))?;
    let inside = field.shell("cat /data/sub/file; stat -c '%a %u %g' /data/sub/file; cat /proc/self/mountinfo")?;
    assert!(inside.starts_with("of the image\n644 12 34\n"), "{inside}");
    assert!(mounted(&inside, "/data").has("ro"));
    field.mounts_are(7)?;
    field.mount(json!({ "destination": "/data", "type": "tmpfs", "options": ["tmpcopyup"] }))?;
    field.shell("echo changed > /data/sub/file")?;
    assert_eq!(fs::read_to_string(data.join("sub/file"))?, "of the image\n");
    Ok(())
}

/// Without a user namespace: the mount shows other owners than the files have.
pub fn mounts_uid_mappings_and_gid_mappings(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    for file in ["file", "below/file"] {
        fs::write(host.join(file), "")?;
        chown(host.join(file), Some(1), Some(2))?;
    }
    field.directories(&["mnt/one", "mnt/all", "mnt/implied"])?;
    let map = |first: u32| json!([{ "containerID": 0, "hostID": first, "size": 100 }]);
    for (at, options) in
        [("one", json!(["rbind", "idmap"])), ("all", json!(["rbind", "ridmap"])), ("implied", json!(["rbind"]))]
    {
        field.mount(json!({ "destination": format!("/mnt/{at}"), "source": host, "options": options,
                            "uidMappings": map(1000), "gidMappings": map(2000) }))?;
    }
    let inside =
        field.shell("cd /mnt; stat -c '%u:%g' one/file one/below/file all/file all/below/file implied/file")?;
    assert_eq!(inside.lines().collect::<Vec<_>>(), ["1001:2002", "1:2", "1001:2002", "1001:2002", "1001:2002"]);
    // What an id of the mount's makes belongs to the file system's on the host.
    fs::set_permissions(&host, fs::Permissions::from_mode(0o777))?;
    field.config(|config| config["process"]["user"] = json!({ "uid": 1005, "gid": 2006 }))?;
    field.shell("touch /mnt/all/made")?;
    let made = fs::metadata(host.join("made"))?;
    assert_eq!((made.uid(), made.gid()), (5, 6));
    for (mappings, words) in [
        (json!({ "options": ["bind", "idmap"] }), "idmap needs uidMappings and gidMappings"),
        (json!({ "options": ["bind", "idmap"], "uidMappings": map(1) }), "must be given together"),
    ] {
        field.mounts_are(7)?;
        let mut mount = json!({ "destination": "/mnt", "source": host });
        for (name, value) in mappings.as_object().into_iter().flatten() {
            mount[name] = value.clone();
        }
        field.mount(mount)?;
        field.is_refused(&[words])?;
    }
    Ok(())
}

/// In a user namespace init may not map ids of the host's file systems: the host's side does.
pub fn mounts_options_idmap_in_a_user_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    for file in ["file", "below/file"] {
        fs::write(host.join(file), "")?;
        chown(host.join(file), Some(3), Some(4))?;
    }
    field.user_namespace(100_000)?;
    field.directories(&["mnt/own", "mnt/all", "mnt/plain", "mnt/other"])?;
    let other = json!([{ "containerID": 0, "hostID": 100_010, "size": 100 }]);
    for (at, options) in
        [("own", json!(["rbind", "idmap"])), ("all", json!(["rbind", "ridmap"])), ("plain", json!(["rbind"]))]
    {
        field.mount(json!({ "destination": format!("/mnt/{at}"), "source": host, "options": options }))?;
    }
    field.mount(json!({ "destination": "/mnt/other", "source": host, "options": ["bind", "idmap", "ro"],
                        "uidMappings": other, "gidMappings": other }))?;
    let inside = field.shell(
        "cd /mnt; stat -c '%u:%g' own/file own/below/file all/below/file plain/file other/file; cat /proc/self/mountinfo",
    )?;
    let seen: Vec<&str> = inside.lines().take(5).collect();
    assert_eq!(seen, ["3:4", "65534:65534", "3:4", "65534:65534", "13:14"], "{inside}");
    assert!(mounted(&inside, "/mnt/other").has("ro"));
    // What root there makes is root's on the host.
    field.shell("touch /mnt/own/made")?;
    let made = fs::metadata(host.join("made"))?;
    assert_eq!((made.uid(), made.gid()), (0, 0));
    Ok(())
}

/// A directory that only the host's root may enter.
pub fn mounts_source_closed_to_a_user_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = field.host("closed")?;
    fs::create_dir(host.join("volume"))?;
    fs::write(host.join("volume/file"), "for the container\n")?;
    fs::set_permissions(&host, fs::Permissions::from_mode(0o700))?;
    field.user_namespace(100_000)?;
    field.directories(&["mnt"])?;
    field
        .mount(json!({ "destination": "/mnt", "source": host.join("volume"), "options": ["rbind", "ro", "nosuid"] }))?;
    let inside = field.shell("cat /mnt/file /proc/self/mountinfo; cat /proc/self/uid_map")?;
    assert!(inside.starts_with("for the container\n"), "{inside}");
    let found = mounted(&inside, "/mnt");
    assert!(found.has("ro") && found.has("nosuid"), "{found:?}");
    // The host's own mounts are no peers of a user namespace's.
    assert!(found.propagation.iter().all(|field| !field.starts_with("shared")), "{found:?}");
    Ok(())
}

pub fn mounts_options_remount(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = field.host("host")?;
    field.directories(&["mnt/data", "mnt/host"])?;
    field.mount(json!({ "destination": "/mnt/data", "type": "tmpfs", "options": ["size=64k"] }))?;
    field.mount(json!({ "destination": "/mnt/host", "source": host, "options": ["bind"] }))?;
    field.mount(json!({ "destination": "/mnt/data", "options": ["remount", "ro", "noexec", "size=128k"] }))?;
    field.mount(json!({ "destination": "/mnt/host", "options": ["bind", "remount", "ro", "nodev"] }))?;
    let inside = field.prints(&SELF)?;
    let (data, bound) = (mounted(&inside, "/mnt/data"), mounted(&inside, "/mnt/host"));
    assert!(data.has("ro") && data.has("noexec") && data.options.contains(&"size=128k".to_owned()), "{data:?}");
    assert!(bound.has("ro") && bound.has("nodev"), "{bound:?}");
    field.mounts_are(7)?;
    field.mount(json!({ "destination": "/mnt", "options": ["remount", "ro"] }))?;
    Ok(field.is_refused(&["mounts.7.options", "there is none to change"])?)
}

/// The hierarchies of the host, as far as the container is in them.
pub fn mounts_type_cgroup(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let script = "for h in /sys/fs/cgroup/*/; do test -e $h/cgroup.procs && echo $(basename $h) $(grep -c . $h/cgroup.procs); done; \
                  mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo read-only";
    let script = script.replace("$(basename $h)", "${h#/sys/fs/cgroup/}");
    let host: Vec<String> =
        lifecycle_tests::machine::hierarchies()?.iter().map(|found| found.mount.display().to_string()).collect();
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
        // One line for each hierarchy that hangs below /sys/fs/cgroup, with the container's own two processes, and nobody else's.
        let seen: Vec<&str> = inside.lines().filter(|line| *line != "read-only").collect();
        let below = host.iter().filter(|mount| mount.starts_with("/sys/fs/cgroup/")).count();
        let named: std::collections::BTreeSet<&str> = seen.iter().filter_map(|line| line.split('/').next()).collect();
        assert!(named.len() >= below, "{host:?}\n{inside}");
        for line in seen {
            let count: u32 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            assert!((1..=3).contains(&count), "own namespace: {own_namespace}: {line}");
        }
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
        (json!("slave"), None, Some("master")),
        (json!("rslave"), None, Some("master")),
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

//! The fields of config.json that make what the container sees as files, each performed on a real container and read off its mounts. A test's
//! name begins with the fields' path in the runtime-spec.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lifecycle_tests::While;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::fields::{Field, mounted, proc, tmpfs};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        mounts_options_attributes,
        mounts_options_attributes_cleared,
        mounts_options_recursive_attributes,
        mounts_options_recursive_attributes_cleared,
        mounts_options_of_the_file_system,
        mounts_options_propagation,
        mounts_options_propagation_in_a_user_namespace,
        mounts_bind_and_rbind,
        mounts_destination_of_a_file_and_missing,
        mounts_options_tmpcopyup,
        mounts_uid_mappings_and_gid_mappings,
        mounts_options_idmap_in_a_user_namespace,
        #[needs(Program("unshare"))]
        mounts_options_idmap_in_a_joined_user_namespace,
        mounts_source_closed_to_a_user_namespace,
        mounts_options_remount,
    ];
    tests.into_iter().map(|test| test.within("fields_mounts").needs(&[Root, Program("busybox")])).collect()
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

/// What is locked for a user namespace is a slave of the host's all the same, where that is asked for or nothing is said.
pub fn mounts_options_propagation_in_a_user_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    fs::create_dir(host.join("later"))?;
    field.user_namespace(100_000)?;
    let kinds = [
        ("none", &["rbind"][..]),
        ("slave", &["rbind", "slave"]),
        ("rslave", &["rbind", "rslave", "ro"]),
        ("private", &["rbind", "private"]),
    ];
    for (kind, options) in kinds {
        let at = format!("mnt/{kind}");
        field.directories(&[&at])?;
        field.mount(json!({ "destination": format!("/{at}"), "source": host, "options": options }))?;
    }
    for more in [None, Some(format!("--mask={}", lifecycle_tests::older::all()))] {
        field.created_with(&more.iter().map(String::as_str).collect::<Vec<_>>(), |pid| {
            tmpfs(&host.join("later"), MsFlags::empty())?;
            let inside = proc(pid, "mountinfo")?;
            nix::mount::umount(&host.join("later")).when(|| "unmounting".into())?;
            let came = |(kind, _): (&str, _)| inside.contains(&format!(" /mnt/{kind}/later "));
            assert_eq!(kinds.map(came), [true, true, true, false], "{more:?}:\n{inside}");
            Ok(())
        })?;
    }
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
    // What is not there is told before anything is touched.
    field.mount(json!({ "destination": "/mnt/absent", "type": "bind", "source": "../absent" }))?;
    field.cannot_be_planned(&["].source: ", "../absent cannot be bound: No such file"])?;
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
    assert_eq!(field.shell("echo new > /data/new; cat /data/new")?, "new\n");
    assert!(!data.join("new").exists(), "it was written into the image");
    Ok(())
}

/// A file system of the host and one below it, each with a file of this owner.
fn owned_by(lab: &Lab, uid: u32, gid: u32) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    tmpfs(&host.join("below"), MsFlags::empty())?;
    for file in ["file", "below/file"] {
        fs::write(host.join(file), "")?;
        chown(host.join(file), Some(uid), Some(gid))?;
    }
    Ok(host)
}

/// Without a user namespace: the mount shows other owners than the files have.
pub fn mounts_uid_mappings_and_gid_mappings(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let host = owned_by(lab, 1, 2)?;
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
    let host = owned_by(lab, 3, 4)?;
    field.user_namespace(100_000)?;
    field.directories(&["mnt/own", "mnt/all", "mnt/plain", "mnt/other"])?;
    let other = json!([{ "containerID": 0, "hostID": 100_010, "size": 100 }]);
    for (at, options) in
        [("own", json!(["rbind", "idmap"])), ("all", json!(["rbind", "ridmap"])), ("plain", json!(["rbind"]))]
    {
        field.mount(json!({ "destination": format!("/mnt/{at}"), "source": host, "options": options }))?;
    }
    field.mount(json!({ "destination": "/mnt/other", "source": host, "options": ["rbind", "idmap", "ro"],
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

/// The ids of one that is there already.
pub fn mounts_options_idmap_in_a_joined_user_namespace(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let mut holder = Command::new("unshare").args(["--user", "sleep", "60"]).spawn()?;
    let user = format!("/proc/{}/ns/user", holder.id());
    let own = fs::read_link("/proc/self/ns/user")?;
    while fs::read_link(&user)? == own {
        std::thread::sleep(Duration::from_millis(1));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.id()), "0 100000 65536\n")?;
    }
    let host = lab.dir().join("host");
    tmpfs(&host, MsFlags::empty())?;
    fs::write(host.join("file"), "")?;
    chown(host.join("file"), Some(3), Some(4))?;
    fs::set_permissions(&host, fs::Permissions::from_mode(0o700))?;
    field.directories(&["mnt"])?;
    field.config(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "user", "path": user }));
        }
    })?;
    field.mount(json!({ "destination": "/mnt", "source": host, "options": ["bind", "idmap"] }))?;
    let inside = field.shell("stat -c '%u:%g' /mnt/file; cat /proc/self/uid_map");
    holder.kill()?;
    holder.wait()?;
    let inside = inside?;
    assert_eq!(inside.split_whitespace().collect::<Vec<_>>(), ["3:4", "0", "100000", "65536"]);
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

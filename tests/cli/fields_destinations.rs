//! Where the fields of config.json make something in the root, and in which order: by way of symlinks, over what is there, and after one another. A
//! test's name begins with the field's path in the runtime-spec.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::older;
use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::fields::{Field, mounted, tmpfs};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        mounts_destination_on_and_through_dangling_symlinks,
        linux_devices_on_and_through_dangling_symlinks,
        process_cwd_through_a_dangling_symlink,
        mounts_type_tmpfs_has_the_mode_of_the_directory_below,
        mounts_source_proc_of_the_host,
        mounts_options_ro_of_what_is_filled_comes_last,
        mounts_source_that_a_mount_before_makes,
        mounts_destination_of_another_kind_is_told,
        mounts_options_remount_keeps_nosymfollow,
    ];
    tests.into_iter().map(|test| test.within("fields_destinations").needs(&[Root, Program("busybox")])).collect()
}

/// Symlinks in the root that lead to nothing.
fn links(root: &Path, links: &[(&str, &str)]) -> std::io::Result<()> {
    links.iter().try_for_each(|(name, target)| {
        let path = root.join(name);
        let _ = fs::remove_file(&path);
        symlink(target, &path)
    })
}

#[track_caller]
fn stay(root: &Path, links: &[(&str, &str)]) {
    for (name, target) in links {
        let found = fs::read_link(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, Path::new(target), "the image's symlink {name} was changed");
    }
}

fn names(dir: &Path) -> std::io::Result<BTreeSet<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// By the newer calls and by the older ones.
fn both_ways() -> [Vec<String>; 2] {
    [Vec::new(), vec![format!("--mask={}", older::all())]]
}

fn prints(field: &Field, mask: &[String], script: &str) -> lifecycle_tests::Result<String> {
    field.bundle.runs(&["sh", "-c", script])?;
    Ok(field.told_with(&mask.iter().map(String::as_str).collect::<Vec<_>>()).ended(0).out)
}

/// Relative with `..`, absolute, over the root's edge, a chain, one on the way: what they lead to is made in the root, and they stay.
const DANGLING: &[(&str, &str)] = &[
    ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
    ("data", "real/data"),
    ("cache", "/real/cache"),
    ("chain", "hop"),
    ("hop", "absent/../deep/end"),
    ("up", "../../../top"),
];

pub fn mounts_destination_on_and_through_dangling_symlinks(lab: &Lab) -> TestResult {
    for mask in both_ways() {
        let mut field = Field::new(lab)?;
        let root = field.bundle.rootfs();
        links(&root, DANGLING)?;
        let host = field.host("host")?;
        fs::write(host.join("file"), "of the host\n")?;
        for (at, source) in
            [("/etc/resolv.conf", host.join("file")), ("/chain", host.join("file")), ("/data", host.clone())]
        {
            field.mount(json!({ "destination": at, "source": source, "options": ["rbind"] }))?;
        }
        for at in ["/cache/stack", "/up"] {
            field.mount(json!({ "destination": at, "type": "tmpfs", "options": ["size=64k"] }))?;
        }
        // What leads to nothing needs no mask.
        links(&root, &[("etc/masked", "/nowhere/masked")])?;
        field.config(|config| config["linux"]["maskedPaths"] = json!(["/etc/masked"]))?;
        let script = "cat /etc/resolv.conf /chain /data/file; echo x > /cache/stack/x; cat /proc/self/mountinfo";
        let inside = prints(&field, &mask, script)?;
        assert!(inside.starts_with(&"of the host\n".repeat(3)), "{inside}");
        for at in ["/run/systemd/resolve/stub-resolv.conf", "/deep/end", "/real/data", "/real/cache/stack", "/top"] {
            mounted(&inside, at);
        }
        stay(&root, DANGLING);
        assert!(fs::metadata(root.join("run/systemd/resolve/stub-resolv.conf"))?.is_file());
        assert_eq!(fs::metadata(root.join("deep/end"))?.len(), 0);
        for made in ["real/data", "real/cache/stack", "top", "absent"] {
            assert_eq!(names(&root.join(made))?, BTreeSet::new(), "{made}");
        }
        assert!(!root.join("nowhere").exists());
        assert_eq!(names(field.bundle.dir())?, ["config.json", "rootfs"].map(String::from).into());
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// The config without what is mounted on /dev and below.
fn without_dev(config: &mut Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
    }
}

/// As nodes that are made, and in a user namespace as the host's.
pub fn linux_devices_on_and_through_dangling_symlinks(lab: &Lab) -> TestResult {
    let dangling = [("dev/null", "../nodes/null"), ("dev/more", "/nodes/more"), ("way", "nodes/way")];
    for users in [false, true] {
        let mut field = Field::new(lab)?;
        let root = field.bundle.rootfs();
        links(&root, &dangling)?;
        fs::write(root.join("etc/secret"), "secret\n")?;
        field.config(|config| {
            without_dev(config);
            config["root"]["readonly"] = json!(false);
            config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
            // A user namespace gets the host's nodes, and the host has none at these paths.
            let more = json!([
                { "path": "/dev/more", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666 },
                { "path": "/way/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666 },
            ]);
            config["linux"]["devices"] = if users { json!([]) } else { more };
        })?;
        if users {
            field.user_namespace(100_000)?;
            // What has to be made is made by its root.
            for dir in ["", "dev", "etc"] {
                chown(root.join(dir), Some(100_000), Some(100_000))?;
            }
        }
        let inside =
            field.shell("stat -L -c '%t:%T' /dev/null; echo gone > /dev/null; echo secret: $(cat /etc/secret)")?;
        assert_eq!(inside, "1:3\nsecret:\n", "users: {users}");
        stay(&root, &dangling);
        if !users {
            for (node, number) in [("null", (1, 3)), ("more", (1, 5)), ("way/full", (1, 7))] {
                let found = fs::symlink_metadata(root.join("nodes").join(node))?;
                assert!(found.file_type().is_char_device(), "{node}");
                assert_eq!((libc::major(found.rdev()), libc::minor(found.rdev())), number, "{node}");
            }
        }
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

pub fn process_cwd_through_a_dangling_symlink(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let root = field.bundle.rootfs();
    let dangling = [("work", "../../srv/work")];
    links(&root, &dangling)?;
    field.config(|config| config["process"]["cwd"] = json!("/work/here"))?;
    assert_eq!(field.prints(&["pwd", "-P"])?, "/srv/work/here\n");
    stay(&root, &dangling);
    assert!(root.join("srv/work/here").is_dir());
    Ok(())
}

/// runc always, crun since 1.11: a tmpfs over a directory looks like that, one over nothing is everybody's, and a mode that is said is what it gets.
pub fn mounts_type_tmpfs_has_the_mode_of_the_directory_below(lab: &Lab) -> TestResult {
    for mask in both_ways() {
        let mut field = Field::new(lab)?;
        let root = field.bundle.rootfs();
        for (name, mode) in [("private", 0o700), ("group", 0o2775), ("said", 0o700), ("copied", 0o2711)] {
            fs::create_dir(root.join(name))?;
            chown(root.join(name), Some(12), Some(34))?;
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))?;
        }
        fs::write(root.join("copied/file"), "x\n")?;
        for (at, options) in [
            ("private", json!([])),
            ("group", json!(["nosuid"])),
            ("said", json!(["mode=1770"])),
            ("copied", json!(["tmpcopyup"])),
            ("new/shared", json!(["size=64k"])),
        ] {
            field.mount(json!({ "destination": format!("/{at}"), "type": "tmpfs", "options": options }))?;
        }
        let script =
            "for d in private group said copied new/shared; do stat -c '%n %a %u:%g' $d; done; cat copied/file";
        let expected =
            ["private 700 0:0", "group 2775 0:0", "said 1770 0:0", "copied 2711 12:34", "new/shared 1777 0:0", "x"];
        let inside = prints(&field, &mask, script)?;
        assert_eq!(inside.lines().collect::<Vec<_>>(), expected);
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// Who shares the host's processes may have the host's /proc, as callers need it who may mount none of their own. What is no procfs, or only a part of
/// one, never stands there.
pub fn mounts_source_proc_of_the_host(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let bound = |field: &mut Field, source: &Path, options: Value| {
        field.config(|config| {
            config["mounts"][0] =
                json!({ "destination": "/proc", "type": "bind", "source": source, "options": options });
        })
    };
    field.config(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
        config["linux"]["maskedPaths"] = json!(["/proc/version"]);
    })?;
    let comm = fs::read_to_string("/proc/1/comm")?;
    for users in [false, true] {
        if users {
            field.user_namespace(100_000)?;
        }
        for options in [json!(["rbind"]), json!(["rbind", "nosuid", "noexec", "nodev"])] {
            bound(&mut field, Path::new("/proc"), options)?;
            assert_eq!(field.shell("cat /proc/1/comm; wc -c < /proc/version")?, format!("{comm}0\n"));
        }
    }
    let other = field.host("other")?;
    for source in [&other, Path::new("/proc/sys")] {
        bound(&mut field, source, json!(["rbind"]))?;
        field.is_refused(&["mounted on /proc is no procfs"])?;
    }
    Ok(())
}

/// Devices, links, mountpoints and the terminal are made in it first.
pub fn mounts_options_ro_of_what_is_filled_comes_last(lab: &Lab) -> TestResult {
    for mask in both_ways() {
        let mut field = Field::new(lab)?;
        field.config(|config| {
            for mount in
                config["mounts"].as_array_mut().into_iter().flatten().filter(|mount| mount["destination"] == "/dev")
            {
                mount["options"] = json!(["nosuid", "ro", "mode=755"]);
            }
            config["process"]["cwd"] = json!("/filled/cwd");
            config["root"]["readonly"] = json!(false);
        })?;
        field.directories(&["filled"])?;
        let host = field.host("host")?;
        fs::write(host.join("file"), "of the host\n")?;
        field.mount(json!({ "destination": "/filled", "type": "tmpfs", "options": ["ro"] }))?;
        field.mount(json!({ "destination": "/filled/a/file", "source": host.join("file"), "options": ["bind"] }))?;
        field.mount(json!({ "destination": "/filled/b", "type": "tmpfs" }))?;
        let script = "pwd; cat /filled/a/file; echo x > /filled/b/x; cat /filled/b/x; echo gone > /dev/null; ls /dev/pts/ptmx; \
                      touch /filled/new /dev/new; cat /proc/self/mountinfo";
        let inside = prints(&field, &mask, script)?;
        assert!(inside.starts_with("/filled/cwd\nof the host\nx\n/dev/pts/ptmx\n"), "{inside}");
        for at in ["/dev", "/filled"] {
            assert!(mounted(&inside, at).has("ro"), "{at}: {inside}");
        }
        for at in ["/filled/b", "/dev/pts", "/"] {
            assert!(!mounted(&inside, at).has("ro"), "{at}: {inside}");
        }
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// "The runtime MUST mount entries in the listed order": what a mount makes in the root may be bound by one behind it, with or without a user
/// namespace. The path is one of the container's: a symlink of the image on it leads nowhere else.
pub fn mounts_source_that_a_mount_before_makes(lab: &Lab) -> TestResult {
    let outside = lab.dir().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "not the container's\n")?;
    for users in [false, true] {
        let mut field = Field::new(lab)?;
        let root = field.bundle.rootfs();
        let volume = lab.dir().join("volume");
        fs::create_dir_all(volume.join("sub"))?;
        fs::write(volume.join("sub/file"), "of the volume\n")?;
        let _ = fs::remove_file(volume.join("trap"));
        symlink(&outside, volume.join("trap"))?;
        field.directories(&["first", "second", "third", "fresh"])?;
        if users {
            field.user_namespace(100_000)?;
        }
        field.mount(json!({ "destination": "/first", "source": volume, "options": ["rbind"] }))?;
        field.mount(json!({ "destination": "/fresh", "type": "tmpfs", "options": ["size=64k"] }))?;
        let second = root.join("first/sub");
        field.mount(json!({ "destination": "/second", "source": second, "options": ["rbind", "ro"] }))?;
        field.mount(json!({ "destination": "/third", "source": root.join("fresh"), "options": ["rbind"] }))?;
        let inside =
            field.shell("cat /second/file; echo shared > /third/file; cat /fresh/file; cat /proc/self/mountinfo")?;
        assert!(inside.starts_with("of the volume\nshared\n"), "users: {users}: {inside}");
        assert!(mounted(&inside, "/second").has("ro"), "{inside}");
        field.mounts_are(9)?;
        field.mount(json!({ "destination": "/second", "source": root.join("first/trap"), "options": ["rbind"] }))?;
        field.is_refused(&["first/trap", "on a mount before it, and does not exist there"])?;
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// Docker gives advice of its own where the message has these words, in lower case.
pub fn mounts_destination_of_another_kind_is_told(lab: &Lab) -> TestResult {
    for users in [false, true] {
        let mut field = Field::new(lab)?;
        if users {
            field.user_namespace(100_000)?;
        }
        let host = field.host("host")?;
        fs::write(host.join("file"), "")?;
        field.directories(&["mnt"])?;
        fs::write(field.bundle.rootfs().join("etc/conf"), "")?;
        let (file, dir): (PathBuf, PathBuf) = (host.join("file"), host);
        let told = |path: &Path, what: &str| format!("\"{}\" is a {what}", path.display());
        for (source, at, words) in [
            (&file, "/mnt", [told(&file, "file, not a directory"), "\"/mnt\" in the container is a directory".into()]),
            (
                &dir,
                "/etc/conf",
                [told(&dir, "directory"), "\"/etc/conf\" in the container is a file, not a directory".into()],
            ),
        ] {
            field.mounts_are(7)?;
            field.mount(json!({ "destination": at, "source": source, "options": ["rbind"] }))?;
            field.is_refused(&[&words[0], &words[1]])?;
        }
        field.mounts_are(7)?;
        field.mount(json!({ "destination": "/etc/conf", "type": "tmpfs" }))?;
        field.is_refused(&["tmpfs is a directory", "\"/etc/conf\" in the container is a file, not a directory"])?;
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// By mount(2), whose flags replace all that a mount has.
pub fn mounts_options_remount_keeps_nosymfollow(lab: &Lab) -> TestResult {
    for mask in both_ways() {
        let mut field = Field::new(lab)?;
        let host = lab.dir().join("host");
        tmpfs(&host, MsFlags::empty())?;
        field.directories(&["mnt"])?;
        field.mount(
            json!({ "destination": "/mnt", "source": host, "options": ["bind", "nosymfollow", "strictatime"] }),
        )?;
        field.mount(json!({ "destination": "/mnt", "options": ["bind", "remount", "ro", "nodiratime"] }))?;
        let inside = prints(&field, &mask, "cat /proc/self/mountinfo")?;
        let found = mounted(&inside, "/mnt");
        assert!(found.has("ro") && found.has("nosymfollow") && found.has("nodiratime"), "{mask:?}: {found:?}");
        assert!(!found.has("relatime"), "{mask:?}: {found:?}");
        nix::mount::umount(&host)?;
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

//! In a mount namespace of their own, on a root that the test makes; what matters is asserted on the host's files.

use super::root::{ROOT, Root};
use super::*;
use crate::effects::testing::{Bench, in_child, in_mount_namespace};
use crate::mounts::{Api, Propagation};
use crate::spec::DeviceType;
use lifecycle_engine::effect::EffectDef;
use lifecycle_engine::types::{Mode, Size};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A root with `/dev`, `/proc` and `/etc` on the disk, bound; and a directory beside it that stands for the host.
fn with_root(api: Api, prepare: impl FnOnce(&Path), body: impl FnOnce(&mut Bench, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for path in ["dev", "proc", "etc", "sys"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    fs::create_dir(dir.path().join("host")).unwrap();
    prepare(&root);
    in_mount_namespace(|| {
        let mut bench = Bench::new(dir.path()).owning("mnt");
        bench.apply(&RootPropagation { propagation: Propagation::Slave, recursive: true }).1.unwrap();
        bench.apply(&RootBind { source: root.clone(), slave: false, api }).1.unwrap();
        body(&mut bench, &root);
    });
}

fn mount(destination: &str, kind: Option<&str>, source: Option<&Path>, options: &[&str], api: Api) -> RootMount {
    RootMount {
        destination: destination.into(),
        kind: kind.map(str::to_owned),
        source: source.map(PathBuf::from),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        api,
        ..RootMount::default()
    }
}

const BOTH: [Api; 2] = [Api::Detached, Api::Classic];

#[test]
fn a_file_system_and_a_bind_are_mounted_by_either_way() {
    for api in BOTH {
        with_root(
            api,
            |root| fs::write(root.join("etc/passwd"), "image").unwrap(),
            |bench, root| {
                bench
                    .apply(&mount("/made/here", Some("tmpfs"), Some(Path::new("tmpfs")), &["mode=711", "noexec"], api))
                    .1
                    .unwrap();
                assert_eq!(fs::metadata(root.join("made/here")).unwrap().permissions().mode() & 0o7777, 0o711);
                bench
                    .apply(&mount("/etc/hostname", None, Some(Path::new("/proc/version")), &["bind", "ro"], api))
                    .1
                    .unwrap();
                assert!(fs::read_to_string(root.join("etc/hostname")).unwrap().starts_with("Linux"));
                bench.apply(&mount("/etc", Some("tmpfs"), None, &["tmpcopyup", "ro"], api)).1.unwrap();
                assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "image");
                let error = fs::write(root.join("etc/new"), "").unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            },
        );
    }
}

#[test]
fn what_was_mounted_is_told_from_what_a_bent_path_leads_to() {
    let body = |bench: &mut Bench, at: &Path| {
        let tmpfs = |path: &str| {
            fs::create_dir(at.join(path)).unwrap();
            rustix::mount::mount("tmpfs", at.join(path), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        };
        let root = Root::in_fds(&bench.fds).unwrap();
        let below = root.find(Path::new("/etc")).unwrap().unwrap();
        tmpfs("etc/way");
        tmpfs("etc/way/inner");
        symlink("/etc/way/inner", at.join("etc/bent")).unwrap();
        assert!(root.top(Path::new("/etc/way"), &below).is_ok());
        for path in ["/etc/bent", "/etc/way/inner", "/dev", "/absent"] {
            let error = root.top(Path::new(path), &below).unwrap_err();
            assert!(error.what.contains("leads elsewhere"), "{path}: {error:?}");
        }
    };
    with_root(Api::Classic, |_| {}, body);
}

#[test]
fn read_only_binds_can_be_recursive() {
    with_root(
        Api::Detached,
        |_| {},
        |bench, root| {
            let host = root.parent().unwrap().join("host");
            fs::create_dir(host.join("below")).unwrap();
            rustix::mount::mount("tmpfs", host.join("below"), "tmpfs", rustix::mount::MountFlags::empty(), None)
                .unwrap();
            bench.apply(&mount("/one", None, Some(&host), &["rbind", "ro"], Api::Detached)).1.unwrap();
            bench.apply(&mount("/all", None, Some(&host), &["rbind", "rro"], Api::Detached)).1.unwrap();
            fs::write(root.join("one/below/file"), "").unwrap();
            fs::write(root.join("all/below/other"), "").unwrap_err();
            fs::write(root.join("one/file"), "").unwrap_err();
        },
    );
}

#[test]
fn an_id_mapped_bind_shows_other_owners() {
    use std::os::unix::fs::{MetadataExt, chown};
    let body = |bench: &mut Bench, root: &Path| {
        let host = root.parent().unwrap().join("host");
        fs::write(host.join("file"), "").unwrap();
        chown(host.join("file"), Some(1), Some(2)).unwrap();
        let map = |host_id| vec![crate::spec::IdMapping { container_id: 0, host_id, size: 10 }];
        let mut effect = mount("/mapped", None, Some(&host), &["bind", "idmap"], Api::Detached);
        (effect.uid_mappings, effect.gid_mappings) = (map(1000), map(2000));
        bench.apply(&effect).1.unwrap();
        let shown = fs::metadata(root.join("mapped/file")).unwrap();
        assert_eq!((shown.uid(), shown.gid()), (1001, 2002));
    };
    with_root(Api::Detached, |_| {}, body);
}

#[test]
fn a_symlink_in_the_image_does_not_lead_to_the_host() {
    for api in BOTH {
        let prepare = |root: &Path| {
            let host = root.parent().unwrap().join("host");
            symlink(&host, root.join("out")).unwrap();
            symlink("../../../../../..", root.join("up")).unwrap();
            symlink(&host, root.join("dev/shm")).unwrap();
        };
        with_root(api, prepare, |bench, root| {
            let host = root.parent().unwrap().join("host");
            for destination in ["/out", "/out/sub", "/up/tmp/x", "/dev/shm"] {
                // The link's text is read from the root on: the directories that it names are made in the image.
                let _ = bench.apply(&mount(destination, Some("tmpfs"), None, &[], api));
                let _ = bench.apply(&RootDirectory {
                    path: PathBuf::from(destination).join("made"),
                    mode: Mode(0o755),
                    own: false,
                });
                let _ = bench.apply(&RootFile {
                    path: PathBuf::from(destination).join("file"),
                    content: "x".into(),
                    mode: Mode(0o644),
                    own: false,
                });
            }
            assert_eq!(fs::read_dir(&host).unwrap().count(), 0, "something was made on the host");
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(
                !mounts.contains(&format!(" {} ", host.display())),
                "something was mounted on the host's directory"
            );
        });
    }
}

#[test]
fn an_image_cannot_replace_proc() {
    for api in BOTH {
        let prepare = |root: &Path| {
            fs::remove_dir(root.join("proc")).unwrap();
            fs::create_dir(root.join("fake")).unwrap();
            symlink("/fake", root.join("proc")).unwrap();
            symlink("/etc", root.join("sysfake")).unwrap();
        };
        with_root(api, prepare, |bench, root| {
            let error = bench.apply(&mount("/proc", Some("proc"), Some(Path::new("proc")), &[], api)).1.unwrap_err();
            assert!(error.what.contains("/proc in the image is not a directory"), "{error}");
            assert_eq!(fs::read_dir(root.join("fake")).unwrap().count(), 0);
        });
    }
}

#[test]
fn a_volume_cannot_cover_what_the_runtime_writes_to() {
    for api in BOTH {
        with_root(
            api,
            |_| {},
            |bench, root| {
                bench.apply(&mount("/proc", Some("proc"), Some(Path::new("proc")), &[], api)).1.unwrap();
                let host = root.parent().unwrap().join("host");
                for destination in ["/proc/self/attr", "/proc", "/proc/sys", "/etc/../proc/sys"] {
                    let error = bench.apply(&mount(destination, None, Some(&host), &["bind"], api)).1.unwrap_err();
                    assert!(error.what.contains("/proc"), "{error}");
                }
                bench.apply(&mount("/proc/uptime", None, Some(Path::new("/proc/version")), &["bind"], api)).1.unwrap();
                assert!(fs::read_to_string(root.join("proc/uptime")).unwrap().starts_with("Linux"));
            },
        );
    }
}

fn null(host: Option<&str>, api: Api) -> RootDevice {
    RootDevice {
        path: "/dev/null".into(),
        kind: DeviceType::C,
        major: 1,
        minor: 3,
        mode: Mode(0o666),
        owner: (0, 0),
        host: host.map(PathBuf::from),
        api,
        own: false,
        in_volume: InVolume::Refuse,
    }
}

#[test]
fn devices_and_links_are_made() {
    for api in BOTH {
        let body = |bench: &mut Bench, root: &Path| {
            bench.apply(&null(Some("/dev/null"), api)).1.unwrap();
            assert!(fs::metadata(root.join("dev/null")).unwrap().file_type().is_char_device());
            fs::write(root.join("dev/null"), "swallowed").unwrap();
            let (path, target) = ("/dev/fd".into(), "/proc/self/fd".into());
            bench.apply(&RootSymlink { path, target, own: false, in_volume: InVolume::Leave }).1.unwrap();
            assert_eq!(fs::read_link(root.join("dev/fd")).unwrap(), Path::new("/proc/self/fd"));
        };
        with_root(api, |_| {}, body);
    }
}

#[test]
fn a_volume_that_a_link_puts_on_dev_is_not_filled() {
    for api in BOTH {
        let prepare = |root: &Path| {
            symlink("dev", root.join("data")).unwrap();
            fs::create_dir(root.join("own")).unwrap();
            symlink("own", root.join("other")).unwrap();
        };
        with_root(api, prepare, |bench, root| {
            let host = root.parent().unwrap().join("host");
            bench.apply(&mount("/data", None, Some(&host), &["rbind"], api)).1.unwrap();
            bench.apply(&mount("/other", Some("tmpfs"), None, &[], api)).1.unwrap();
            let error = bench.apply(&null(None, api)).1.unwrap_err();
            assert!(error.what.contains("leads into a directory of the host"), "{error}");
            bench.apply(&RootDevice { in_volume: InVolume::Leave, ..null(None, api) }).1.unwrap();
            let (path, target) = ("/dev/fd".into(), "/proc/self/fd".into());
            bench.apply(&RootSymlink { path, target, own: false, in_volume: InVolume::Leave }).1.unwrap();
            assert_eq!(fs::read_dir(&host).unwrap().count(), 0, "something was made in the volume");
            for place in ["/etc/null", "/own/null"] {
                bench.apply(&RootDevice { path: place.into(), ..null(None, api) }).1.unwrap();
                assert!(fs::metadata(root.join(&place[1..])).unwrap().file_type().is_char_device());
            }
        });
    }
}

#[test]
fn a_device_of_the_images_own_is_refused() {
    let prepare = |root: &Path| {
        fs::write(root.join("etc/core_pattern"), "untouched").unwrap();
        symlink("/etc/core_pattern", root.join("dev/null")).unwrap();
    };
    with_root(Api::Detached, prepare, |bench, root| {
        let error = bench.apply(&null(None, Api::Detached)).1.unwrap_err();
        assert!(error.what.contains("is not the device 1:3"), "{error}");
        fs::write(root.join("etc/secret"), "secret").unwrap();
        let error =
            bench.apply(&MaskPath { path: "/etc/secret".into(), label: None, api: Api::Detached }).1.unwrap_err();
        assert!(error.what.contains("/dev/null"), "{error}");
        assert_eq!(fs::read_to_string(root.join("etc/core_pattern")).unwrap(), "untouched");
    });
}

#[test]
fn a_device_on_a_link_out_of_the_root_is_made_in_the_root() {
    let prepare = |root: &Path| {
        let host = root.parent().unwrap().join("host/core_pattern");
        fs::write(&host, "untouched").unwrap();
        symlink(&host, root.join("dev/null")).unwrap();
        fs::write(root.join("etc/secret"), "secret").unwrap();
    };
    with_root(Api::Detached, prepare, |bench, root| {
        bench.apply(&null(None, Api::Detached)).1.unwrap();
        bench.apply(&MaskPath { path: "/etc/secret".into(), label: None, api: Api::Detached }).1.unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/secret")).unwrap(), "");
        let host = root.parent().unwrap().join("host/core_pattern");
        assert_eq!(fs::read_to_string(&host).unwrap(), "untouched");
        assert_eq!(fs::read_link(root.join("dev/null")).unwrap(), host);
        let made = root.join(host.strip_prefix("/").unwrap());
        assert!(fs::symlink_metadata(made).unwrap().file_type().is_char_device());
    });
}

#[test]
fn a_container_without_a_mount_namespace_changes_nothing_of_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    in_mount_namespace(|| {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut bench = Bench::new(dir.path());
        let refused = [
            bench.apply(&RootPropagation { propagation: Propagation::Slave, recursive: true }),
            bench.apply(&RootBind { source: dir.path().to_owned(), slave: false, api: Api::Detached }),
            bench.apply(&overlay(dir.path(), Layout::Whole, false, Api::Detached)),
            bench.apply(&RootPivot { no_pivot: false, shares_mounts: false }),
            bench.apply(&MaskPath { path: "/etc/passwd".into(), label: None, api: Api::Detached }),
        ];
        assert!(refused.iter().all(|(_, answer)| answer.is_err()), "{refused:?}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    });
}

#[test]
fn the_root_changes_and_the_hosts_is_gone() {
    for api in BOTH {
        let prepare = |root: &Path| {
            fs::write(root.join("etc/secret"), "secret").unwrap();
            fs::create_dir_all(root.join("etc/hidden/deep")).unwrap();
            fs::create_dir(root.join("etc/fixed")).unwrap();
        };
        with_root(api, prepare, |bench, root| {
            bench.apply(&mount("/proc", Some("proc"), Some(Path::new("proc")), &[], api)).1.unwrap();
            bench.apply(&mount("/dev", Some("tmpfs"), None, &["mode=755"], api)).1.unwrap();
            bench.apply(&null(None, api)).1.unwrap();
            bench.apply(&RootPivot { no_pivot: false, shares_mounts: false }).1.unwrap();
            assert!(!root.exists(), "the host's files can still be reached");
            assert_eq!(fs::read_to_string("/etc/secret").unwrap(), "secret");
            let lines = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
            assert_eq!(lines, 3, "only the root, /proc and /dev are left");
            for path in ["/etc/secret", "/etc/hidden", "/not/there"] {
                bench.apply(&MaskPath { path: path.into(), label: None, api }).1.unwrap();
            }
            bench.apply(&ReadonlyPath { path: "/etc/fixed".into(), api }).1.unwrap();
            bench.apply(&ReadonlyPath { path: "/not/there".into(), api }).1.unwrap();
            assert_eq!(fs::read_to_string("/etc/secret").unwrap(), "");
            assert_eq!(fs::read_dir("/etc/hidden").unwrap().count(), 0);
            fs::write("/etc/hidden/x", "").unwrap_err();
            fs::write("/etc/fixed/x", "").unwrap_err();
            fs::write("/etc/open", "").unwrap();
            bench.apply(&RootReadonly { api }).1.unwrap();
            fs::write("/etc/open", "").unwrap_err();
            fs::write("/dev/open", "").unwrap();
        });
    }
}

#[test]
fn cgroups_are_seen_from_the_containers_own_on() {
    for effect in RootCgroup::examples(Path::new("/")) {
        if effect.v1.is_empty() && effect.v2.is_none() {
            continue;
        }
        with_root(
            effect.api,
            |_| {},
            |bench, root| {
                bench.apply(&effect).1.unwrap();
                let top = root.join("sys/fs/cgroup");
                match effect.v1.iter().find(|hierarchy| hierarchy.controllers == ["pids"]) {
                    Some(_) => assert!(top.join("pids/tasks").is_file()),
                    None => assert!(top.join("cgroup.procs").is_file()),
                }
                fs::create_dir(top.join("new")).unwrap_err();
            },
        );
    }
}

fn overlay(scratch: &Path, layout: Layout, user_namespace: bool, api: Api) -> RootOverlay {
    let (scratch, size, mode) = (scratch.to_owned(), Size(16 << 20), Mode(0o755));
    RootOverlay { scratch, layout, user_namespace, size, mode, api }
}

/// Applies every layout, writes into it, and finds nothing on the host.
#[test]
fn an_overlay_of_the_host_keeps_changes_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let probe_file = Path::new("etc/lifecycle-overlay-test");
    let directories = vec![Entry::Overlay("etc".into()), Entry::Bind("usr".into()), Entry::Empty("tmp".into())];
    let layouts = [Layout::Whole, Layout::Directories(directories), Layout::ReadOnly];
    for (layout, api) in layouts.iter().flat_map(|layout| [(layout, Api::Detached), (layout, Api::Classic)]) {
        in_mount_namespace(|| {
            let mut bench = Bench::new(dir.path()).owning("mnt");
            bench.apply(&overlay(dir.path(), layout.clone(), false, api)).1.unwrap();
            bench.apply(&mount("/proc", Some("proc"), Some(Path::new("proc")), &[], Api::Detached)).1.unwrap();
            bench.apply(&RootPivot { no_pivot: false, shares_mounts: false }).1.unwrap();
            assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
            assert!(Path::new("/usr/bin").is_dir());
            let written = fs::write(Path::new("/").join(probe_file), "x");
            assert_eq!(written.is_ok(), *layout != Layout::ReadOnly);
            if *layout != Layout::Whole {
                fs::write("/usr/lifecycle-overlay-test", "x").unwrap_err();
            }
            if *layout == Layout::ReadOnly {
                fs::write("/dev/shm/lifecycle-overlay-test", "x").expect_err("a mount below the root is writable");
            }
        });
        assert!(!Path::new("/").join(probe_file).exists(), "{layout:?} wrote to the host");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{layout:?} left something in the scratch directory");
    }
}

#[test]
fn what_works_as_root_and_in_a_user_namespace_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    in_mount_namespace(|| assert_eq!(probe(dir.path(), false), Layout::Whole));
    in_child(|| {
        use nix::sched::CloneFlags;
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", "0 0 1").unwrap();
        fs::write("/proc/self/gid_map", "0 0 1").unwrap();
        let layout = probe(Path::new("/tmp"), true);
        assert_ne!(layout, Layout::Whole);
        let mut bench = Bench::new(Path::new("/tmp")).owning("mnt");
        bench.apply(&overlay(Path::new("/tmp"), layout.clone(), true, Api::Detached)).1.unwrap();
        assert!(bench.fds.get(ROOT).is_some());
        // A user namespace may not make device nodes: the host's are bound.
        bench.apply(&null(Some("/dev/null"), Api::Detached)).1.unwrap();
        bench.apply(&RootPivot { no_pivot: false, shares_mounts: false }).1.unwrap();
        fs::write("/dev/null", "swallowed").unwrap();
        assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
        if let Layout::Directories(entries) = &layout {
            assert!(entries.iter().any(|entry| matches!(entry, Entry::Overlay(name) if name == "etc")), "{layout:?}");
            fs::write("/etc/lifecycle-overlay-test", "x").unwrap();
        }
    });
    assert!(!Path::new("/etc/lifecycle-overlay-test").exists());
}

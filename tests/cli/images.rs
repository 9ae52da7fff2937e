//! What an image may hold where the runtime makes or opens something: nothing of the host's is made, changed or given away, and nobody waits.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::fields::Field;
use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        an_image_whose_dev_is_a_symlink_gets_no_node_on_the_host,
        an_image_with_symlinks_for_devices_reaches_no_file_of_the_host,
        an_image_with_symlinks_for_destinations_reaches_nothing_of_the_host,
        an_image_whose_symlink_leads_to_the_root_has_nothing_mounted_on_it,
        files_that_stdio_leads_to_keep_their_owner,
        an_image_whose_passwd_is_endless_or_a_fifo_holds_nobody_up,
        #[needs(Program("setpriv"))]
        the_callers_groups_are_not_the_containers,
    ];
    tests.into_iter().map(|test| test.within("images").needs(&[Root, Program("busybox")])).collect()
}

/// A directory of the host with one file, which a container is not to get at.
struct Outside(PathBuf);

impl Outside {
    fn new(lab: &Lab) -> std::io::Result<Self> {
        let dir = lab.dir().join("outside");
        fs::create_dir(&dir)?;
        fs::write(dir.join("file"), "of the host\n")?;
        Ok(Self(dir))
    }

    /// Ways out of a root by a symlink: by its name on the host, and by climbing.
    fn ways(&self, name: &str) -> [PathBuf; 2] {
        let path = self.0.join(name);
        let climbing = format!("../../../../../../../../..{}", path.display());
        [path, climbing.into()]
    }

    fn is_as_before(&self, how: &str) -> std::io::Result<()> {
        let names: Vec<_> = fs::read_dir(&self.0)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        assert_eq!(names, ["file"], "{how}: something was made on the host");
        assert_eq!(fs::read_to_string(self.0.join("file"))?, "of the host\n", "{how}");
        let stat = fs::metadata(self.0.join("file"))?;
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o644), "{how}");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        assert!(!mounts.contains(&format!(" {}", self.0.display())), "{how}: something was mounted on the host");
        Ok(())
    }
}

/// The config without what is mounted on /dev and below.
fn without_dev(config: &mut Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
    }
}

/// CVE-2026-41579, CVE-2026-47766: /dev itself leads out.
pub fn an_image_whose_dev_is_a_symlink_gets_no_node_on_the_host(lab: &Lab) -> TestResult {
    let outside = Outside::new(lab)?;
    for own in [true, false] {
        for way in outside.ways("") {
            let mut field = Field::new(lab)?;
            let dev = field.bundle.rootfs().join("dev");
            fs::remove_dir(&dev)?;
            symlink(&way, &dev)?;
            field.config(|config| {
                if own {
                    without_dev(config);
                }
                config["process"]["args"] = json!(["true"]);
                config["linux"]["devices"] = json!([{ "path": "/dev/more", "type": "c", "major": 1, "minor": 3 }]);
            })?;
            let how = format!("/dev -> {}, mounts on it: {}", way.display(), !own);
            let told = field.told();
            assert!(matches!(told.code, 0 | 1), "{how}: {}: {}", told.code, told.err);
            outside.is_as_before(&how)?;
            fs::remove_dir_all(field.bundle.dir())?;
        }
    }
    Ok(())
}

/// CVE-2025-31133, CVE-2025-62161, CVE-2025-52565: what is in /dev leads out, or is another device.
pub fn an_image_with_symlinks_for_devices_reaches_no_file_of_the_host(lab: &Lab) -> TestResult {
    let outside = Outside::new(lab)?;
    for name in ["null", "zero", "tty", "full", "console", "ptmx", "stdin", "fd", "pts"] {
        for (way, target) in [("made", "made"), ("file", "file")].map(|(way, target)| (way, outside.ways(target))) {
            for target in target {
                let mut field = Field::new(lab)?;
                symlink(&target, field.bundle.rootfs().join("dev").join(name))?;
                field.config(|config| {
                    let pts = config["mounts"][2].clone();
                    without_dev(config);
                    if let Some(mounts) = config["mounts"].as_array_mut() {
                        mounts.push(pts);
                    }
                    config["root"]["readonly"] = json!(false);
                    config["process"]["terminal"] = json!(true);
                    config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/etc/passwd"]);
                    config["process"]["args"] = json!(["sh", "-c", "echo masked: $(cat /etc/passwd)"]);
                })?;
                let told = field.told();
                let how = format!("/dev/{name} -> {} ({way})", target.display());
                match told.code {
                    // What is masked cannot be read, whatever stood for the null device.
                    0 => assert!(told.out.trim().ends_with("masked:"), "{how}: {}", told.out),
                    code => assert_eq!(code, 1, "{how}: {}", told.err),
                }
                outside.is_as_before(&how)?;
                fs::remove_dir_all(field.bundle.dir())?;
            }
        }
    }
    Ok(())
}

/// What a symlink that leads to nothing names is made, in the root. Loops, ways out, and ways into /proc lead nowhere else.
pub fn an_image_with_symlinks_for_destinations_reaches_nothing_of_the_host(lab: &Lab) -> TestResult {
    let outside = Outside::new(lab)?;
    let ways = outside.ways("made/below").into_iter().chain(outside.ways("file/below"));
    let proc = [
        "/proc/self/root/made",
        "/proc/1/root/made",
        "/proc/self/cwd",
        "/proc/sys/kernel/made",
        "/proc/self/fd/3/made",
    ];
    let loops = ["link", "/link/link", "other"];
    for target in ways.chain(proc.into_iter().chain(loops).map(PathBuf::from)) {
        let mut field = Field::new(lab)?;
        let root = field.bundle.rootfs();
        symlink(&target, root.join("link"))?;
        symlink("link", root.join("other"))?;
        field.config(|config| {
            config["linux"]["devices"] = json!([{ "path": "/link/node", "type": "c", "major": 1, "minor": 3 }]);
            config["process"]["cwd"] = json!("/other/cwd");
            config["process"]["args"] = json!(["true"]);
        })?;
        for (mount, older) in [
            (json!({ "destination": "/link", "type": "tmpfs" }), true),
            (json!({ "destination": "/other/deep", "type": "tmpfs" }), false),
            (json!({ "destination": "/link", "source": "/etc/hostname", "options": ["bind"] }), true),
            (json!({ "destination": "/other/file", "source": "/etc", "options": ["rbind"] }), false),
        ] {
            let how = format!("/link -> {}, {mount}, older calls: {older}", target.display());
            field.mounts_are(7)?;
            field.mount(mount)?;
            let mask = format!("--mask={}", lifecycle_tests::older::all());
            let told = if older { field.told_with(&[&mask]) } else { field.told() };
            assert!(matches!(told.code, 0 | 1), "{how}: {}: {}", told.code, told.err);
            outside.is_as_before(&how)?;
            assert!(!Path::new("/made").exists() && !Path::new("/cwd").exists(), "{how}: made in the host's root");
        }
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// A volume would stand for the whole root, and a `remount` would change it.
pub fn an_image_whose_symlink_leads_to_the_root_has_nothing_mounted_on_it(lab: &Lab) -> TestResult {
    for target in ["/", "..", "../../..", "etc/.."] {
        let mut field = Field::new(lab)?;
        let host = field.host("host")?;
        symlink(target, field.bundle.rootfs().join("link"))?;
        field.bundle.runs(&["true"])?;
        for mount in [
            json!({ "destination": "/link", "type": "tmpfs" }),
            json!({ "destination": "/link", "source": host, "options": ["rbind"] }),
            json!({ "destination": "/link", "type": "cgroup", "source": "cgroup" }),
        ] {
            field.mounts_are(7)?;
            field.mount(mount)?;
            field.is_refused(&["/link leads to the root itself"])?;
        }
        fs::remove_dir_all(field.bundle.dir())?;
    }
    Ok(())
}

/// CVE-2026-88265: the container's user is not made the owner of what his stdio is.
pub fn files_that_stdio_leads_to_keep_their_owner(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "cat; id -u"])?;
    oci.bundle.edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))?;
    let (input, output) = (lab.dir().join("input"), lab.dir().join("output"));
    fs::write(&input, "read\n")?;
    let owner = |path: &Path| fs::metadata(path).map(|stat| (stat.uid(), stat.gid(), stat.mode()));
    let files = [Path::new("/dev/null"), &input, &output];
    let run = |stdin: Stdio| -> Result<(), Box<dyn std::error::Error>> {
        let stdout = fs::File::create(&output)?;
        let before = files.map(|path| owner(path).ok());
        let mut command: Command = oci.command(&["run", "--bundle", "bundle", &oci.id]);
        let status = command.stdin(stdin).stdout(stdout).stderr(Stdio::null()).status()?;
        assert!(status.success());
        assert_eq!(files.map(|path| owner(path).ok()), before, "a file of the host has another owner");
        Ok(())
    };
    run(fs::File::open(&input)?.into())?;
    assert_eq!(fs::read_to_string(&output)?, "read\n1000\n");
    run(Stdio::null())?;
    assert_eq!(fs::read_to_string(&output)?, "1000\n");
    Ok(())
}

/// CVE-2025-4437: a file of the image that the runtime reads has no end, or nobody to write it.
pub fn an_image_whose_passwd_is_endless_or_a_fifo_holds_nobody_up(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "echo home is $HOME; sleep 100"])?;
    let passwd = oci.bundle.rootfs().join("etc/passwd");
    let large: fn(&Path) -> std::io::Result<()> = |path| fs::File::create(path)?.set_len(1 << 40);
    let fifo: fn(&Path) -> std::io::Result<()> = |path| Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR)?);
    let endless: fn(&Path) -> std::io::Result<()> = |path| symlink("/dev/zero", path);
    for (what, make) in [("of a terabyte", large), ("a FIFO", fifo), ("endless", endless)] {
        fs::remove_file(&passwd)?;
        make(&passwd)?;
        oci.running(&[]);
        let told = oci.told(&["exec", &oci.id, "sh", "-c", "echo $HOME"]).ended(0);
        assert_eq!(told.out, "/\n", "{what}");
        oci.told(&["delete", "--force", &oci.id]).ended(0);
    }
    // The test's own eyes would read it all.
    fs::remove_file(&passwd)?;
    Ok(())
}

/// CVE-2022-2995: the caller's supplementary groups are not the container's.
pub fn the_callers_groups_are_not_the_containers(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["id", "-G"])?;
    oci.bundle.edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1001 }))?;
    let mut command = Command::new("setpriv");
    command.args(["--groups", "4,5"]).arg(program::lifecycle_oci()?).arg("--root").arg(lab.state_root());
    command.args(["run", "--bundle", "bundle", &oci.id]).current_dir(lab.dir());
    let told = crate::scene::told(&mut command).ended(0);
    assert_eq!(told.out, "1001\n");
    Ok(())
}

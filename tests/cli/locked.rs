//! What the host's mounts forbid stays forbidden to a container in a user namespace, whatever it may do there: the host's files are looked at.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use lifecycle_tests::While;
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
        a_read_only_volume_stays_so_for_the_root_of_a_user_namespace,
        what_the_config_forbids_is_not_the_containers_to_allow,
        what_a_mount_covers_is_not_uncovered_in_a_user_namespace,
        a_bind_that_would_uncover_something_is_refused,
        what_the_hosts_mount_forbids_is_not_allowed_by_an_option,
        what_comes_from_the_host_is_locked_by_the_older_calls_too,
    ];
    tests.into_iter().map(|test| test.within("locked").needs(&[Root, Program("busybox")])).collect()
}

/// A container whose root has every right in a user namespace of its own, and a volume of the host with a mount in it that covers a secret.
struct Locked<'a> {
    field: Field<'a>,
    volume: PathBuf,
    /// Keeps newer calls away.
    mask: Option<String>,
}

impl<'a> Locked<'a> {
    fn new(lab: &'a Lab) -> Result<Self, Box<dyn std::error::Error>> {
        let mut field = Field::new(lab)?;
        let volume = lab.dir().join("volume");
        tmpfs(&volume, MsFlags::empty())?;
        let none: Option<&str> = None;
        // Shared, as under systemd, or by itself: a test says which.
        nix::mount::mount(none, &volume, none, MsFlags::MS_PRIVATE, none)?;
        fs::create_dir(volume.join("cover"))?;
        fs::write(volume.join("cover/secret"), "of the host\n")?;
        tmpfs(&volume.join("cover"), MsFlags::empty())?;
        field.user_namespace(100_000)?;
        field.directories(&["vol"])?;
        field.config(|config| {
            let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_FOWNER"]);
            for set in ["bounding", "effective", "permitted", "inheritable"] {
                config["process"]["capabilities"][set] = all.clone();
            }
        })?;
        Ok(Self { field, volume, mask: None })
    }

    fn restrict(&self, flags: MsFlags) -> nix::Result<()> {
        let none: Option<&str> = None;
        nix::mount::mount(none, &self.volume, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)
    }

    /// The container's only volume.
    fn binds(&mut self, options: &[&str]) -> lifecycle_tests::Result<()> {
        self.field.mounts_are(7)?;
        self.field.mount(json!({ "destination": "/vol", "source": self.volume, "options": options }))
    }

    /// A directory of the volume that is the container's own to write to.
    fn open_directory(&self, name: &str) -> lifecycle_tests::Result<PathBuf> {
        let path = self.volume.join(name);
        fs::create_dir(&path).when(|| format!("making {}", path.display()))?;
        chown(&path, Some(100_000), Some(100_000)).when(|| format!("giving {} away", path.display()))?;
        Ok(path)
    }

    /// A private mount and a shared one, with the host's ids and with mapped ones; with these options besides.
    fn each(&mut self, more: &[&str], mut body: impl FnMut(&mut Self, &str) -> TestResult) -> TestResult {
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            let none: Option<&str> = None;
            nix::mount::mount(none, &self.volume, none, propagation | MsFlags::MS_REC, none)?;
            for options in [&["rbind"][..], &["rbind", "ridmap"]] {
                let options = [options, more].concat();
                self.binds(&options)?;
                body(self, &format!("{propagation:?}, {options:?}"))?;
            }
        }
        Ok(())
    }

    /// What a shell in the container prints, which is made with or without the newer calls.
    fn shell(&self, script: &str) -> lifecycle_tests::Result<String> {
        self.field.bundle.runs(&["sh", "-c", script])?;
        let told = self.field.told_with(&self.mask.iter().map(String::as_str).collect::<Vec<_>>()).ended(0);
        Ok(told.out)
    }

    /// The container may not take one of the four from what is mounted at `at`, nor write to the host's directory `open` below.
    fn keeps_its_attributes(&self, at: &str, open: &Path, how: &str) -> TestResult {
        let script = format!(
            "for flags in rw ro,suid ro,dev ro,exec; do mount -o remount,bind,$flags {at} && echo $flags; done; \
             echo owned > {at}/open/owned; grep ' {at} ' /proc/self/mountinfo"
        );
        let told = self.shell(&script)?;
        let left: Vec<_> = fs::read_dir(open)?.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [""; 0], "{how}: the container has written on the host: {told}");
        let found = mounted(&told, at);
        for attribute in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(found.has(attribute), "{how}: the container has taken {attribute} off {at}: {told}");
        }
        Ok(())
    }

    fn stays_covered(&mut self, how: &str) -> TestResult {
        let script = "umount /vol/cover; cat /vol/cover/secret; mkdir -p /tmp/x; mount --bind /vol /tmp/x; cat /tmp/x/cover/secret; echo end";
        assert_eq!(self.shell(script)?, "end\n", "{how}: the container has seen what the host's mount covers");
        Ok(())
    }
}

pub fn a_read_only_volume_stays_so_for_the_root_of_a_user_namespace(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    let open = locked.open_directory("open")?;
    locked.restrict(MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    locked.each(&[], |locked, how| locked.keeps_its_attributes("/vol", &open, how))
}

/// In the mount itself, and in what is mounted in it on the host.
pub fn what_the_config_forbids_is_not_the_containers_to_allow(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    let open = locked.open_directory("open")?;
    let below = locked.open_directory("cover/open")?;
    locked.each(&["ro", "nosuid", "nodev", "noexec"], |locked, how| locked.keeps_its_attributes("/vol", &open, how))?;
    locked.each(&["rro", "rnosuid", "rnodev", "rnoexec"], |locked, how| {
        locked.keeps_its_attributes("/vol", &open, how)?;
        locked.keeps_its_attributes("/vol/cover", &below, how)
    })
}

pub fn what_a_mount_covers_is_not_uncovered_in_a_user_namespace(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    locked.field.config(|config| config["root"]["readonly"] = json!(false))?;
    locked.each(&[], Locked::stays_covered)
}

/// As with runc: bound alone, the directory would show what the mount in it covers.
pub fn a_bind_that_would_uncover_something_is_refused(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    locked.binds(&["bind"])?;
    locked.field.is_refused(&["open_tree", "volume", "use rbind"])?;
    // Where nothing is covered there is nothing to refuse.
    let open = locked.volume.join("open");
    fs::create_dir(&open)?;
    locked.field.mounts_are(7)?;
    locked.field.mount(json!({ "destination": "/vol", "source": open, "options": ["bind"] }))?;
    assert_eq!(locked.field.shell("ls /vol")?, "");
    Ok(())
}

pub fn what_the_hosts_mount_forbids_is_not_allowed_by_an_option(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    locked.restrict(MsFlags::MS_RDONLY | MsFlags::MS_NOSUID)?;
    for option in ["rw", "suid"] {
        locked.binds(&["rbind", option])?;
        locked.field.is_refused(&["mount_setattr", "what the host's mount forbids"])?;
    }
    // The same said of a container that is the host's root: it is his to allow.
    locked.field.config(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace: &Value| namespace["type"] != "user");
        }
        config["linux"]["uidMappings"] = json!([]);
        config["linux"]["gidMappings"] = json!([]);
    })?;
    locked.binds(&["rbind", "rw"])?;
    locked.field.shell("echo x > /vol/x")?;
    assert!(locked.volume.join("x").exists());
    Ok(())
}

pub fn what_comes_from_the_host_is_locked_by_the_older_calls_too(lab: &Lab) -> TestResult {
    let mut locked = Locked::new(lab)?;
    let mask = format!("--mask={}", older::all());
    locked.mask = Some(mask.clone());
    let open = locked.open_directory("open")?;
    locked.field.config(|config| config["root"]["readonly"] = json!(false))?;
    locked.binds(&["rbind"])?;
    locked.stays_covered("mount(2)")?;
    locked.restrict(MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    locked.keeps_its_attributes("/vol", &open, "mount(2)")?;
    locked.binds(&["rbind", "rw"])?;
    locked.field.told_with(&[&mask]).ended(1).says(&["mount(remount", "what the host's mount forbids"]);
    locked.binds(&["bind"])?;
    locked.field.told_with(&[&mask]).ended(1).says(&["mount(bind", "use rbind"]);
    Ok(())
}

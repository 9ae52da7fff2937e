//! What an image, a volume or another container may do to a mount while it is made: nothing of the host's changes, whatever comes of the
//! container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use nix::mount::MsFlags;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::fields::{Field, tmpfs};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_file_systems_destination_that_is_swapped_stays_in_the_root,
        a_bound_files_destination_that_is_swapped_stays_in_the_root,
        a_copied_up_destination_that_is_swapped_stays_in_the_root,
        an_image_that_fakes_proc_or_sys_is_refused,
        a_copied_up_destination_that_is_swapped_fills_nothing_else_by_the_older_calls,
        a_parameter_is_written_where_it_belongs_by_the_older_calls_too,
        a_parameter_is_written_where_it_belongs_whatever_others_mount,
    ];
    tests.into_iter().map(|test| test.within("races").needs(&[Root, Program("busybox")])).collect()
}

/// How many containers are made while the paths change under them.
const ROUNDS: u32 = 40;

/// Swaps two names as fast as it can while `body` runs; answers how often.
fn while_swapping<T>(a: &Path, b: &Path, body: impl FnOnce() -> T) -> (T, u32) {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let answer = body();
        stop.store(true, Ordering::Relaxed);
        (answer, swaps.load(Ordering::Relaxed))
    })
}

/// CVE-2021-30465, CVE-2024-45310: in a volume that another container has too, a directory on the way to a mount's destination becomes a symlink
/// to the host's files and back.
fn swapped_on_the_way(lab: &Lab, mount: impl Fn(&Path) -> serde_json::Value) -> TestResult {
    let mut field = Field::new(lab)?;
    let (volume, outside) = (lab.dir().join("volume"), lab.dir().join("outside"));
    tmpfs(&volume, MsFlags::empty())?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "of the host\n")?;
    fs::create_dir(volume.join("way"))?;
    // Out of the root by name, and out of it by climbing.
    symlink(format!("../../../../../../../..{}", outside.display()), volume.join("trap"))?;
    field.directories(&["vol"])?;
    field.mount(json!({ "destination": "/vol", "source": volume, "options": ["rbind"] }))?;
    field.mount(mount(&outside))?;
    field.bundle.runs(&["cat", "/proc/self/mountinfo"])?;
    let ((), swaps) = while_swapping(&volume.join("way"), &volume.join("trap"), || {
        let mut codes = [0u32; 2];
        for _ in 0..ROUNDS {
            let told = field.told();
            assert!(matches!(told.code, 0 | 1), "{}: {}", told.code, told.err);
            codes[usize::from(told.code != 0)] += 1;
        }
        note(format!("{} containers ran, {} were refused", codes[0], codes[1]));
    });
    assert!(swaps > ROUNDS, "nothing was swapped: {swaps}");
    let left: Vec<String> = fs::read_dir(&outside)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()?;
    assert_eq!(left, ["file"], "something was made on the host");
    assert_eq!(fs::read_to_string(outside.join("file"))?, "of the host\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&format!(" {}", outside.display())), "something was mounted on the host:\n{mounts}");
    Ok(())
}

pub fn a_file_systems_destination_that_is_swapped_stays_in_the_root(lab: &Lab) -> TestResult {
    swapped_on_the_way(lab, |_| json!({ "destination": "/vol/way/made/deep", "type": "tmpfs" }))
}

pub fn a_bound_files_destination_that_is_swapped_stays_in_the_root(lab: &Lab) -> TestResult {
    swapped_on_the_way(
        lab,
        |_| json!({ "destination": "/vol/way/made", "source": "/etc/hostname", "options": ["bind"] }),
    )
}

pub fn a_copied_up_destination_that_is_swapped_stays_in_the_root(lab: &Lab) -> TestResult {
    swapped_on_the_way(lab, |_| json!({ "destination": "/vol/way/made", "type": "tmpfs", "options": ["tmpcopyup"] }))
}

/// As before, by the calls of an older kernel, which cannot hold on to what they have just mounted: what the volume's owner has put there must not
/// get into other directories of the container, nor must its files change their owner.
pub fn a_copied_up_destination_that_is_swapped_fills_nothing_else_by_the_older_calls(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let volume = lab.dir().join("volume");
    tmpfs(&volume, MsFlags::empty())?;
    fs::create_dir(volume.join("way"))?;
    fs::write(volume.join("way/planted"), "x\n")?;
    std::os::unix::fs::chown(volume.join("way"), Some(4321), Some(4321))?;
    symlink("/etc", volume.join("trap"))?;
    field.directories(&["vol"])?;
    field.mount(json!({ "destination": "/vol", "source": volume, "options": ["rbind"] }))?;
    field.mount(json!({ "destination": "/vol/way", "type": "tmpfs", "options": ["tmpcopyup"] }))?;
    field.bundle.runs(&["true"])?;
    let etc = field.bundle.rootfs().join("etc");
    let older = ["--mask", "kernel.mount_api", "--mask", "kernel.mount_setattr"];
    let (codes, swaps) = while_swapping(&volume.join("way"), &volume.join("trap"), || {
        (0..ROUNDS).map(|_| field.told_with(&older).code).collect::<Vec<_>>()
    });
    assert!(codes.iter().all(|code| matches!(code, 0 | 1)), "{codes:?}");
    assert!(swaps > ROUNDS, "nothing was swapped: {swaps}");
    assert!(!etc.join("planted").exists(), "the container's /etc holds what is the volume's");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&etc)?), 0);
    Ok(())
}

/// A process whose `oom_score_adj` stands in for a parameter of the host: what is written there by mistake is seen, and does no harm.
struct Decoy {
    process: std::process::Child,
}

impl Decoy {
    /// A directory that looks like /proc/sys/net/ipv4, in which a file of procfs has the name of a parameter.
    fn new(at: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let process = std::process::Command::new("sleep").arg("600").spawn()?;
        tmpfs(at, MsFlags::empty())?;
        // What becomes of its copies is not to become of it.
        let none: Option<&str> = None;
        nix::mount::mount(none, at, none, MsFlags::MS_PRIVATE, none)?;
        fs::write(at.join("ip_forward"), "")?;
        let file = format!("/proc/{}/oom_score_adj", process.id());
        fs::write(&file, "7")?;
        nix::mount::mount(Some(file.as_str()), &at.join("ip_forward"), none, MsFlags::MS_BIND, none)?;
        Ok(Self { process })
    }

    fn value(&self) -> std::io::Result<String> {
        fs::read_to_string(format!("/proc/{}/oom_score_adj", self.process.id()))
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// Mounts a directory on another and takes it off again as fast as it can while `body` runs; answers how often.
fn while_mounting<T>(source: &Path, on: &[&Path], body: impl FnOnce() -> T) -> (T, u32) {
    let (stop, times) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none: Option<&str> = None;
            while !stop.load(Ordering::Relaxed) {
                for on in on {
                    if nix::mount::mount(Some(source), *on, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).is_ok() {
                        times.fetch_add(1, Ordering::Relaxed);
                    }
                }
                for on in on {
                    let _ = nix::mount::umount2(*on, nix::mount::MntFlags::MNT_DETACH);
                }
            }
        });
        let answer = body();
        stop.store(true, Ordering::Relaxed);
        (answer, times.load(Ordering::Relaxed))
    })
}

/// CVE-2025-52881: what the runtime writes to /proc is sent to another file of /proc, by mounts that are made while the container is: by a symlink
/// on the way to a mount's destination, by mounts that travel into the container through a volume that it shares, and by mounts in its image.
/// The check that it is a file of /proc does not help: it is one.
fn redirected(lab: &Lab, mask: &[&str]) -> TestResult {
    let mut field = Field::new(lab)?;
    let none: Option<&str> = None;
    let (volume, fake) = (lab.dir().join("volume"), lab.dir().join("fake"));
    tmpfs(&volume, MsFlags::empty())?;
    nix::mount::mount(none, &volume, none, MsFlags::MS_SHARED, none)?;
    let decoy = Decoy::new(&fake)?;
    fs::create_dir(volume.join("way"))?;
    fs::create_dir(volume.join("more"))?;
    symlink("/proc/sys/net/ipv4", volume.join("trap"))?;
    field.directories(&["vol", "proc/sys/net/ipv4"])?;
    let image = field.bundle.rootfs();
    nix::mount::mount(Some(&image), &image, none, MsFlags::MS_BIND, none)?;
    nix::mount::mount(none, &image, none, MsFlags::MS_SHARED, none)?;
    field.mount(json!({ "destination": "/vol", "source": volume, "options": ["rbind", "rslave"] }))?;
    field.mount(json!({ "destination": "/vol/way", "source": fake, "options": ["rbind"] }))?;
    field.config(|config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        config["process"]["args"] = json!(["cat", "/proc/sys/net/ipv4/ip_forward"]);
    })?;
    let (way, trap) = (volume.join("way"), volume.join("trap"));
    let own = image.join("proc/sys/net/ipv4");
    let ((told, swaps), mounts) = while_mounting(&fake, &[&volume.join("more"), &own], || {
        while_swapping(&way, &trap, || (0..ROUNDS).map(|_| field.told_with(mask)).collect::<Vec<_>>())
    });
    let _ = nix::mount::umount2(&image, nix::mount::MntFlags::MNT_DETACH);
    assert!(swaps > ROUNDS && mounts > ROUNDS, "nothing was tried: {swaps} swaps, {mounts} mounts");
    assert_eq!(decoy.value()?.trim(), "7", "the parameter was written to another file");
    for told in &told {
        match told.code {
            0 => assert_eq!(told.out, "1\n", "the parameter is not what was asked for"),
            code => assert_eq!(code, 1, "{}", told.err),
        }
    }
    note(format!("{} of {ROUNDS} containers ran", told.iter().filter(|told| told.code == 0).count()));
    // The trap would have caught it.
    fs::write(fake.join("ip_forward"), "1")?;
    assert_eq!(decoy.value()?.trim(), "1");
    Ok(())
}

pub fn a_parameter_is_written_where_it_belongs_whatever_others_mount(lab: &Lab) -> TestResult {
    redirected(lab, &[])
}

pub fn a_parameter_is_written_where_it_belongs_by_the_older_calls_too(lab: &Lab) -> TestResult {
    redirected(lab, &["--mask", "kernel.mount_api", "--mask", "kernel.mount_setattr"])
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: what looks like /proc or /sys must be it.
pub fn an_image_that_fakes_proc_or_sys_is_refused(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let root = field.bundle.rootfs();
    for name in ["proc", "sys"] {
        fs::remove_dir(root.join(name))?;
        symlink("tmp", root.join(name))?;
        field.is_refused(&[&format!("/{name} in the image is not a directory")])?;
        fs::remove_file(root.join(name))?;
        fs::create_dir(root.join(name))?;
    }
    let fake = field.host("fake")?;
    for destination in ["/proc", "/proc/self/attr", "/proc/sys", "/dev/../proc/self"] {
        field.mounts_are(7)?;
        field.mount(json!({ "destination": destination, "source": fake, "options": ["bind"] }))?;
        field.is_refused(&["it could hide what the runtime writes to /proc"])?;
    }
    // By way of a symlink in the image: found out when it is resolved.
    symlink("/proc/self", root.join("way"))?;
    field.mounts_are(7)?;
    field.mount(json!({ "destination": "/way/attr", "source": fake, "options": ["bind"] }))?;
    field.is_refused(&["leads into /proc"])?;
    Ok(())
}

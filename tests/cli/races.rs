//! What an image, a volume or another container may do to a mount while it is made: nothing of the host's changes, whatever comes of the
//! container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lifecycle_tests::harness::{TestResult, note};
use lifecycle_tests::lab::Lab;
use nix::mount::MsFlags;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::fields::{Field, tmpfs};

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
            assert!(matches!(told.code, 0 | 125), "{}: {}", told.code, told.err);
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

//! What the runtime makes where somebody else may write is exchanged between two of its calls: whoever races with it wins, each time. Nothing of
//! the host's gets other permissions, another owner or a new name by that.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::killer::{When, run_meddling};
use lifecycle_tests::lab::Lab;
use nix::mount::MsFlags;
use serde_json::json;

use crate::fields::{Field, tmpfs};
use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_device_that_is_exchanged_for_a_link_changes_no_file_of_the_host,
        a_device_that_is_exchanged_for_a_file_gives_that_to_nobody,
        a_dev_that_leads_into_a_volume_is_not_filled,
        a_directory_that_is_exchanged_on_the_host_changes_no_other,
        what_lies_on_the_way_is_exchanged_and_nothing_is_made_or_removed_elsewhere,
    ];
    tests.into_iter().map(|test| test.within("exchanged").needs(&[Root, Program("busybox")])).collect()
}

/// A file of the host that root alone may read.
struct Secret(PathBuf);

impl Secret {
    fn new(at: PathBuf) -> std::io::Result<Self> {
        fs::write(&at, "of the host\n")?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o600))?;
        Ok(Self(at))
    }

    #[track_caller]
    fn is_as_before(&self, how: &str) {
        let stat = fs::symlink_metadata(&self.0).unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o600, 0, 0), "{how}: the host's file was changed");
    }
}

/// A volume, as another container has it too, and a container that has it on /data.
fn with_volume(lab: &Lab) -> Result<(Field<'_>, PathBuf), Box<dyn std::error::Error>> {
    let mut field = Field::new(lab)?;
    let volume = lab.dir().join("volume");
    tmpfs(&volume, MsFlags::empty())?;
    field.mount(json!({ "destination": "/data", "source": volume, "options": ["rbind"] }))?;
    field.bundle.runs(&["true"])?;
    Ok((field, volume))
}

/// The devices in a directory, by name.
fn devices(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let devices = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()));
    devices.map(|entry| entry.path()).collect()
}

/// The container's image has this link, and a device is asked for in the volume.
fn asked_for(field: &mut Field, link: Option<[&str; 2]>, owner: u32) -> TestResult {
    let root = field.bundle.rootfs();
    for path in ["data", "dev"].map(|name| root.join(name)) {
        let _ = fs::remove_file(&path);
        fs::create_dir_all(&path)?;
    }
    if let Some([name, target]) = link {
        fs::remove_dir(root.join(name))?;
        symlink(target, root.join(name))?;
    }
    field.config(|config| {
        config["linux"]["devices"] = json!([
            { "path": "/data/asked", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": owner, "gid": owner }
        ]);
        config["linux"]["maskedPaths"] = json!([]);
    })?;
    Ok(())
}

const LINKS: [Option<[&str; 2]>; 3] = [None, Some(["data", "dev"]), Some(["dev", "data"])];

pub fn a_device_that_is_exchanged_for_a_link_changes_no_file_of_the_host(lab: &Lab) -> TestResult {
    let (mut field, volume) = with_volume(lab)?;
    let secret = Secret::new(lab.dir().join("secret"))?;
    for (link, owner) in LINKS.into_iter().flat_map(|link| [(link, 0), (link, 1234)]) {
        asked_for(&mut field, link, owner)?;
        let mut exchanged = 0;
        let mut exchange = || {
            for device in devices(&volume) {
                let made = fs::remove_file(&device).and_then(|()| symlink(&secret.0, &device));
                exchanged += i32::from(made.is_ok());
            }
        };
        run_meddling(&mut field.command(&[]), "mknodat", When::After, &mut exchange)?;
        let how = format!("{link:?}, owner {owner}");
        assert!(exchanged > 0, "{how}: nothing was exchanged");
        secret.is_as_before(&how);
        for left in fs::read_dir(&volume)? {
            fs::remove_file(left?.path())?;
        }
    }
    Ok(())
}

/// A link would not be followed; but a file of the same file system that root alone may read has the name now.
pub fn a_device_that_is_exchanged_for_a_file_gives_that_to_nobody(lab: &Lab) -> TestResult {
    let (mut field, volume) = with_volume(lab)?;
    let asked = volume.join("asked");
    for device in [false, true] {
        asked_for(&mut field, None, 1234)?;
        let secret = Secret::new(volume.join("secret"))?;
        if device {
            // A device that the volume's users may not open.
            fs::remove_file(&secret.0)?;
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
            nix::sys::stat::mknod(&secret.0, nix::sys::stat::SFlag::S_IFCHR, mode, libc::makedev(1, 1))?;
        }
        let mut exchanged = false;
        let mut exchange = || {
            exchanged = exchanged || (asked.exists() && fs::rename(&secret.0, &asked).is_ok());
        };
        run_meddling(&mut field.command(&[]), "mknodat", When::After, &mut exchange)?;
        assert!(exchanged, "nothing was exchanged");
        Secret(asked.clone()).is_as_before(&format!("exchanged for a device: {device}"));
        fs::remove_file(&asked)?;
    }
    Ok(())
}

/// CVE-2026-41579 and its kin: where a volume has come to lie on /dev by way of a link in the image, that is the host's, and no node is made there.
pub fn a_dev_that_leads_into_a_volume_is_not_filled(lab: &Lab) -> TestResult {
    let (mut field, volume) = with_volume(lab)?;
    for link in [["data", "dev"], ["dev", "data"]] {
        asked_for(&mut field, Some(link), 0)?;
        field.config(|config| config["linux"]["devices"] = json!([]))?;
        let told = field.told();
        assert!(matches!(told.code, 0 | 1), "{link:?}: {}: {}", told.code, told.err);
        let left: Vec<_> = fs::read_dir(&volume)?.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "{link:?}: something was made in the volume");
        // One that is asked for in /dev must not come to lie there either.
        let asked = json!([{ "path": "/dev/asked", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }]);
        field.config(|config| config["linux"]["devices"] = asked)?;
        field.is_refused(&["/dev/asked", "leads into a directory of the host"])?;
        assert_eq!(devices(&volume), BTreeSet::new(), "{link:?}");
    }
    // Where the config itself binds a directory of the host there, what it asks for is made.
    asked_for(&mut field, None, 0)?;
    field.told().ended(0);
    assert_eq!(devices(&volume), BTreeSet::from([volume.join("asked")]));
    Ok(())
}

/// A plan with one step, in a directory that belongs to somebody else.
fn plan(scene: &Scene, step: &str) -> lifecycle_tests::Result<String> {
    let file = scene.write("plan.yaml", &format!("plan: one\nsteps:\n  one: {{ {step} }}\n"))?;
    Ok(file.display().to_string())
}

pub fn a_directory_that_is_exchanged_on_the_host_changes_no_other(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let theirs = lab.dir().join("theirs");
    fs::create_dir(&theirs)?;
    let secret = Secret::new(lab.dir().join("secret"))?;
    let path = theirs.join("made");
    for mode in ["0777", "02775"] {
        let plan =
            plan(&scene, &format!("uses: fs.directory, with: {{ path: {}, mode: \"{mode}\" }}", path.display()))?;
        let mut exchanged = 0;
        let mut exchange = || {
            for entry in fs::read_dir(&theirs).into_iter().flatten().flatten() {
                let link = fs::remove_dir(entry.path()).and_then(|()| symlink(&secret.0, entry.path()));
                exchanged += i32::from(link.is_ok());
            }
        };
        run_meddling(&mut scene.command(&["run", &plan]), "mkdirat", When::After, &mut exchange)?;
        assert!(exchanged > 0, "nothing was exchanged");
        secret.is_as_before(mode);
        fs::remove_dir_all(&theirs)?;
        fs::create_dir(&theirs)?;
    }
    Ok(())
}

/// CVE-2024-45310 on the host's side: the directories around something are made with it, and the first of them becomes a link.
pub fn what_lies_on_the_way_is_exchanged_and_nothing_is_made_or_removed_elsewhere(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let (theirs, outside) = (lab.dir().join("theirs"), lab.dir().join("outside"));
    fs::create_dir(&theirs)?;
    fs::create_dir(&outside)?;
    fs::create_dir(outside.join("theirs too"))?;
    // Below the outermost, of which one is made, or has the name of one that is there.
    for (below, calls) in [("b/c", 1), ("theirs too", 1), ("theirs too", 2)] {
        let path = format!("\"{}/a/{below}\"", theirs.display());
        let plan = plan(&scene, &format!("uses: fs.directory, with: {{ path: {path} }}"))?;
        let (mut made, mut exchanged) = (0, 0);
        let mut exchange = || {
            // The program makes directories of its own, too.
            let Some(entry) = fs::read_dir(&theirs).into_iter().flatten().flatten().next() else { return };
            made += 1;
            if made == calls {
                let link = fs::remove_dir_all(entry.path()).and_then(|()| symlink(&outside, entry.path()));
                exchanged += i32::from(link.is_ok());
            }
        };
        run_meddling(&mut scene.command(&["run", &plan]), "mkdirat", When::After, &mut exchange)?;
        assert!(exchanged > 0, "{below}: nothing was exchanged");
        let mut left: Vec<_> = fs::read_dir(&outside)?.flatten().map(|entry| entry.file_name()).collect();
        left.sort_unstable();
        assert_eq!(left, ["theirs too"], "{below}, after {calls}: something was made or removed on the host");
        fs::remove_dir_all(&theirs)?;
        fs::create_dir(&theirs)?;
    }
    Ok(())
}

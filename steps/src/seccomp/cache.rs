//! Compiled filters, kept by content. To compile the profile that container engines use takes fifteen times as long as to load it.
//!
//! A cache is no fact about the host: what comes from it is what would be computed. So planning reads it beside the facts, and a plan is the same
//! whether there is one or not. Nothing in it is believed that is not provably ours and whole; where it cannot be used, filters are compiled.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use libseccomp::{ScmpArch, ScmpVersion};
use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::sha256;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::compile;
use crate::spec::Seccomp;

/// A filter, and what it is known by.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The hash of all that it depends on.
    pub key: String,
    /// The program, as seccomp(2) takes it.
    pub program: Rc<[u8]>,
    /// It came from the cache.
    pub kept: bool,
}

/// Larger than any filter that the kernel takes: 32768 instructions.
const LARGEST: u64 = 512 << 10;
/// The first words of a file in the cache.
const MAGIC: &str = "lifecycle-seccomp-1";
/// Where group or others may write, what is there may be anybody's.
const WRITABLE_BY_OTHERS: u32 = 0o022;

thread_local! {
    /// The last one: a plan names its profile in several steps.
    static LAST: RefCell<Option<Compiled>> = const { RefCell::new(None) };
}

/// The filter of a profile: as it is kept in that directory, or compiled.
pub(crate) fn compiled(profile: &Seccomp, directory: Option<&Path>) -> Result<Compiled, PlanError> {
    let key = key(profile);
    if let Some(last) = LAST.with_borrow(Clone::clone).filter(|last| last.key == key) {
        return Ok(last);
    }
    let found = directory.and_then(|directory| read(directory, &key));
    let compiled = match found {
        Some(program) => Compiled { key, program, kept: true },
        None => Compiled { key, program: compile(profile)?.into(), kept: false },
    };
    LAST.set(Some(compiled.clone()));
    Ok(compiled)
}

/// Of all that decides what the filter is: the profile, the machine, the library, and the code of this program that drives it.
fn key(profile: &Seccomp) -> String {
    // Whom an agent is told about differs from container to container, and is no part of the filter.
    let profile = Seccomp { listener_path: None, listener_metadata: None, ..profile.clone() };
    // A profile is plain data, which always serialises.
    let mut text = serde_json::to_string(&profile).unwrap_or_default();
    let version = ScmpVersion::current().map(|v| format!("{}.{}.{}", v.major, v.minor, v.micro)).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{:?} {version} {}", ScmpArch::native(), env!("LIFECYCLE_SECCOMP_COMPILER"));
    sha256(text.as_bytes())
}

/// What a file with this program holds: its name and its hash, then the program.
pub(crate) fn file(key: &str, program: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC} {key} {}\n", sha256(program)).into_bytes();
    bytes.extend_from_slice(program);
    bytes
}

/// The program in it, if the file is what [`file`] wrote for this key.
fn program(key: &str, bytes: &[u8]) -> Option<Rc<[u8]>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, program) = (&bytes[..end], &bytes[end + 1..]);
    let wanted = format!("{MAGIC} {key} {}", sha256(program));
    (head == wanted.as_bytes() && !program.is_empty() && program.len() % 8 == 0).then(|| program.into())
}

/// The cache's directory, if it is there and nobody else can have written into it.
pub(crate) fn open(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty()).ok()?;
    is_ours(&directory, FileType::Directory).then_some(directory)
}

fn is_ours(fd: &OwnedFd, kind: FileType) -> bool {
    fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == kind
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & WRITABLE_BY_OTHERS == 0
    })
}

/// The program that is kept, if there is one and it is whole and ours.
pub(crate) fn read(directory: &Path, key: &str) -> Option<Rc<[u8]>> {
    let directory = open(directory)?;
    // Never waits for the writer of a FIFO that somebody has put there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = openat(&directory, key, flags, Mode::empty()).ok()?;
    if !is_ours(&found, FileType::RegularFile) {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(found).take(LARGEST).read_to_end(&mut bytes).ok()?;
    program(key, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn profile(errno: u32) -> Seccomp {
        let text = format!(
            r#"{{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": {errno} }}] }}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn another_profile_has_another_key() {
        assert_ne!(key(&profile(1)), key(&profile(2)));
        assert_eq!(key(&profile(1)), key(&profile(1)));
    }

    #[test]
    fn what_the_agent_is_told_is_no_part_of_the_key() {
        let told = |path: &str, metadata: &str| {
            let (listener_path, listener_metadata) = (Some(path.into()), Some(metadata.into()));
            key(&Seccomp { listener_path, listener_metadata, ..profile(1) })
        };
        assert_eq!(told("/run/a.sock", "web"), told("/run/b.sock", "db"));
        assert_eq!(told("/run/a.sock", "web"), key(&profile(1)));
    }

    #[test]
    fn only_what_is_whole_and_ours_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (key, right) = (key(&profile(1)), compile(&profile(1)).unwrap());
        let path = dir.path().join(&key);
        let put = |bytes: &[u8]| {
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
        };
        let whole = file(&key, &right);
        put(&whole);
        assert_eq!(read(dir.path(), &key).as_deref(), Some(right.as_slice()));
        // Damaged, cut off, under another name, of another profile.
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let elsewhere = file("another", &right);
        for wrong in [damaged.as_slice(), &whole[..whole.len() - 8], &whole[..20], &[], &elsewhere] {
            put(wrong);
            assert_eq!(read(dir.path(), &key), None);
        }
        // Somebody else can write it, or its directory; a link; a FIFO.
        put(&whole);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(read(dir.path(), &key), None);
        put(&whole);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(read(dir.path(), &key), None);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        symlink("moved", &path).unwrap();
        assert_eq!(read(dir.path(), &key), None);
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(dir.path(), &key), None);
    }
}

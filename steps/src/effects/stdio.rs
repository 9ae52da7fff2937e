//! The caller's pipes and sockets that are a container's stdin, stdout and stderr belong to its user, who may open them again by /dev/stdout or
//! /proc/self/fd/1 then.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, Uid, fchown, fstat, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::example_process;
use super::idmap::directory;
use crate::made;
use crate::outcomes::Process;

/// Gives the engine's own stdin, stdout and stderr to a user of the container, where they are pipes or sockets. Their group stays.
///
/// A file or a device is nobody's to give: it is the host's, and others have it too. What each of them is the kernel says of the descriptor.
///
/// Undo gives them back, to whom they belonged, if they can be reached: by the engine's own descriptors, or by the name of a FIFO. A pipe that
/// cannot has gone, or goes with the last who has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct GiveStdio {
    /// The process that has them too, whose user namespace maps the user's id.
    pub process: Handle<Process>,
    /// The user, in the container's ids.
    pub user: u32,
}

/// A pipe or a socket, as it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    /// Which of the three it is, the first one if more are the same.
    fd: usize,
    device: u64,
    inode: u64,
    /// Whose it was.
    from: u32,
    /// Whose it is to be.
    to: u32,
    /// The name of a FIFO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

impl EffectDef for GiveStdio {
    const KIND: &'static str = "stdio_owner";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: example_process(), user: 1000 }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("give pipes and sockets of stdin, stdout and stderr to user {} of {}", self.user, self.process)
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        let process = cx.resolve(&self.process)?;
        // An id that is not mapped is nobody's on the host.
        let Some(to) = on_host(self.user, &process)? else { return Ok(Value::Null) };
        let mut given: Vec<Given> = Vec::new();
        for (fd, stat) in (0..).zip(streams().map(fstat)).filter_map(|(fd, stat)| Some((fd, stat.ok()?))) {
            let is_there = given.iter().any(|one| (one.device, one.inode) == (stat.st_dev, stat.st_ino));
            if is_pipe_or_socket(&stat) && stat.st_uid != to && !is_there {
                let path = name_of(fd);
                given.push(Given { fd, device: stat.st_dev, inode: stat.st_ino, from: stat.st_uid, to, path });
            }
        }
        Ok(json!(given))
    }

    fn apply(&self, before: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        for one in read(before) {
            match give(streams()[one.fd], one.to) {
                // Whoever may not give files away is an ordinary user, whose container's user is himself, or none who could have them.
                Ok(()) | Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
                Err(e) => return Err(EffectError::call(format!("fchown({}, {}, -1)", one.fd, one.to), e)),
            }
        }
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        for one in read(&record.before) {
            one.give_back()?;
        }
        Ok(Undone::Done)
    }
}

fn read(before: &Value) -> Vec<Given> {
    serde_json::from_value(before.clone()).unwrap_or_default()
}

impl Given {
    fn is(&self, stat: &Stat) -> bool {
        is_pipe_or_socket(stat) && (stat.st_dev, stat.st_ino, stat.st_uid) == (self.device, self.inode, self.to)
    }

    fn give_back(&self) -> Result<(), EffectError> {
        let failed = |e| EffectError::call(format!("fchown(standard stream {}, {}, -1)", self.fd, self.from), e);
        if let Some(own) = streams().into_iter().find(|fd| fstat(fd).is_ok_and(|stat| self.is(&stat))) {
            return give(own, self.from).map_err(failed);
        }
        let Some(path) = &self.path else { return Ok(()) };
        // By its name it may be another one by now; what is opened does not wait for anybody.
        let Ok(fifo) = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) else {
            return Ok(());
        };
        match fstat(&fifo) {
            Ok(stat) if self.is(&stat) => made::give(&fifo, path, (self.from, stat.st_gid)),
            _ => Ok(()),
        }
    }
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [stdin(), stdout(), stderr()]
}

fn is_pipe_or_socket(stat: &Stat) -> bool {
    matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket)
}

fn give(fd: impl AsFd, to: u32) -> Result<(), Errno> {
    fchown(fd, Some(Uid::from_raw(to)), None)
}

/// The name of a FIFO that has one.
fn name_of(fd: usize) -> Option<PathBuf> {
    let link = readlinkat(CWD, format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
    let path = PathBuf::from(link.into_string().ok()?);
    path.is_absolute().then_some(path)
}

/// The id on the host of an id of the process's user namespace, if that maps it: proc_pid_uid_map(5).
fn on_host(user: u32, process: &Process) -> Result<Option<u32>, EffectError> {
    let failed = |e| EffectError::call(format!("read(/proc/{}/uid_map)", process.pid), e);
    let of = directory(process)?;
    let map: OwnedFd =
        openat(&of, "uid_map", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed(e.into()))?;
    let mut text = String::new();
    std::fs::File::from(map).read_to_string(&mut text).map_err(failed)?;
    Ok(text.lines().find_map(|line| mapped(line, user)))
}

fn mapped(line: &str, user: u32) -> Option<u32> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(host)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
        return None;
    };
    let (first, host, count): (u32, u32, u32) = (first, host, count);
    user.checked_sub(first).filter(|offset| *offset < count).and_then(|offset| host.checked_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::{Bench, in_child};
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

    fn owners() -> [u32; 3] {
        streams().map(|fd| fstat(fd).unwrap().st_uid)
    }

    fn bench(dir: &Path) -> Bench {
        let own = Process::of(rustix::process::getpid()).unwrap();
        Bench::new(dir).knowing("init", serde_json::to_value(own).unwrap())
    }

    #[test]
    fn pipes_and_sockets_are_given_and_come_back_and_files_and_devices_never() {
        let dir = tempfile::tempdir().unwrap();
        in_child(|| {
            let mut bench = bench(dir.path());
            let effect = &GiveStdio::examples(dir.path())[0];
            let (_read, pipe) = rustix::pipe::pipe().unwrap();
            let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            dup2_stdin(&socket).unwrap();
            dup2_stdout(&pipe).unwrap();
            dup2_stderr(&pipe).unwrap();
            let (record, answer) = bench.apply(effect);
            answer.unwrap();
            assert_eq!(owners(), [1000; 3]);
            for _ in 0..2 {
                bench.undo(effect, &record).unwrap();
                assert_eq!(owners(), [0; 3]);
            }
            // Somebody else's by now.
            fchown(&pipe, Some(Uid::from_raw(7)), None).unwrap();
            bench.undo(effect, &record).unwrap();
            assert_eq!(owners(), [0, 7, 7]);
            let file = std::fs::File::create(dir.path().join("file")).unwrap();
            let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
            dup2_stdin(&null).unwrap();
            dup2_stdout(&file).unwrap();
            dup2_stderr(&file).unwrap();
            bench.apply(effect).1.unwrap();
            assert_eq!(owners(), [0; 3]);
        });
    }

    #[test]
    fn a_fifo_comes_back_by_its_name_if_it_is_still_that_one() {
        let dir = tempfile::tempdir().unwrap();
        in_child(|| {
            let path = dir.path().join("fifo");
            let make = || rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
            let owner = || std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(&path).unwrap());
            let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
            let mut bench = bench(dir.path());
            let effect = &GiveStdio::examples(dir.path())[0];
            make();
            dup2_stdout(open(&path, OFlags::RDWR, Mode::empty()).unwrap()).unwrap();
            let (record, answer) = bench.apply(effect);
            answer.unwrap();
            dup2_stdout(&null).unwrap();
            assert_eq!(owner(), 1000);
            bench.undo(effect, &record).unwrap();
            assert_eq!(owner(), 0);
            std::fs::rename(&path, dir.path().join("old")).unwrap();
            make();
            std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
            bench.undo(effect, &record).unwrap();
            assert_eq!(owner(), 1000, "another FIFO of that name was given away");
        });
    }

    #[test]
    fn an_id_is_mapped_as_the_kernel_says() {
        let line = "         10     100000         5";
        assert_eq!([9, 10, 14, 15].map(|id| mapped(line, id)), [None, Some(100_000), Some(100_004), None]);
        assert_eq!(mapped("0 0 4294967295", 1000), Some(1000));
    }
}

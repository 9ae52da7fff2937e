//! A program in criu's place. It speaks criu's protocol (`criu swrk FD`) and notes what it is asked for, but what it saves and brings back is
//! one process that sleeps.
//!
//! The program is this test program, started by a small script: see [`install`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, unlockpt};

use crate::harness::Need;
use crate::{Error, Result, While, sys};

/// Where it is. Set by the script.
const PLACE: &str = "LIFECYCLE_TEST_CRIU";
/// The file that has what it is asked for, if anybody wants that. Set by the script.
const TOLD: &str = "LIFECYCLE_TEST_CRIU_TOLD";
/// criu's own description of its protocol, of Debian's package.
const PROTOCOL: &str = "/usr/include/criu/rpc.proto";

/// What it takes to name what it is asked for.
pub fn named() -> Need {
    Need::Other(Path::new(PROTOCOL).is_file(), "criu's rpc.proto, of Debian's package criu")
}

/// Puts it into a directory as `criu`. What it is asked for is noted in `told`, a line for each request. A file `terminal` in the directory makes
/// what it brings back have one.
pub fn install(dir: &Path, told: Option<&Path>) -> Result<PathBuf> {
    let this = std::env::current_exe().when(|| "finding this program".into())?;
    let script = format!(
        "#!/bin/sh\ncase $1 in\n--version) echo 'Version: 9.9'; exit ;;\ncheck) exit 0 ;;\nesac\n\
         export {PLACE}=${{0%/*}} {TOLD}={}\nexec {} \"$@\"\n",
        told.unwrap_or(Path::new("")).display(),
        this.display()
    );
    let path = dir.join("criu");
    let doing = || format!("making {}", path.display());
    fs::write(&path, script).when(doing)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).when(doing)?;
    Ok(path)
}

/// What this process does as criu, if that is what it is. Asked first of all in a test program.
pub fn acts() -> Option<ExitCode> {
    let place = PathBuf::from(std::env::var_os(PLACE)?);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    Some(act(&place, &arguments).unwrap_or_else(|error| {
        eprintln!("in criu's place: {error}");
        ExitCode::FAILURE
    }))
}

/// criu_req_type.
const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const PRE_DUMP: u64 = 4;
const NOTIFY: u64 = 6;

fn act(place: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let number = |at: usize| arguments.get(at).and_then(|word| word.to_str()).and_then(|word| word.parse().ok());
    let fd = number(1).ok_or_else(|| Error::new("reading its arguments", format!("{arguments:?}")))?;
    let talk = Talk { socket: sys::inherited(fd).when(|| format!("looking at descriptor {fd}"))?, place };
    if arguments.first().is_some_and(|word| word == "finish") {
        return talk.finish();
    }
    let request = talk.hear()?.ok_or_else(|| Error::new("hearing a request", "there is none"))?;
    let kind = request.number(1).unwrap_or_default();
    let options = Fields::of(request.bytes(2).unwrap_or_default());
    talk.note(kind, &options)?;
    match kind {
        DUMP | PRE_DUMP => talk.dump(kind, &options),
        RESTORE => talk.restore(),
        kind => Err(Error::new("serving a request", format!("no such type: {kind}"))),
    }
}

struct Talk<'a> {
    socket: BorrowedFd<'a>,
    place: &'a Path,
}

impl Talk<'_> {
    fn hear(&self) -> Result<Option<Fields>> {
        let mut bytes = vec![0; 1 << 16];
        let (length, _) = recv(self.socket, &mut bytes[..], RecvFlags::empty()).when(|| "hearing".into())?;
        Ok((length > 0).then(|| Fields::of(&bytes[..length])))
    }

    fn say(&self, message: &[u8], with: Option<&OwnedFd>) -> Result<()> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd> = with.iter().map(|fd| fd.as_fd()).collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(self.socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)
            .map(drop)
            .when(|| "saying".into())
    }

    /// Its last word.
    fn done(&self, kind: u64) -> Result<()> {
        self.say(&[number(1, kind), number(2, 1)].concat(), None)
    }

    /// Whether it may go on from a stage.
    fn stage(&self, name: &str, pid: Option<u32>, with: Option<&OwnedFd>) -> Result<bool> {
        let notify = [text(1, name.as_bytes()), pid.map(|pid| number(2, pid.into())).unwrap_or_default()].concat();
        self.say(&[number(1, NOTIFY), number(2, 1), text(5, &notify)].concat(), with)?;
        Ok(self.hear()?.is_some_and(|answer| answer.number(1) == Some(NOTIFY) && answer.number(3) == Some(1)))
    }

    /// A file of whoever asks.
    fn of_the_caller(&self, fd: u64) -> Result<PathBuf> {
        let caller = socket_peercred(self.socket).when(|| "asking who calls".into())?;
        Ok(format!("/proc/{}/fd/{fd}", caller.pid).into())
    }

    fn note(&self, kind: u64, options: &Fields) -> Result<()> {
        let Some(told) = std::env::var_os(TOLD).filter(|told| !told.is_empty()) else { return Ok(()) };
        let verb = match kind {
            DUMP => "dump",
            RESTORE => "restore",
            _ => "pre-dump",
        };
        let names = names();
        let mut words = vec![verb.to_owned()];
        for (field, value) in &options.0 {
            let name = names.get(field).cloned().unwrap_or_else(|| field.to_string());
            let value = match value {
                Field::Number(fd) if name.ends_with("dir_fd") => {
                    let path = self.of_the_caller(*fd)?;
                    fs::read_link(&path).when(|| format!("reading {}", path.display()))?.display().to_string()
                }
                Field::Number(number) => number.to_string(),
                Field::Bytes(bytes) if ["ps", "cg_root", "inherit_fd"].contains(&name.as_str()) => {
                    Fields::of(bytes).0.iter().map(|(_, value)| value.text()).collect::<Vec<_>>().join(":")
                }
                value @ Field::Bytes(_) => value.text(),
            };
            words.push(format!("{name}={value}"));
        }
        let mut file = fs::File::options().append(true).create(true).open(&told).when(|| "opening told".into())?;
        writeln!(file, "{}", words.join(" ")).when(|| "noting what it is told".into())
    }

    fn dump(&self, kind: u64, options: &Fields) -> Result<ExitCode> {
        let images = self.of_the_caller(options.number(1).unwrap_or_default())?;
        let image = images.join(if kind == DUMP { "inventory.img" } else { "pages-1.img" });
        fs::write(&image, "image\n").when(|| format!("writing {}", image.display()))?;
        if let Some(fd) = options.number(49) {
            fs::write(self.of_the_caller(fd)?, "ready\n").when(|| "telling that it is ready".into())?;
        }
        let tree = options.number(2).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(tree) = tree.filter(|_| kind == DUMP && options.number(3) != Some(1)) {
            kill_process(tree, Signal::KILL).when(|| "killing what it has saved".into())?;
        }
        self.done(kind)?;
        // After a pre-dump another request is expected, and its absence an error.
        Ok(ExitCode::from(u8::from(kind == PRE_DUMP && self.hear()?.is_none())))
    }

    fn restore(&self) -> Result<ExitCode> {
        if !self.stage("pre-restore", None, None)? {
            return Ok(ExitCode::FAILURE);
        }
        let mut sleeps = Command::new("sleep");
        let sleeps = sleeps.arg("604").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = sleeps.spawn().when(|| "starting sleep".into())?;
        let restored = self.fill(&process).unwrap_or(false);
        if !restored {
            process.kill().and_then(|()| process.wait()).when(|| "killing sleep".into())?;
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn fill(&self, process: &Child) -> Result<bool> {
        let pid = Some(process.id());
        if !self.stage("setup-namespaces", pid, None)? || !self.stage("post-setup-namespaces", None, None)? {
            return Ok(false);
        }
        if self.place.join("terminal").exists() {
            let doing = || "opening a terminal".to_owned();
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).when(doing)?;
            unlockpt(&master).when(doing)?;
            if !self.stage("orphan-pts-master", None, Some(&master))? {
                return Ok(false);
            }
        }
        if !self.stage("post-restore", pid, None)? {
            return Ok(false);
        }
        self.done(RESTORE).map(|()| true)
    }

    /// The rest of a restore, for whoever has made a process himself.
    fn finish(&self) -> Result<ExitCode> {
        if self.hear()?.is_none() || !self.stage("post-restore", None, None)? {
            return Ok(ExitCode::FAILURE);
        }
        self.done(RESTORE)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The fields of criu_opts by number, as criu's rpc.proto has them.
fn names() -> BTreeMap<u64, String> {
    let text = fs::read_to_string(PROTOCOL).unwrap_or_default();
    let options = text.lines().skip_while(|line| !line.starts_with("message criu_opts ")).skip(1);
    let field = |line: &str| {
        let (left, right) = line.split_once('=')?;
        let number: String = right.trim().chars().take_while(char::is_ascii_digit).collect();
        Some((number.parse().ok()?, left.split_whitespace().last()?.to_owned()))
    };
    options.take_while(|line| !line.starts_with('}')).filter_map(field).collect()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn text(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// A message's, in their order.
struct Fields(Vec<(u64, Field)>);

impl Fields {
    /// What cannot be read ends them.
    fn of(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while let Some(field) = Self::next(&mut bytes) {
            fields.push(field);
        }
        Self(fields)
    }

    fn next(bytes: &mut &[u8]) -> Option<(u64, Field)> {
        let mut take = || {
            let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
            let (number, rest) = bytes.split_at(end + 1);
            *bytes = rest;
            Some(number.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f)))
        };
        let (key, value) = (take()?, take()?);
        if key % 8 == 0 {
            return Some((key / 8, Field::Number(value)));
        }
        let (content, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
        *bytes = rest;
        Some((key / 8, Field::Bytes(content.to_vec())))
    }

    fn number(&self, wanted: u64) -> Option<u64> {
        self.0.iter().find_map(|(field, value)| match value {
            Field::Number(number) if *field == wanted => Some(*number),
            _ => None,
        })
    }

    fn bytes(&self, wanted: u64) -> Option<&[u8]> {
        self.0.iter().find_map(|(field, value)| match value {
            Field::Bytes(bytes) if *field == wanted => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

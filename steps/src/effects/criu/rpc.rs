//! What criu(8) is told, in the protocol of `criu swrk FD`: a request and its answers, each a message of a unix socket, in protobuf.
//!
//! The command line has no word for a terminal whose other end is outside of the container. What it has words for is told in those: they are
//! what a dry run shows. Numbers are those of criu's images/rpc.proto.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use lifecycle_engine::effect::Interest;
use lifecycle_engine::error::EffectError;
use lifecycle_engine::journal::Foreign;
use rustix::fs::{CWD, Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown, SocketFlags,
    SocketType, recvmsg, send, shutdown, socketpair,
};

/// How an option of the command line is told.
#[derive(Clone, Copy)]
enum Form {
    /// It takes no value, and this is the field's.
    Is(u64),
    /// A number.
    Number,
    /// A text.
    Text,
    /// A directory, by a descriptor of the engine.
    Directory,
    /// `CONTROLLER:PATH`, or a path in every hierarchy.
    CgroupRoot,
    /// `fd[NUMBER]:NAME`.
    Inherited,
    /// Of the page server: with its other half one message.
    Address,
    /// As `Address`.
    Port,
    /// It is so anyway.
    Implied,
}

/// criu_opts: the command line's word, the field's number, and its form.
const OPTIONS: &[(&str, u64, Form)] = &[
    ("--images-dir", 1, Form::Directory),
    ("--tree", 2, Form::Number),
    ("--leave-running", 3, Form::Is(1)),
    ("--ext-unix-sk", 4, Form::Is(1)),
    ("--tcp-established", 5, Form::Is(1)),
    ("--evasive-devices", 6, Form::Is(1)),
    ("--shell-job", 7, Form::Is(1)),
    ("--file-locks", 8, Form::Is(1)),
    ("-v4", 9, Form::Is(4)),
    ("--log-file", 10, Form::Text),
    ("--page-server", PAGE_SERVER, Form::Implied),
    ("--address", 1, Form::Address),
    ("--port", 2, Form::Port),
    ("--root", 13, Form::Text),
    ("--prev-images-dir", 14, Form::Text),
    ("--track-mem", 15, Form::Is(1)),
    ("--auto-dedup", 16, Form::Is(1)),
    ("--work-dir", 17, Form::Directory),
    ("--link-remap", 18, Form::Is(1)),
    ("--cgroup-root", 25, Form::CgroupRoot),
    ("--restore-sibling", 26, Form::Is(1)),
    ("--inherit-fd", 27, Form::Inherited),
    ("--manage-cgroups=ignore", 34, Form::Is(0)),
    ("--manage-cgroups=soft", 34, Form::Is(3)),
    ("--manage-cgroups=full", 34, Form::Is(4)),
    ("--manage-cgroups=strict", 34, Form::Is(5)),
    ("--external", 37, Form::Text),
    ("--empty-ns=net", 38, Form::Is(nix::libc::CLONE_NEWNET as u64)),
    ("--freeze-cgroup", 44, Form::Text),
    ("--skip-in-flight", 46, Form::Is(1)),
    ("--lazy-pages", 48, Form::Is(1)),
    ("--status-fd", 49, Form::Number),
    ("--lsm-profile", 53, Form::Text),
    ("--cgroup-yard", 60, Form::Text),
    ("--lsm-mount-context", 63, Form::Text),
    ("--restore-detached", 0, Form::Implied),
];
/// criu_opts.ps.
const PAGE_SERVER: u64 = 11;
/// criu_opts.notify_scripts: criu says where it is, and waits for an answer.
const NOTIFY_SCRIPTS: u64 = 12;
/// criu_opts.orphan_pts_master: a terminal is saved without its other end, and a new one's is handed out.
const ORPHAN_PTS_MASTER: u64 = 50;

/// criu_req_type.
const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const PRE_DUMP: u64 = 4;
const NOTIFY: u64 = 6;

/// Larger than any answer: the longest text in it, of an error, has 128 bytes.
const ANSWER: usize = 4096;

/// A message in protobuf.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u64, number: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }
}

/// What criu is asked for.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// criu opens them by the engine's /proc/PID/fd.
    directories: Vec<OwnedFd>,
}

impl Request {
    /// Of a verb and its options, as the command line has them.
    pub fn of(words: &[String]) -> Result<Self, EffectError> {
        let mut words = words.iter().map(String::as_str);
        let verb = words.next().unwrap_or_default();
        let kind = match verb {
            "dump" => DUMP,
            "pre-dump" => PRE_DUMP,
            "restore" => RESTORE,
            _ => return Err(no_field(verb)),
        };
        let (mut options, mut server, mut directories) = (Message::default(), Message::default(), Vec::new());
        while let Some(word) = words.next() {
            let (_, field, form) = OPTIONS.iter().find(|(name, ..)| *name == word).ok_or_else(|| no_field(word))?;
            let mut value = || words.next().ok_or_else(|| no_field(word));
            match form {
                Form::Implied => &mut options,
                Form::Is(number) => options.number(*field, *number),
                Form::Number => options.number(*field, number(value()?)?),
                Form::Text => options.bytes(*field, value()?.as_bytes()),
                Form::Directory => {
                    let directory = directory(value()?)?;
                    let number = directory.as_raw_fd();
                    directories.push(directory);
                    options.number(*field, u64::from(number.unsigned_abs()))
                }
                Form::CgroupRoot => options.bytes(*field, &cgroup_root(value()?).0),
                Form::Inherited => options.bytes(*field, &inherited(value()?)?.0),
                Form::Address => server.bytes(*field, value()?.as_bytes()),
                Form::Port => server.number(*field, number(value()?)?),
            };
        }
        if !server.0.is_empty() {
            options.bytes(PAGE_SERVER, &server.0);
        }
        options.number(ORPHAN_PTS_MASTER, 1);
        if kind == RESTORE {
            options.number(NOTIFY_SCRIPTS, 1);
        }
        // Into the image too, but where that is brought back and the log lies elsewhere.
        let reads = usize::from(kind == RESTORE && directories.len() > 1);
        directories.iter().skip(reads).try_for_each(callers_own)?;
        let mut request = Message::default();
        request.number(1, kind).bytes(2, &options.0);
        Ok(Self { bytes: request.0, directories })
    }

    /// The directory of the image, to make and remove files in it.
    pub fn images(&self) -> Result<OwnedFd, EffectError> {
        let images = self.directories.first().ok_or_else(|| no_field("--images-dir"))?;
        openat(images, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| EffectError::call("open(the image's directory)", e))
    }
}

/// Where criu writes nobody else may: in a directory of another user a link in the place of the image's files, or of the log, leads criu, and
/// whoever takes the image back, to any file of the host. It is judged by the descriptor that criu gets.
fn callers_own(directory: &OwnedFd) -> Result<(), EffectError> {
    let failed = |errno| EffectError::call("fstat(a directory for criu)", errno);
    let Some(why) = Foreign::of(&fstat(directory).map_err(failed)?) else { return Ok(()) };
    let path = readlinkat(CWD, format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new()).map_err(failed)?;
    let path = path.to_string_lossy().into_owned();
    Err(EffectError::new(format!("{path} {why}")).help(format!(
        "criu writes there, and follows links: name a directory of the caller's own, or, if it is, look into it and chmod go-w {path}"
    )))
}

fn no_field(word: &str) -> EffectError {
    EffectError::new(format!("criu's protocol has no field for {word:?}, or for its value"))
}

fn number(text: &str) -> Result<u64, EffectError> {
    text.parse().map_err(|_| no_field(text))
}

fn directory(path: &str) -> Result<OwnedFd, EffectError> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| EffectError::call(format!("open({path})"), e))
}

fn cgroup_root(text: &str) -> Message {
    let mut message = Message::default();
    let path = match text.split_once(':') {
        Some((controller, path)) if !controller.starts_with('/') => {
            message.bytes(1, controller.as_bytes());
            path
        }
        _ => text,
    };
    message.bytes(2, path.as_bytes());
    message
}

fn inherited(text: &str) -> Result<Message, EffectError> {
    let (fd, name) = text.strip_prefix("fd[").and_then(|rest| rest.split_once("]:")).ok_or_else(|| no_field(text))?;
    let mut message = Message::default();
    message.bytes(1, name.as_bytes()).number(2, number(fd)?);
    Ok(message)
}

/// What criu says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    kind: u64,
    /// Whether what was asked for has been done.
    pub success: bool,
    /// The stage that it has come to, and waits in.
    pub stage: Option<String>,
    /// The first process, where the stage has one.
    pub pid: Option<i32>,
    /// Its first error.
    pub error: Option<String>,
    /// What came with it: of the stage `orphan-pts-master` the terminal's master.
    pub descriptor: Option<OwnedFd>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut answer = Self::default();
        let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
        for field in fields(bytes)? {
            match field {
                (1, Field::Number(kind)) => answer.kind = kind,
                (2, Field::Number(success)) => answer.success = success != 0,
                (5, Field::Bytes(notify)) => {
                    for field in fields(notify)? {
                        match field {
                            (1, Field::Bytes(stage)) => answer.stage = text(stage),
                            (2, Field::Number(pid)) => answer.pid = i32::try_from(pid).ok(),
                            _ => {}
                        }
                    }
                }
                (9, Field::Bytes(error)) => answer.error = text(error),
                _ => {}
            }
        }
        Some(answer)
    }

    /// Whether criu goes on when it is told to, and not before.
    pub fn waits(&self) -> bool {
        self.kind == NOTIFY
    }
}

/// Whether these bytes are an answer of criu's.
pub fn answer(bytes: &[u8]) -> bool {
    Answer::parse(bytes).is_some()
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Every field of a message; none if it is damaged.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Field::Number(take_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(value)
            }
            _ => return None,
        };
        all.push((key >> 3, value));
    }
    Some(all)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// What there is to be heard.
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// criu has closed its end.
    End,
    /// An answer.
    Answer(Answer),
}

/// The engine's end of the socket. Closed, it tells criu to take back what it has begun.
pub(super) struct Talk {
    socket: OwnedFd,
    _directories: Vec<OwnedFd>,
}

impl Talk {
    /// Both ends, with the request on its way; criu's end is for its descriptor of the same number.
    pub fn begin(request: Request) -> Result<(Self, OwnedFd), EffectError> {
        let (socket, criu) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| EffectError::call("socketpair(AF_UNIX, SOCK_SEQPACKET)", e))?;
        let talk = Self { socket, _directories: request.directories };
        talk.say(&request.bytes)?;
        Ok((talk, criu))
    }

    /// As [`Talk::into_socket`] has left it.
    pub fn resume(socket: OwnedFd) -> Self {
        Self { socket, _directories: Vec::new() }
    }

    /// What the rest of the talk takes.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    fn say(&self, bytes: &[u8]) -> Result<(), EffectError> {
        match rustix::io::retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL)) {
            // It has ended meanwhile, which its exit code tells.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(e) => Err(EffectError::call("send(to criu)", e)),
        }
    }

    /// Lets it go on from the stage that it waits in.
    pub fn go_on(&self) -> Result<(), EffectError> {
        let mut request = Message::default();
        request.number(1, NOTIFY).number(3, 1);
        self.say(&request.0)
    }

    /// Says that nothing more is asked for: after one `pre-dump` criu waits for another.
    pub fn no_more(&self) -> Result<(), EffectError> {
        shutdown(&self.socket, Shutdown::Write).map_err(|e| EffectError::call("shutdown(socket to criu)", e))
    }

    /// Until there is something to be heard.
    pub fn interest(&self) -> Interest {
        Interest::read(self.socket.as_raw_fd())
    }

    /// What there is to be heard now.
    pub fn hear(&self) -> Result<Heard, EffectError> {
        let failed = |e| EffectError::call("recvmsg(from criu)", e);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; ANSWER];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.socket, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
        });
        let received = match received {
            Err(Errno::AGAIN) => return Ok(Heard::Nothing),
            // It was killed with something unread.
            Err(Errno::CONNRESET) => return Ok(Heard::End),
            received => received.map_err(failed)?,
        };
        let mut came = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let descriptor = came.by_ref().flatten().next();
        if received.bytes == 0 {
            return Ok(Heard::End);
        }
        let whole = Some(&bytes[..received.bytes]).filter(|_| !received.flags.contains(ReturnFlags::TRUNC));
        let answer = whole.and_then(Answer::parse).ok_or_else(|| {
            EffectError::new("what criu answers cannot be read").help("criu 3.15 or newer speaks this protocol")
        })?;
        Ok(Heard::Answer(Answer { descriptor, ..answer }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &str) -> Result<Request, EffectError> {
        Request::of(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    /// Numbers, and the content of what has one.
    fn shown(bytes: &[u8]) -> Vec<(u64, String)> {
        let value = |value| match value {
            Field::Number(number) => number.to_string(),
            Field::Bytes(bytes) => bytes.escape_ascii().to_string(),
        };
        fields(bytes).unwrap().into_iter().map(|(field, content)| (field, value(content))).collect()
    }

    fn options(words: &str) -> Vec<(u64, String)> {
        let request = request(words).unwrap();
        let Some((2, Field::Bytes(options))) = fields(&request.bytes).unwrap().pop() else { panic!("no options") };
        shown(options)
    }

    #[test]
    fn words_are_fields() {
        let told = options(
            "restore --root /r -v4 --inherit-fd fd[300]:pipe:[17] --cgroup-root cpu:/x --cgroup-root /a:b --empty-ns=net",
        );
        let wanted = [
            (13, "/r"),
            (9, "4"),
            (27, r"\n\tpipe:[17]\x10\xac\x02"),
            (25, r"\n\x03cpu\x12\x02/x"),
            (25, r"\x12\x04/a:b"),
            (38, "1073741824"),
            (ORPHAN_PTS_MASTER, "1"),
            (NOTIFY_SCRIPTS, "1"),
        ];
        assert_eq!(told, wanted.map(|(field, value)| (field, value.to_owned())));
        let told = options("dump --tree 7 --page-server --address ::1 --port 9876");
        let wanted = [(2, "7"), (PAGE_SERVER, r"\n\x03::1\x10\x94M"), (ORPHAN_PTS_MASTER, "1")];
        assert_eq!(told, wanted.map(|(field, value)| (field, value.to_owned())));
    }

    #[test]
    fn directories_are_descriptors_that_stay_open() {
        let scratch = tempfile::tempdir().unwrap();
        let names = ["image", "work"].map(|name| scratch.path().join(name).display().to_string());
        for name in &names {
            std::fs::create_dir(name).unwrap();
        }
        let request = request(&format!("pre-dump --images-dir {} --work-dir {}", names[0], names[1])).unwrap();
        let links = request.directories.iter().map(|fd| {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            link.unwrap().display().to_string()
        });
        assert_eq!(links.collect::<Vec<_>>(), names);
        let missing = Request::of(&["dump", "--images-dir", "/nosuch"].map(str::to_owned)).err().unwrap().to_string();
        assert!(missing.contains("/nosuch"), "{missing}");
    }

    #[test]
    fn a_word_without_a_field_is_refused() {
        for words in ["check", "dump --nosuch", "dump --tree", "dump --tree x", "restore --inherit-fd 3:x"] {
            let error = request(words).err().unwrap().to_string();
            assert!(error.contains("no field"), "{words}: {error}");
        }
    }

    #[test]
    fn answers_are_heard_with_what_comes_with_them() {
        let (talk, criu) = Talk::begin(request("restore").unwrap()).unwrap();
        assert!(matches!(talk.hear().unwrap(), Heard::Nothing));
        let mut notify = Message::default();
        notify.bytes(1, b"setup-namespaces").number(2, 4321);
        let mut answer = Message::default();
        answer.number(1, NOTIFY).number(2, 1).bytes(5, &notify.0);
        send(&criu, &answer.0, SendFlags::empty()).unwrap();
        let Heard::Answer(heard) = talk.hear().unwrap() else { panic!("nothing was heard") };
        assert!(heard.waits() && heard.success);
        assert_eq!((heard.stage.as_deref(), heard.pid), (Some("setup-namespaces"), Some(4321)));
        let mut failed = Message::default();
        failed.number(1, RESTORE).number(2, 0).bytes(9, b"no such image");
        send(&criu, &failed.0, SendFlags::empty()).unwrap();
        let Heard::Answer(heard) = talk.hear().unwrap() else { panic!("nothing was heard") };
        assert!(!heard.waits() && !heard.success);
        assert_eq!(heard.error.as_deref(), Some("no such image"));
        drop(criu);
        // What it has not read is lost with its end, and that is no error.
        assert!(matches!(talk.hear().unwrap(), Heard::End));
        talk.go_on().unwrap();
    }

    #[test]
    fn a_damaged_answer_is_an_error() {
        let (talk, criu) = Talk::begin(request("restore").unwrap()).unwrap();
        for damaged in [&b"\x08"[..], b"\x12\x7fshort", b"\x0f\x01", &[0xff; 12], &[0; ANSWER + 1]] {
            send(&criu, damaged, SendFlags::empty()).unwrap();
            let error = talk.hear().err().unwrap().to_string();
            assert!(error.contains("cannot be read"), "{damaged:?}: {error}");
        }
    }
}

//! What a caller says with one runtime, held against what it says with another.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Processes, Scope, Snapshot, hierarchies};
use lifecycle_tests::{Error, Result, While, program};
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::wordings::Wording;

/// How long a caller's own clearing up after a container may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a command said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// 128 + n if it was killed by signal n, as a shell says it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A command that is running. What it writes is in files, not in pipes: a container that stays holds its stdout open.
pub struct Started {
    child: Child,
    out: NamedTempFile,
    err: NamedTempFile,
}

impl Started {
    pub fn new(command: &mut Command, stdin: Stdio) -> Result<Self> {
        let shown = format!("{command:?}");
        let file = || NamedTempFile::new_in("/tmp").when(|| "making a file for the output".into());
        let (out, err) = (file()?, file()?);
        let end = |file: &NamedTempFile| file.reopen().map(Stdio::from).when(|| "sharing the output file".into());
        let child = command.stdin(stdin).stdout(end(&out)?).stderr(end(&err)?).spawn().when(|| shown)?;
        // The command keeps what it was given open for as long as it lives.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child, out, err })
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        let doing = || "ending a command".to_owned();
        let pid = Pid::from_raw(self.child.id().cast_signed()).ok_or_else(|| Error::new(doing(), "it has no pid"))?;
        kill_process(pid, Signal::TERM).when(doing)
    }

    /// Kills it for being late, and says what it said until then.
    fn killed(&mut self, late: &Error) -> Error {
        // Its status does not matter any more.
        let _ = self.child.kill();
        let said = [&self.out, &self.err].map(|file| text_of(file).unwrap_or_default());
        Error::new(late.to_string(), said.concat())
    }

    /// Writes to its stdin.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Error::new("typing", "stdin is closed"))?;
        stdin.write_all(text.as_bytes()).when(|| format!("typing {text:?}"))
    }

    /// Waits until it has written these words to stdout.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        until(&format!("{words:?} to be written"), || Ok(text_of(&self.out)?.contains(words)))
            .map_err(|late| self.killed(&late))
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<Told> {
        drop(self.child.stdin.take());
        let mut status = None;
        until("its end", || {
            status = self.child.try_wait().when(|| "waiting for a command".into())?;
            Ok(status.is_some())
        })
        .map_err(|late| self.killed(&late))?;
        let status = status.ok_or_else(|| Error::new("waiting for a command", "it has no status"))?;
        let code = status.code().unwrap_or(128 + status.signal().unwrap_or_default());
        Ok(Told { code, out: text_of(&self.out)?.replace("^@", ""), err: text_of(&self.err)? })
    }
}

fn text_of(file: &NamedTempFile) -> Result<String> {
    let bytes = std::fs::read(file.path()).when(|| format!("reading {}", file.path().display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks again until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so()? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("waiting for {what}"), "it did not come"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs a command to its end, with this on its stdin.
pub fn told(command: &mut Command, stdin: &str) -> Result<Told> {
    if stdin.is_empty() {
        return Started::new(command, Stdio::null())?.end();
    }
    let mut started = Started::new(command, Stdio::piped())?;
    started.type_in(stdin)?;
    started.end()
}

/// A command at a terminal of its own. Where the command's terminal is not raw yet, what script(1) sends for the end of its input is echoed.
pub fn at_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script
}

/// What a caller said, in order.
#[derive(Debug, Default)]
pub struct Transcript(Vec<(String, Told)>);

impl Transcript {
    /// Notes what one command came to; what is different each time, and the runtime's name, are replaced by words.
    pub fn note(&mut self, what: impl Into<String>, told: &Told, runtime: &Path) {
        let plain = |text: &str| plain(text, runtime);
        let told = Told { code: told.code, out: plain(&told.out), err: plain(&told.err) };
        self.0.push((what.into(), told));
    }

    /// Fails unless ours is the same as runc's, but for the wordings, each of which has to occur.
    pub fn same(&self, ours: &Self, wordings: &[Wording]) -> Result<()> {
        let mut unused: Vec<&Wording> = wordings.iter().collect();
        let mut differences = String::new();
        if self.0.len() != ours.0.len() {
            let _ = writeln!(differences, "{} commands with runc, {} with ours", self.0.len(), ours.0.len());
        }
        for ((what, runc), (_, ours)) in self.0.iter().zip(&ours.0) {
            unused.retain(|(_, own)| !ours.out.contains(own) && !ours.err.contains(own));
            let in_their_words =
                |text: &str| wordings.iter().fold(text.to_owned(), |text, (theirs, own)| text.replace(own, theirs));
            let same = (runc.code, &runc.out, &runc.err)
                == (ours.code, &in_their_words(&ours.out), &in_their_words(&ours.err));
            if !same {
                let _ = writeln!(differences, "{what}:\n  runc: {runc:?}\n  ours: {ours:?}");
            }
        }
        for wording in unused {
            let _ = writeln!(differences, "this difference of wording is no more: {wording:?}");
        }
        if differences.is_empty() { Ok(()) } else { Err(Error::new("comparing with runc", differences)) }
    }
}

fn plain(text: &str, runtime: &Path) -> String {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    let text = text.replace(&runtime.display().to_string(), "RUNTIME");
    let text = text.replace(&format!("Error: {name}: "), "Error: RUNTIME: ").replace('\r', "");
    let patterns = [
        (r"[0-9a-f]{64}", "ID"),
        (r"[0-9a-f]{12}\b", "SHORT"),
        (r#"time="[^"]*""#, "TIME"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[-+:.\w ]*", "TIME"),
    ];
    patterns.iter().fold(text, |text, (pattern, word)| match Regex::new(pattern) {
        Ok(pattern) => pattern.replace_all(&text, *word).into_owned(),
        Err(error) => panic!("{pattern}: {error}"),
    })
}

/// What a container leaves if it leaves anything: cgroups, mounts, processes, namespaces, and our state root. What the callers keep for
/// themselves (their stores and databases) is in the lab's directory, which is not looked at.
pub fn scope(lab: &Lab, state_root: &Path) -> Scope {
    Scope { trees: vec![state_root.to_owned()], processes: Processes::All, ..lab.scope() }
}

/// Fails unless the machine is as it was, but for what is `kept`, each of which belongs to the caller.
pub fn nothing_left(before: &Snapshot, scope: &Scope, kept: impl Fn(&Change) -> bool) -> Result<()> {
    let difference = before.returns_within(scope, PATIENCE, kept)?;
    if difference.is_empty() {
        Ok(())
    } else {
        Err(Error::new("comparing the machine with what it was before lifecycle-oci", difference))
    }
}

/// Removes cgroups that a caller leaves, in every hierarchy; that they are empty is part of the test.
pub fn remove_own_cgroups(below: &[String]) -> Result<()> {
    for hierarchy in hierarchies()? {
        for name in below {
            let dir = hierarchy.mount.join(name);
            match std::fs::remove_dir(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::new(format!("removing {}", dir.display()), error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether our runtime has this verb already.
pub fn has_verb(words: &[&str]) -> bool {
    let Ok(ours) = program::lifecycle_oci() else { return false };
    let root = std::env::temp_dir().join("lifecycle-no-containers");
    let said = Command::new(ours).arg("--root").arg(root).args(words).arg("none").output();
    said.is_ok_and(|said| !String::from_utf8_lossy(&said.stderr).contains("not yet"))
}

//! The command line of `lifecycle-oci`: runc's, so that it can be called wherever runc is. What each verb does is in `verbs/`.
//!
//! Callers put options before the container's id and after it; clap takes both.

mod criu;
mod update;

pub use criu::{Checkpoint, Criu, Restore};
pub use update::Update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime: makes, starts, enters and deletes containers as podman, containerd, CRI-O and Docker ask for it.
///
/// Everything is done by a plan (`lifecycle plan oci/create` shows it), journaled before it happens, and taken back if it fails.
#[derive(Debug, Parser)]
#[command(
    name = "lifecycle-oci",
    version,
    max_term_width = 100,
    disable_version_flag = true,
    propagate_version = false
)]
pub struct Cli {
    /// What all verbs share.
    #[command(flatten)]
    pub global: Global,
    /// Print the version
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Log what is done, step by step
    #[arg(long, global = true)]
    pub debug: bool,
    /// Write messages to this file, too [default: only to stderr]
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How the log is written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Directory that holds the containers' state [default: /run/lifecycle, or $XDG_RUNTIME_DIR/lifecycle for an ordinary user]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Let systemd make the cgroups: `cgroupsPath` is then SLICE:PREFIX:NAME
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Whether a container may do without a cgroup, if none and no limit is asked for: with `auto` where the caller is not the machine's own root
    #[arg(long, value_name = "WHEN", default_value = "auto", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rootless: Rootless,
    /// The criu program, for checkpoint and restore
    #[arg(long, global = true, value_name = "PATH", default_value = "criu")]
    pub criu: PathBuf,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="..." level=... msg="..."`
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Whether cgroups may be missing. Callers write a truth as Go reads it (strconv.ParseBool).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Where the caller is not root.
    #[default]
    Auto,
    /// With a warning.
    #[value(aliases = ["1", "t", "T", "TRUE", "True"])]
    True,
    /// Never.
    #[value(aliases = ["0", "f", "F", "FALSE", "False"])]
    False,
}

impl Rootless {
    /// As the plans have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::True => "true",
            Self::False => "false",
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a container from a bundle, and stop before its program starts
    ///
    /// Everything is made by the plan oci/create, journaled before it happens; if anything fails, all of it is taken back. The program waits until
    /// `start`.
    ///
    /// Example: lifecycle-oci create --bundle /srv/web --pid-file /run/web.pid web
    Create(Create),
    /// Start the program of a created container
    ///
    /// Hooks `startContainer` and `poststart` run with it. With $NOTIFY_SOCKET it ends when the container says that it is ready.
    Start(Id),
    /// Make a container, start it, wait for its end, delete it
    ///
    /// Ends with the program's exit code. Signals are sent on to the program.
    ///
    /// Example: lifecycle-oci run --bundle /srv/web web
    Run(Run),
    /// Print a container's state
    ///
    /// A JSON document, runtime.md of the OCI runtime-spec; `status` is what the machine says now: created, running, paused or stopped.
    State(Id),
    /// Send a signal to a container
    ///
    /// A name or a number, such as TERM, SIGKILL, 9, SIGRTMIN+3 or 37.
    ///
    /// Example: lifecycle-oci kill web HUP
    Kill(Kill),
    /// Delete a container with all that was made for it
    ///
    /// Undoes the container's journal. One whose program runs is not deleted without --force; one that was cut off while it was made can be deleted
    /// so, too.
    Delete(Delete),
    /// Run another program in a container
    ///
    /// The container's own process is what it is like, but for what the options say.
    ///
    /// Example: lifecycle-oci exec --tty --cwd /srv web sh -l
    Exec(Box<Exec>),
    /// List containers
    List(List),
    /// List the processes of a container
    ///
    /// What ps(1) prints, less the processes that are not the container's.
    ///
    /// Example: lifecycle-oci ps web -o pid,rss,args
    Ps(Ps),
    /// Print a container's use of resources, and when it runs out of memory
    ///
    /// A line of JSON each, until the container ends.
    Events(Events),
    /// Stop all processes of a container where they are
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Change a container's limits
    ///
    /// All of them, or none if the kernel refuses one. What is not named stays as it is.
    ///
    /// Example: lifecycle-oci update --memory 512M --pids-limit 200 web
    Update(Box<Update>),
    /// Write a config.json to start from
    Spec(SpecArgs),
    /// Print what this runtime can do
    ///
    /// A JSON document, features.md of the OCI runtime-spec. It tells what the program knows, whatever the machine offers.
    Features,
    /// Save a running container to disk, by criu
    ///
    /// The container is gone then, but for its directory, unless --leave-running or --pre-dump is given. Where criu cannot work, nothing is changed.
    ///
    /// Example: lifecycle-oci checkpoint --image-path /srv/web.image web
    Checkpoint(Box<Checkpoint>),
    /// Bring a saved container back, by criu
    ///
    /// Example: lifecycle-oci restore --bundle /srv/web --image-path /srv/web.image --detach web
    Restore(Box<Restore>),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// A container.
#[derive(Clone, Debug, Args)]
pub struct Id {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// The files that `create`, `run` and `restore` share.
#[derive(Clone, Debug, Args)]
pub struct Files {
    /// The bundle: a directory with a config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// A unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A unix socket that takes a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// A file that gets the process's id
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
}

/// What `create` and `run` share.
#[derive(Clone, Debug, Args)]
pub struct Making {
    /// From what, and who is told
    #[command(flatten)]
    pub files: Files,
    /// Do without pivot_root(2) on a host that runs from an initramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// Share the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many more descriptors from 3 on the program gets; those of LISTEN_FDS come first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// `create`
#[derive(Clone, Debug, Args)]
pub struct Create {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// How it is made
    #[command(flatten)]
    pub making: Making,
}

/// `run`
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// How it is made
    #[command(flatten)]
    pub making: Making,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Leave the container when its program has ended
    #[arg(long)]
    pub keep: bool,
    /// Do not become the reaper of the program's orphans (ignored: its engine never does)
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `kill`
#[derive(Clone, Debug, Args)]
pub struct Kill {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The signal, by name or number
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub signal: String,
    /// To every process in the container
    #[arg(long, short)]
    pub all: bool,
}

/// `delete`
#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Kill it first if it runs; one that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
}

/// `exec`
#[derive(Clone, Debug, Args)]
pub struct Exec {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
    /// A unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A unix socket that takes a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// The directory that it starts in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// One more variable, as NAME=VALUE
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// It gets a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Whom it runs as
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// One more supplementary group
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// A file with the whole process, as in config.json
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// A file that gets the process's id
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// It gains no privileges
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub no_new_privs: Option<bool>,
    /// One more capability
    #[arg(long, short, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// How many descriptors from 3 on it gets
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// A cgroup below the container's, or CONTROLLER:PATH on cgroup v1
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Do it in a paused container too; it waits until that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Do not become the reaper of the program's orphans (ignored: its engine never does)
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `list`
#[derive(Clone, Debug, Args)]
pub struct List {
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: TableFormat,
    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `ps`
#[derive(Clone, Debug, Args)]
pub struct Ps {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Options for ps(1) [default: -ef]
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<OsString>,
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: TableFormat,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Columns.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// `events`
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// How often
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: String,
    /// Print once, and end
    #[arg(long)]
    pub stats: bool,
}

/// `spec`
#[derive(Clone, Debug, Args)]
pub struct SpecArgs {
    /// Where to write it
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a container of an ordinary user
    #[arg(long)]
    pub rootless: bool,
}

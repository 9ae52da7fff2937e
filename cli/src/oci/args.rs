//! The command line of `lifecycle-oci`: runc's, so that it can be called wherever runc is. What each verb does is in `verbs/`.
//!
//! Callers put options before the container's id and after it; clap takes both.

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

/// What `create` and `run` share.
#[derive(Clone, Debug, Args)]
pub struct Making {
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

/// `update`
#[derive(Clone, Debug, Args)]
pub struct Update {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// A file with `linux.resources` as in config.json, or `-` for stdin; other options do not count then
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period in microseconds; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up for later in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Relative weight of CPU time
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime CPU time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Only run when nothing else wants to: 1, or 0
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Kernel memory in bytes (no kernel of today limits it)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// TCP buffer memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Memory in bytes, or with a unit such as 64M; -1: no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that the kernel tries to leave it, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together in bytes; -1: no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How many processes; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache, Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth, Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
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

/// What `checkpoint` and `restore` share, and give to criu.
#[derive(Clone, Debug, Args)]
pub struct Criu {
    /// Where the image is
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Where criu keeps its log and temporary files [default: the image]
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are saved
    #[arg(long)]
    pub tcp_established: bool,
    /// TCP connections that are being made are left out
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Unix sockets may lead out of the container
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Its terminal is the caller's
    #[arg(long)]
    pub shell_job: bool,
    /// Memory is fetched when it is needed
    #[arg(long)]
    pub lazy_pages: bool,
    /// File locks are saved
    #[arg(long)]
    pub file_locks: bool,
    /// How cgroups are saved: soft, full, strict or ignore
    #[arg(long, value_name = "MODE", default_value = "soft")]
    pub manage_cgroups_mode: String,
    /// Namespaces that are made but not filled, such as network
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Memory that an earlier image holds too is left out of that
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `checkpoint`
#[derive(Clone, Debug, Args)]
pub struct Checkpoint {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// How
    #[command(flatten)]
    pub criu: Criu,
    /// An earlier image that this one is on top of, relative to it
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub leave_running: bool,
    /// A descriptor on which criu tells that it is ready for lazy pages
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<i32>,
    /// ADDRESS:PORT of a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Only save memory, and let it run on
    #[arg(long)]
    pub pre_dump: bool,
}

/// `restore`
#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
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
    /// Do without pivot_root(2) (ignored, as runc does: criu makes the root)
    #[arg(long)]
    pub no_pivot: bool,
    /// How
    #[command(flatten)]
    pub criu: Criu,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Do not become the reaper of the program's orphans (ignored: its engine never does)
    #[arg(long)]
    pub no_subreaper: bool,
    /// The LSM profile that it gets: selinux:LABEL or apparmor:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// The SELinux context of its mounts
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
}

//! `checkpoint` and `restore`

use std::path::PathBuf;

use clap::Args;

use super::Files;

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
    /// From what, and who is told
    #[command(flatten)]
    pub files: Files,
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

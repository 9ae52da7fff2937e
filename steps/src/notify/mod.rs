//! sd_notify(3) from within a container: `notify.directory` when it is created, `notify.listen` and `notify.forward` when it starts.

pub mod directory;
pub mod forward;
pub mod listen;

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::RunNames;

/// The directory that holds the socket: in the container's directory on the host, and below /run in the container.
const DIRECTORY: &str = "notify";
/// Where the container sees that directory.
pub(crate) const INSIDE: &str = "/run/notify";
/// The socket's name in it.
pub(crate) const SOCKET: &str = "notify.sock";

/// Where the directory is on the host.
pub(crate) fn directory_of(run: &RunNames) -> PathBuf {
    within(&run.dir())
}

fn within(run: &Path) -> PathBuf {
    run.join(DIRECTORY)
}

//! Effects in the container's first process, between clone and exec: its root, its mounts, what is in `/dev`.
//!
//! The container's files are the enemy's: every path in the root is resolved from the root's descriptor, and nothing is opened by a string
//! that the image could bend. What is mounted dies with the mount namespace; what is made in a root that lies on a disk stays, as with every
//! runtime: a container that still runs may have it mounted over.

mod bind;
mod cgroup;
mod enter;
mod hide;
mod mount;
mod node;
mod overlay;
mod pivot;
mod propagation;
mod protect;
mod remount;
pub(crate) mod root;
pub(crate) mod seal;
#[cfg(test)]
mod tests;
mod walk;

pub use bind::{RootBind, RootOpen};
pub use cgroup::{CgroupHierarchy, RootCgroup};
pub use enter::RootEnter;
pub(crate) use mount::ALLOWED_IN_PROC;
pub use mount::RootMount;
pub use node::{InVolume, RootDevice, RootDirectory, RootFile, RootSymlink};
pub use overlay::{Entry, Layout, RootOverlay, probe};
pub use pivot::RootPivot;
pub use propagation::RootPropagation;
pub use protect::{MaskPath, ReadonlyPath, RootReadonly};
pub use remount::RootRemount;
pub(crate) use root::clean;
pub use seal::RootSeal;

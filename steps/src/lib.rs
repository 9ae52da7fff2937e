//! The effects and the steps of `lifecycle`: what a container's life is made of on Linux.
//!
//! A step is one file below the folder of its subject; an effect is one file in [`effects`]. Both are listed in [`registry()`].

pub mod audit;
pub mod cgroup;
pub mod command;
pub mod console;
pub mod criu;
pub mod dbus;
pub mod effects;
pub mod facts;
pub mod features;
pub mod fifo;
pub mod fs;
pub mod hooks;
pub mod made;
pub mod mounts;
pub mod namespaces;
pub mod net;
pub mod notify;
pub mod outcomes;
#[doc(hidden)]
pub mod outside;
pub mod plans;
pub mod probe;
pub mod process;
pub mod rdt;
mod registry;
pub mod rootfs;
pub mod run;
pub mod seccomp;
pub mod spawn;
pub mod spec;
pub mod state;
pub mod sys;
pub mod sysctl;
pub mod systemd;
#[cfg(test)]
pub(crate) mod testing;
pub mod uts;

pub use registry::registry;

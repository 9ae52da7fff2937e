//! The container's processes: made, given their privileges, replaced by the container's program, waited for, killed.

pub mod affinity;
pub mod clone;
pub(crate) mod credentials;
pub(crate) mod descriptor;
pub(crate) mod environment;
pub mod exec;
pub mod find;
mod handover;
pub(crate) mod holding;
mod identity;
pub mod keyring;
pub mod kill;
pub mod label;
mod null;
pub mod pid_file;
pub mod pidfd;
pub mod privileges;
pub mod scheduling;
pub mod sealed;
pub mod send_signal;
mod signal;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod wait;

pub(crate) use handover::{
    AGENT, CGROUP, CONSOLE, ENGINE_ONLY, FIFO, FIFO_REPORT, InitEnds, connect_to, console_of, drop_engines, handed,
    leave_host,
};
pub use handover::{Console, Handover, Stdio};
pub(crate) use identity::Fate;
pub use identity::{Watched, ends_its_namespace, start_time};
pub(crate) use null::{leave_hosts_null, replace_hosts_null};
pub(crate) use privileges::denies_setgroups;
pub use signal::SignalName;

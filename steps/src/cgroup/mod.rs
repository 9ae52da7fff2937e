//! Cgroups: where a container's processes are counted and limited.

mod create;
pub mod devices;
mod filter;
mod freeze;
mod frozen;
mod limits;
pub(crate) mod oom;
mod path;
mod properties;
pub(crate) mod realtime;
mod rootless;
pub mod scope;
pub mod stats;
mod translate;
mod unit;
mod update;
mod v1;
mod v2;

pub use create::Create;
pub use freeze::{Freeze, Thaw};
pub use frozen::is_frozen;
pub use oom::OomWatch;
pub use properties::Properties;
pub use rootless::Rootless;
pub use stats::{Stats, pids};
pub use update::Update;

#[cfg(test)]
mod tests;

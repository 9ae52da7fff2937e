//! Cgroups: where a container's processes are counted and limited.

mod create;
pub mod devices;
mod filter;
mod frozen;
mod limits;
mod path;
mod v1;
mod v2;

pub use create::Create;
pub use frozen::is_frozen;

#[cfg(test)]
mod tests;

//! Cgroups: where a container's processes are counted and limited.

mod create;
pub mod devices;
mod filter;
mod limits;
mod path;
mod v1;
mod v2;

pub use create::Create;

#[cfg(test)]
mod tests;

//! Cgroups: where a container's processes are counted and limited.

mod create;
pub mod devices;
mod filter;
mod limits;
mod path;
mod properties;
pub mod scope;
mod translate;
mod unit;
mod v1;
mod v2;

pub use create::Create;
pub use properties::Properties;

#[cfg(test)]
mod tests;

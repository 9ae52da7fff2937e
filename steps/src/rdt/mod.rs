//! Intel RDT and what resctrl knows like it: shares of cache and memory bandwidth, and their monitoring.

mod group;
mod join;
mod update;

pub use group::Group;
pub use join::Join;
pub use update::Update;

#[cfg(test)]
mod tests;

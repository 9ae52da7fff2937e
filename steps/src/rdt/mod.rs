//! Intel RDT and what resctrl knows like it: shares of cache and memory bandwidth, and their monitoring.

mod group;
mod update;

pub use group::Group;
pub use update::Update;

#[cfg(test)]
mod tests;

//! Intel RDT and what resctrl knows like it: shares of cache and memory bandwidth, and their monitoring.

mod group;

pub use group::Group;

#[cfg(test)]
mod tests;

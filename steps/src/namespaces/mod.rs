//! Which namespaces a container gets.

mod choose;

pub use choose::Choose;

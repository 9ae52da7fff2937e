//! The container's state, as others read it.

mod expect;
mod publish;

pub use expect::Expect;
pub use publish::Publish;

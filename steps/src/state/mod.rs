//! The container's state, as others read it.

mod expect;
mod publish;
mod stored;

pub use expect::Expect;
pub use publish::Publish;
pub use stored::{Own, Stored};

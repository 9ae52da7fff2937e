//! Networks: links, addresses and routes by netlink.

mod bridge;
mod interface;
pub mod ip;
mod loopback;
pub mod mac;
pub mod name;
pub mod netlink;
pub mod netns;
mod veth;

#[cfg(test)]
mod tests;

pub use bridge::Bridge;
pub use interface::Interface;
pub use loopback::Loopback;
pub use veth::Veth;

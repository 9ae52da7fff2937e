//! Networks: links, addresses and routes by netlink.

mod bridge;
mod device;
mod interface;
pub mod ip;
mod loopback;
pub mod mac;
pub mod name;
pub mod netlink;
pub mod netns;
mod pin;
mod veth;

#[cfg(test)]
mod tests;

pub use bridge::Bridge;
pub use device::Device;
pub use interface::Interface;
pub use loopback::Loopback;
pub use pin::Pin;
pub use veth::Veth;

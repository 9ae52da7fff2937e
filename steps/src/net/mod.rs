//! Networks: links, addresses and routes by netlink.

pub mod netns;

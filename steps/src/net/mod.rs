//! Networks: links, addresses and routes by netlink.

mod bridge;
mod device;
pub mod identity;
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

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;

/// Why steps that make or move links on the host are not for everybody.
const TAKES_ROOT: &str = "changing links on the host takes CAP_NET_ADMIN";

/// Refuses to plan links on the host for somebody who may make none.
fn check_admin(facts: &mut Facts) -> Result<(), PlanError> {
    if crate::facts::lacks(facts, "CAP_NET_ADMIN") {
        let message = "making links on the host needs CAP_NET_ADMIN, which the caller lacks (fact caps.effective)";
        return Err(PlanError::new("", message)
            .help("run as root; to look at the plan alone, give it a file of facts (`plan --facts`)"));
    }
    Ok(())
}

pub use bridge::Bridge;
pub use device::Device;
pub use interface::Interface;
pub use loopback::Loopback;
pub use pin::Pin;
pub use veth::Veth;

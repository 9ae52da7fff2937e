//! Network links.

mod add;
pub(super) mod belonging;
mod set;
mod wait;

pub use add::{Kind, LinkAdd, Peer};
pub use set::LinkSet;
pub use wait::LinkWait;

use std::fmt;

use lifecycle_engine::effect::Cx;
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::name::LinkName;
use crate::net::netlink::{Found, Rtnl};

/// A link that a step made, named so that nobody can take another for it: the kernel gives no index twice in one boot of a namespace, and the
/// alias holds the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The name it was made with.
    pub name: String,
    /// Whose it is.
    pub alias: String,
}

impl Outcome for Link {
    const NAME: &'static str = "link";
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The link that an effect changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// By its name in the network namespace where the effect happens.
    Name(LinkName),
    /// One that a step made.
    Made(Handle<Link>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Made(link) => link.fmt(f),
        }
    }
}

impl Target {
    /// The link, which must be there.
    pub(crate) fn get(&self, rtnl: &mut Rtnl, cx: &Cx) -> Result<Found, EffectError> {
        let found = match self {
            Self::Name(name) => rtnl.link_by_name(name.as_str()).map_err(|r| r.error(format!("get link {name}")))?,
            Self::Made(handle) => made(&cx.resolve(handle)?, rtnl)?,
        };
        found.ok_or_else(|| {
            EffectError::call(format!("get link {self}"), std::io::Error::from_raw_os_error(nix::libc::ENODEV))
                .help("There is no such link in this network namespace: see `ip link`.")
        })
    }

    /// The link that an effect changed, if it is still there: the one with that index, if it is also still ours or has that name.
    pub(crate) fn again(&self, seen: &Seen, rtnl: &mut Rtnl, cx: &Cx) -> Result<Option<Found>, EffectError> {
        let ours = match self {
            Self::Name(name) => rtnl
                .link_by_index(seen.index)
                .map_err(|r| r.error(format!("get link {name}")))?
                .filter(|found| found.name == name.as_str()),
            Self::Made(handle) => made(&cx.resolve(handle)?, rtnl)?,
        };
        Ok(ours.filter(|found| found.index == seen.index))
    }
}

/// The link that we made, whatever it is called by now.
fn made(link: &Link, rtnl: &mut Rtnl) -> Result<Option<Found>, EffectError> {
    let found = rtnl.link_by_index(link.index).map_err(|r| r.error(format!("get link {link}")))?;
    Ok(found.filter(|found| found.alias.as_ref().is_some_and(|alias| *alias == *link.alias)))
}

/// What an effect saw of its link before it changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) master: u32,
    pub(crate) mac: Vec<u8>,
}

impl From<Found> for Seen {
    fn from(found: Found) -> Self {
        let Found { index, name, up, mtu, master, mac, .. } = found;
        Self { index, name: name.to_string_lossy().into_owned(), up, mtu, master, mac }
    }
}

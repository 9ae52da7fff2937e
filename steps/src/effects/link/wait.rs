//! Waiting for links.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Millis;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::net::name::LinkName;
use crate::net::netlink::Rtnl;

/// Waits until there is a link of that name in the network namespace. Changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkWait {
    /// The name.
    pub name: LinkName,
    /// How long.
    pub within: Millis,
}

/// linux/rtnetlink.h: the group that hears of links.
const RTNLGRP_LINK: u32 = 1;

struct Waiting {
    effect: LinkWait,
    news: Socket,
    end: Instant,
}

impl Waiting {
    /// The socket comes first: a link that appears after the question is in the news.
    fn listen(effect: LinkWait) -> std::io::Result<Self> {
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind(&SocketAddr::new(0, 0))?;
        news.add_membership(RTNLGRP_LINK)?;
        news.set_non_blocking(true)?;
        let end = Instant::now() + effect.within.duration();
        Ok(Self { effect, news, end })
    }

    fn is_there(&self) -> Result<bool, EffectError> {
        let name = &self.effect.name;
        let found = Rtnl::open()?.link_by_name(name.as_str()).map_err(|r| r.error(format!("get link {name}")))?;
        Ok(found.is_some())
    }

    /// What the news say does not matter, nor whether some were lost: the question is asked again.
    fn drain(&self) -> Result<(), EffectError> {
        loop {
            match self.news.recv_from(&mut Vec::with_capacity(1), libc::MSG_TRUNC) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted || e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(EffectError::call("recv(AF_NETLINK)", e)),
            }
        }
    }
}

impl Pending for Waiting {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.news.as_raw_fd()));
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.end)
    }

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.drain()?;
        if self.is_there()? {
            return Ok(Some(Value::Null));
        }
        if Instant::now() < self.end {
            return Ok(None);
        }
        let LinkWait { name, within } = &self.effect;
        Err(EffectError::new(format!("there is no link {name} after {within}"))
            .help(format!("A step outside has to make it, such as `net.veth` with `name: {name}`.")))
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}

impl EffectDef for LinkWait {
    const KIND: &'static str = "link.wait";

    fn examples(_scratch: &Path) -> Vec<Self> {
        vec![Self { name: LinkName::lo(), within: Millis(1000) }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("wait until there is a link {}, within {}", self.name, self.within)
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let waiting =
            Waiting::listen(self.clone()).map_err(|e| EffectError::call("socket(AF_NETLINK, RTNLGRP_LINK)", e))?;
        if waiting.is_there()? { Ok(Applied::done()) } else { Ok(Applied::Pending(Box::new(waiting))) }
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

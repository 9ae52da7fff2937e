//! What a link has once or not at all: an address, a route.

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Seen, Target};
use crate::effects::owns;
use crate::net::netlink::Rtnl;

/// An effect that adds one, unless the link has it already; then undo leaves it, too.
pub(in crate::effects) trait Belonging: EffectDef {
    /// Several of them, in words.
    const PLURAL: &'static str;

    /// Whose it is.
    fn link(&self) -> &Target;
    /// It happens in a namespace that another effect made, and dies with it.
    fn scoped(&self) -> bool;
    /// Whether the link has it.
    fn is_there(&self, index: u32, rtnl: &mut Rtnl) -> Result<bool, EffectError>;
    /// What adds it.
    fn addition(&self, index: u32) -> RouteNetlinkMessage;
    /// What removes it.
    fn removal(&self, index: u32) -> RouteNetlinkMessage;
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    link: Seen,
    had_it: bool,
}

/// For [`EffectDef::class`].
pub(in crate::effects) fn class(of: &impl Belonging) -> Class {
    if of.scoped() { Class::Scoped } else { Class::Reversible }
}

/// For [`EffectDef::before`].
pub(in crate::effects) fn before<B: Belonging>(of: &B, cx: &mut Cx) -> Result<Value, EffectError> {
    if of.scoped() {
        owns(cx, "net", &format!("{} on link {}", B::PLURAL, of.link()))?;
    }
    let mut rtnl = Rtnl::open()?;
    let link = of.link().get(&mut rtnl, cx)?;
    let had_it = of.is_there(link.index, &mut rtnl)?;
    Ok(json!(Before { link: link.into(), had_it }))
}

/// For [`EffectDef::apply`].
pub(in crate::effects) fn apply(of: &impl Belonging, before: &Value) -> Result<Applied, EffectError> {
    let before =
        Before::deserialize(before).map_err(|e| EffectError::new(format!("what was before cannot be read: {e}")))?;
    if !before.had_it {
        let answer = Rtnl::open()?.change(of.addition(before.link.index), NLM_F_CREATE | NLM_F_EXCL);
        answer.map_err(|r| r.error(of.describe()))?;
    }
    Ok(Applied::done())
}

/// For [`EffectDef::undo`].
pub(in crate::effects) fn undo(of: &impl Belonging, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
    let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
    if of.scoped() || before.had_it {
        return Ok(Undone::Done);
    }
    let mut rtnl = Rtnl::open()?;
    if of.link().again(&before.link, &mut rtnl, cx)?.is_none() {
        return Ok(Undone::Done);
    }
    match rtnl.change(of.removal(before.link.index), 0) {
        Err(refused) if refused.is_absent() => Ok(Undone::Done),
        answer => answer.map(|()| Undone::Done).map_err(|r| r.error(format!("take back: {}", of.describe()))),
    }
}

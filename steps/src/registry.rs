//! The catalogue: every kind of step and effect, one line each.

use lifecycle_engine::step::{EffectKind, Registry, StepKind};

use crate::{command, effects, hooks, net, probe, run};
use crate::{cgroup, command, effects, hooks, net, probe, spec, state};

/// Every kind of step and effect that this program knows. Journals of older versions name effects by kind: a kind's name is never reused.
pub fn registry() -> Registry {
    Registry::new(
        [
            // Steps: StepKind::of::<subject::Step>(), sorted by kind.
            StepKind::of::<cgroup::Create>(),
            StepKind::of::<command::Run>(),
            StepKind::of::<hooks::Poststart>(),
            StepKind::of::<hooks::Run>(),
            StepKind::of::<net::Bridge>(),
            StepKind::of::<net::Interface>(),
            StepKind::of::<net::Loopback>(),
            StepKind::of::<net::Veth>(),
            StepKind::of::<probe::Command>(),
            StepKind::of::<probe::Http>(),
            StepKind::of::<probe::Tcp>(),
            StepKind::of::<run::Undo>(),
            StepKind::of::<spec::Load>(),
            StepKind::of::<state::Publish>(),
        ],
        [
            // Effects: EffectKind::of::<effects::subject::Effect>(), sorted by kind.
            EffectKind::of::<effects::State>(),
            EffectKind::of::<effects::address::AddressAdd>(),
            EffectKind::of::<effects::cgroup::DeviceFilter>(),
            EffectKind::of::<effects::cgroup::EnableControllers>(),
            EffectKind::of::<effects::cgroup::MakeCgroup>(),
            EffectKind::of::<effects::cgroup::WriteLimit>(),
            EffectKind::of::<effects::command::RunCommand>(),
            EffectKind::of::<effects::hook::Counterpart>(),
            EffectKind::of::<effects::hook::RunHook>(),
            EffectKind::of::<effects::link::LinkAdd>(),
            EffectKind::of::<effects::link::LinkSet>(),
            EffectKind::of::<effects::link::LinkWait>(),
            EffectKind::of::<effects::probe::ProbeCommand>(),
            EffectKind::of::<effects::probe::ProbeHttp>(),
            EffectKind::of::<effects::probe::ProbeTcp>(),
            EffectKind::of::<effects::route::RouteAdd>(),
            EffectKind::of::<run::UndoRun>(),
        ],
    )
}

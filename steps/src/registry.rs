//! The catalogue: every kind of step and effect, one line each.

use lifecycle_engine::step::{EffectKind, Registry, StepKind};

use crate::{cgroup, command, effects, hooks, net, probe, run, spec, state};

/// Evaluated by the compiler: a step without an example does not build.
macro_rules! steps {
    ($($step:ty,)*) => { [$(const { StepKind::of::<$step>() }),*] };
}

macro_rules! effects {
    ($($effect:ty,)*) => { [$(EffectKind::of::<$effect>()),*] };
}

/// Every kind of step and effect that this program knows. Journals of older versions name effects by kind: a kind's name is never reused.
pub fn registry() -> Registry {
    let steps = steps![
        cgroup::Create,
        command::Run,
        hooks::Poststart,
        hooks::Run,
        net::Bridge,
        net::Interface,
        net::Loopback,
        net::Veth,
        probe::Command,
        probe::Http,
        probe::Tcp,
        run::Undo,
        spec::Load,
        state::Publish,
    ];
    let effects = effects![
        effects::Device,
        effects::Directory,
        effects::Fifo,
        effects::File,
        effects::State,
        effects::Symlink,
        effects::address::AddressAdd,
        effects::cgroup::DeviceFilter,
        effects::cgroup::EnableControllers,
        effects::cgroup::MakeCgroup,
        effects::cgroup::WriteLimit,
        effects::command::RunCommand,
        effects::hook::Counterpart,
        effects::hook::RunHook,
        effects::inside::MaskPath,
        effects::inside::ReadonlyPath,
        effects::inside::RootBind,
        effects::inside::RootCgroup,
        effects::inside::RootDevice,
        effects::inside::RootDirectory,
        effects::inside::RootFile,
        effects::inside::RootMount,
        effects::inside::RootOverlay,
        effects::inside::RootPivot,
        effects::inside::RootPropagation,
        effects::inside::RootReadonly,
        effects::inside::RootSymlink,
        effects::link::LinkAdd,
        effects::link::LinkSet,
        effects::link::LinkWait,
        effects::probe::ProbeCommand,
        effects::probe::ProbeHttp,
        effects::probe::ProbeTcp,
        effects::route::RouteAdd,
        run::UndoRun,
    ];
    Registry::new(steps, effects)
use crate::{command, effects, fifo, hooks, probe, process, seccomp, sysctl, uts};
use crate::{
    cgroup, command, effects, fifo, hooks, namespaces, net, probe, process, run, seccomp, spec, state, sysctl, uts,
};

/// Every kind of step and effect that this program knows. Journals of older versions name effects by kind: a kind's name is never reused.
pub fn registry() -> Registry {
    Registry::new(
        [
            // Steps: StepKind::of::<subject::Step>(), sorted by kind.
            StepKind::of::<cgroup::Create>(),
            StepKind::of::<command::Run>(),
            StepKind::of::<fifo::create::Create>(),
            StepKind::of::<fifo::release::Release>(),
            StepKind::of::<fifo::wait::Wait>(),
            StepKind::of::<hooks::Poststart>(),
            StepKind::of::<hooks::Run>(),
            StepKind::of::<namespaces::Choose>(),
            StepKind::of::<net::Bridge>(),
            StepKind::of::<net::Interface>(),
            StepKind::of::<net::Loopback>(),
            StepKind::of::<net::Veth>(),
            StepKind::of::<probe::Command>(),
            StepKind::of::<probe::Http>(),
            StepKind::of::<probe::Tcp>(),
            StepKind::of::<process::clone::Clone>(),
            StepKind::of::<process::exec::Exec>(),
            StepKind::of::<process::kill::Kill>(),
            StepKind::of::<process::privileges::Privileges>(),
            StepKind::of::<process::wait::Wait>(),
            StepKind::of::<seccomp::load::Load>(),
            StepKind::of::<run::Undo>(),
            StepKind::of::<seccomp::load::Load>(),
            StepKind::of::<spec::Load>(),
            StepKind::of::<state::Expect>(),
            StepKind::of::<state::Publish>(),
            StepKind::of::<sysctl::write::Write>(),
            StepKind::of::<uts::set::Set>(),
        ],
        [
            // Effects: EffectKind::of::<effects::subject::Effect>(), sorted by kind.
            EffectKind::of::<effects::ExpectStatus>(),
            EffectKind::of::<effects::State>(),
            EffectKind::of::<effects::address::AddressAdd>(),
            EffectKind::of::<effects::cgroup::DeviceFilter>(),
            EffectKind::of::<effects::cgroup::EnableControllers>(),
            EffectKind::of::<effects::cgroup::MakeCgroup>(),
            EffectKind::of::<effects::cgroup::WriteLimit>(),
            EffectKind::of::<effects::clone::CloneInit>(),
            EffectKind::of::<effects::command::RunCommand>(),
            EffectKind::of::<effects::exec::Exec>(),
            EffectKind::of::<effects::fifo::AwaitStart>(),
            EffectKind::of::<effects::fifo::MakeFifo>(),
            EffectKind::of::<effects::fifo::Release>(),
            EffectKind::of::<effects::idmap::MapIds>(),
            EffectKind::of::<effects::hook::Counterpart>(),
            EffectKind::of::<effects::hook::RunHook>(),
            EffectKind::of::<effects::hook::Counterpart>(),
            EffectKind::of::<effects::hook::RunHook>(),
            EffectKind::of::<effects::idmap::MapIds>(),
            EffectKind::of::<effects::link::LinkAdd>(),
            EffectKind::of::<effects::link::LinkSet>(),
            EffectKind::of::<effects::link::LinkWait>(),
            EffectKind::of::<effects::oom::OomScoreAdj>(),
            EffectKind::of::<effects::prelude::BecomeRoot>(),
            EffectKind::of::<effects::prelude::Conceal>(),
            EffectKind::of::<effects::prelude::EnterCgroup>(),
            EffectKind::of::<effects::prelude::NewSession>(),
            EffectKind::of::<effects::prelude::UnshareCgroup>(),
            EffectKind::of::<effects::probe::ProbeCommand>(),
            EffectKind::of::<effects::probe::ProbeHttp>(),
            EffectKind::of::<effects::probe::ProbeTcp>(),
            EffectKind::of::<effects::privileges::BecomeUser>(),
            EffectKind::of::<effects::privileges::BoundCapabilities>(),
            EffectKind::of::<effects::privileges::NoNewPrivileges>(),
            EffectKind::of::<effects::privileges::SetCapabilities>(),
            EffectKind::of::<effects::privileges::SetRlimit>(),
            EffectKind::of::<effects::privileges::BecomeUser>(),
            EffectKind::of::<effects::privileges::BoundCapabilities>(),
            EffectKind::of::<effects::privileges::NoNewPrivileges>(),
            EffectKind::of::<effects::privileges::SetCapabilities>(),
            EffectKind::of::<effects::privileges::SetRlimit>(),
            EffectKind::of::<effects::probe::ProbeCommand>(),
            EffectKind::of::<effects::probe::ProbeHttp>(),
            EffectKind::of::<effects::probe::ProbeTcp>(),
            EffectKind::of::<effects::route::RouteAdd>(),
            EffectKind::of::<effects::seccomp::LoadFilter>(),
            EffectKind::of::<effects::stage::Stage>(),
            EffectKind::of::<effects::sysctl::WriteSysctl>(),
            EffectKind::of::<effects::uts::SetDomainname>(),
            EffectKind::of::<effects::uts::SetHostname>(),
            EffectKind::of::<effects::wait::AwaitEnd>(),
            EffectKind::of::<effects::wait::EndProcess>(),
            EffectKind::of::<run::UndoRun>(),
        ],
    )
}

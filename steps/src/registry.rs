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
}

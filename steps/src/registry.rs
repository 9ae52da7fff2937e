//! The catalogue: every kind of step and effect, one line each.

use lifecycle_engine::step::{EffectKind, Registry, StepKind};

use crate::{
    cgroup, command, console, effects, fifo, fs, hooks, namespaces, net, probe, process, rootfs, run, seccomp, spec,
    state, sysctl, uts,
};

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
        console::open::Open,
        console::relay::Relay,
        fifo::create::Create,
        fifo::release::Release,
        fifo::wait::Wait,
        fs::directory::MakeDirectory,
        fs::file::WriteFile,
        hooks::Poststart,
        hooks::Run,
        namespaces::Choose,
        net::Bridge,
        net::Interface,
        net::Loopback,
        net::Veth,
        probe::Command,
        probe::Http,
        probe::Tcp,
        process::clone::Clone,
        process::exec::Exec,
        process::kill::Kill,
        process::privileges::Privileges,
        process::wait::Wait,
        rootfs::mount::MountRoot,
        rootfs::overlay::Overlay,
        rootfs::pivot::Pivot,
        rootfs::protect::Protect,
        run::Undo,
        seccomp::load::Load,
        spec::Load,
        state::Expect,
        state::Publish,
        sysctl::write::Write,
        uts::set::Set,
    ];
    let effects = effects![
        effects::Device,
        effects::Directory,
        effects::ExpectStatus,
        effects::Fifo,
        effects::File,
        effects::Mount,
        effects::State,
        effects::Symlink,
        effects::address::AddressAdd,
        effects::cgroup::DeviceFilter,
        effects::cgroup::EnableControllers,
        effects::cgroup::MakeCgroup,
        effects::cgroup::WriteLimit,
        effects::clone::CloneInit,
        effects::command::RunCommand,
        effects::console::OpenConsole,
        effects::exec::Exec,
        effects::fifo::AwaitStart,
        effects::fifo::MakeFifo,
        effects::fifo::Release,
        effects::hook::Counterpart,
        effects::hook::RunHook,
        effects::idmap::MapIds,
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
        effects::oom::OomScoreAdj,
        effects::prelude::BecomeRoot,
        effects::prelude::Conceal,
        effects::prelude::EnterCgroup,
        effects::prelude::NewSession,
        effects::prelude::UnshareCgroup,
        effects::privileges::BecomeUser,
        effects::privileges::BoundCapabilities,
        effects::privileges::NoNewPrivileges,
        effects::privileges::SetCapabilities,
        effects::privileges::SetRlimit,
        effects::probe::ProbeCommand,
        effects::probe::ProbeHttp,
        effects::probe::ProbeTcp,
        effects::relay::RelayConsole,
        effects::route::RouteAdd,
        effects::seccomp::LoadFilter,
        effects::stage::Stage,
        effects::sysctl::WriteSysctl,
        effects::uts::SetDomainname,
        effects::uts::SetHostname,
        effects::wait::AwaitEnd,
        effects::wait::EndProcess,
        run::UndoRun,
    ];
    Registry::new(steps, effects)
}

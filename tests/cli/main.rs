//! The program as a person uses it: every command on the real kernel, and the built-in plans against fixed facts.

use std::process::ExitCode;

use lifecycle_tests::harness;

mod apparmor;
mod attacks;
mod attacks_cgroups;
mod attacks_checkpoints;
mod attacks_descriptors;
mod attacks_net;
mod boxed;
mod bystanders;
mod catalogue;
mod containers;
mod coverage;
mod covers;
mod delegated;
mod exchanged;
mod faults;
mod fields;
mod fields_cgroup;
mod fields_config;
mod fields_destinations;
mod fields_hooks;
mod fields_mounts;
mod fields_namespaces;
mod fields_net;
mod fields_planned;
mod fields_process;
mod fields_root;
mod fields_scheduling;
mod fields_seccomp;
mod fields_seccomp_agent;
mod floods;
mod images;
mod limited;
mod locked;
mod masked;
mod oci_criu;
mod oci_criu_options;
mod oci_criu_real;
mod oci_exec;
mod oci_making;
mod oci_messages;
mod oci_notify;
mod oci_options;
mod oci_rdt;
mod oci_scene;
mod oci_signals;
mod oci_verbs;
mod plans;
mod races;
mod rootless;
mod running;
mod runs;
mod saved;
mod scene;
mod security;
mod service;
mod state_root;
mod systemd;
mod systemd_oci;
mod systemd_slices;
mod users;

fn main() -> ExitCode {
    let tests = [
        apparmor::tests(),
        attacks::tests(),
        attacks_cgroups::tests(),
        attacks_checkpoints::tests(),
        attacks_descriptors::tests(),
        attacks_net::tests(),
        bystanders::tests(),
        catalogue::tests(),
        containers::tests(),
        coverage::tests(),
        delegated::tests(),
        exchanged::tests(),
        faults::tests(),
        fields_cgroup::tests(),
        fields_config::tests(),
        fields_destinations::tests(),
        fields_hooks::tests(),
        fields_mounts::tests(),
        fields_namespaces::tests(),
        fields_net::tests(),
        fields_planned::tests(),
        fields_process::tests(),
        fields_root::tests(),
        fields_scheduling::tests(),
        fields_seccomp::tests(),
        fields_seccomp_agent::tests(),
        floods::tests(),
        images::tests(),
        locked::tests(),
        masked::tests(),
        oci_criu::tests(),
        oci_criu_options::tests(),
        oci_criu_real::tests(),
        oci_exec::tests(),
        oci_making::tests(),
        oci_messages::tests(),
        oci_notify::tests(),
        oci_options::tests(),
        oci_rdt::tests(),
        oci_signals::tests(),
        oci_verbs::tests(),
        plans::tests(),
        races::tests(),
        rootless::tests(),
        running::tests(),
        runs::tests(),
        saved::tests(),
        service::tests(),
        state_root::tests(),
        systemd::tests(),
        users::tests(),
    ]
    .concat();
    let documents = vec![coverage::test(&tests), security::test(&tests)];
    harness::main([tests, documents].concat())
}

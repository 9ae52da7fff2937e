//! What tests cover beyond what their names say, and what none of them covers.

/// A test, and the fields, verbs and options whose effect it looks at besides those in its name. `a.{b,c}` is `a.b` and `a.c`.
pub const COVERS: &[(&str, &[&str])] = &[
    ("containers::a_config_that_cannot_be_is_refused_with_its_field", &["ociVersion"]),
    ("containers::a_rootless_bundle_runs_for_root_and_for_a_user", &["linux.{uidMappings,gidMappings}"]),
    ("delegated::an_ordinary_user_names_a_cgroup_of_his_own", &["linux.cgroupsPath"]),
    ("systemd::a_container_is_a_scope_in_nested_slices", &["linux.cgroupsPath"]),
    ("systemd::annotations_set_properties_of_the_scope", &["annotations"]),
    ("systemd::only_the_devices_of_a_container_can_be_used", &["linux.resources.devices"]),
    (
        "systemd::limits_are_in_systemd_and_in_the_cgroups_files",
        &["linux.resources.{memory.limit,memory.reservation,cpu.shares,cpu.quota,cpu.period,cpu.cpus,pids.limit}"],
    ),
    ("fields_mounts::mounts_bind_and_rbind", &["mounts.{destination,type,source,options}"]),
    ("fields_mounts::mounts_uid_mappings_and_gid_mappings", &["mounts.*.{containerID,hostID,size}"]),
    ("fields_mounts::mounts_options_idmap_in_a_joined_user_namespace", &["linux.namespaces.path"]),
    ("fields_process::process_terminal_and_console_size", &["process.consoleSize.{height,width}"]),
    ("fields_namespaces::process_command_line_is_not_interpreted", &["process.user.username"]),
    ("fields_process::process_rlimits", &["process.rlimits.{type,hard,soft}"]),
    (
        "fields_process::process_capabilities",
        &["process.capabilities.{bounding,effective,inheritable,permitted,ambient}"],
    ),
    ("fields_process::process_io_priority", &["process.ioPriority.{class,priority}"]),
    ("fields_process::linux_personality", &["linux.personality.{domain,flags}"]),
    ("fields_hooks::hooks_prestart_runs_on_the_host_while_creating", &["hooks.*.{args,env}"]),
    ("fields_hooks::hooks_create_runtime_runs_on_the_host_while_creating", &["hooks.*.{args,env}"]),
    ("fields_hooks::hooks_poststart_runs_on_the_host_once_running", &["hooks.*.{args,env}"]),
    ("fields_hooks::hooks_poststop_runs_on_the_host_once_stopped", &["hooks.*.{args,env}"]),
    ("fields_namespaces::linux_uid_mappings_and_gid_mappings", &["linux.*.{containerID,hostID,size}"]),
    ("fields_root::linux_devices", &["linux.devices.{type,path,major,minor,fileMode,uid,gid}"]),
    ("fields_cgroup::linux_resources_devices", &["linux.resources.devices.{allow,type,major,minor,access}"]),
    (
        "fields_cgroup::linux_resources_block_io_weight_device",
        &["linux.resources.blockIO.weightDevice.{major,minor,weight}"],
    ),
    (
        "fields_cgroup::linux_resources_block_io_throttle_read_bps_device",
        &["linux.resources.blockIO.*.{major,minor,rate}"],
    ),
    ("fields_cgroup::linux_resources_hugepage_limits", &["linux.resources.hugepageLimits.{pageSize,limit}"]),
    ("fields_cgroup::linux_resources_network_priorities", &["linux.resources.network.priorities.{name,priority}"]),
    ("fields_cgroup::linux_resources_rdma", &["linux.resources.rdma.{hcaHandles,hcaObjects}"]),
    (
        "fields_cgroup::linux_intel_rdt_is_refused_without_resctrl",
        &["linux.intelRdt.{closID,schemata,l3CacheSchema,memBwSchema,enableCMT,enableMBM,enableMonitoring}"],
    ),
    ("fields_seccomp::linux_seccomp_syscalls_action", &["linux.seccomp.syscalls.{names,errnoRet}"]),
    ("fields_seccomp::linux_seccomp_syscalls_args_op", &["linux.seccomp.syscalls.args.{index,value,valueTwo}"]),
    (
        "fields_seccomp::linux_seccomp_listener_path_gets_the_descriptor_and_the_state",
        &["linux.seccomp.listenerMetadata"],
    ),
    ("oci_exec::oci_exec_detach_leaves_it_running_and_pid_file_tells_which", &["exec --pid-file"]),
    ("oci_exec::oci_exec_in_a_stopped_or_absent_container_is_255", &["start"]),
    ("oci_making::oci_create_and_exec_pidfd_socket_gets_the_process", &["run --pidfd-socket", "create --bundle"]),
    (
        "oci_making::oci_run_ends_with_the_programs_code_and_keep_leaves_the_container",
        &["run --{bundle,detach,keep,pid-file}", "delete", "--root"],
    ),
    ("oci_verbs::oci_kill_ends_a_paused_container_and_delete_force_too", &["delete --force"]),
    ("oci_verbs::oci_ps_prints_the_containers_processes_and_no_others", &["ps --format"]),
    ("oci_verbs::oci_pause_stops_every_process_until_resume", &["state", "resume"]),
    (
        "oci_verbs::oci_update_changes_each_limit_by_its_flag",
        &[
            "update --{cpu-period,cpu-quota,cpu-burst,cpu-share,cpuset-cpus,cpuset-mems,cpu-idle}",
            "update --{kernel-memory,kernel-memory-tcp,memory,memory-reservation,memory-swap}",
            "update --{pids-limit,l3-cache-schema,mem-bw-schema}",
        ],
    ),
    ("oci_verbs::oci_spec_writes_a_config_that_runs_and_overwrites_nothing", &["spec --{bundle,rootless}"]),
    ("oci_verbs::oci_completions_and_man_cover_every_verb", &["completions", "man"]),
    (
        "oci_messages::oci_messages_of_state_kill_delete_and_start_are_what_callers_match",
        &["{state,kill,delete,start}"],
    ),
    ("oci_messages::oci_log_has_the_reason_as_its_last_error_in_either_format", &["--{log-format,debug}"]),
    ("oci_criu::oci_checkpoint_and_restore_say_what_criu_lacks_and_change_nothing", &["--criu"]),
    (
        "oci_criu::oci_checkpoint_gives_criu_every_option_and_deletes_the_container",
        &[
            "checkpoint --{image-path,work-path,parent-path,tcp-established,tcp-skip-in-flight,ext-unix-sk,shell-job}",
            "checkpoint --{lazy-pages,file-locks,manage-cgroups-mode,empty-ns,auto-dedup,leave-running}",
            "checkpoint --{page-server,pre-dump}",
        ],
    ),
    (
        "oci_criu::oci_restore_makes_a_container_that_every_verb_knows",
        &["restore --{bundle,image-path,detach,pid-file,lsm-profile,lsm-mount-context,manage-cgroups-mode}"],
    ),
    (
        "oci_criu::oci_restore_gives_criu_every_option",
        &[
            "restore --{work-path,tcp-established,tcp-skip-in-flight,ext-unix-sk,shell-job,lazy-pages,file-locks}",
            "restore --{empty-ns,auto-dedup,no-subreaper,console-socket,pidfd-socket}",
        ],
    ),
    (
        "oci_criu_real::oci_checkpoint_image_path_and_restore_detach_no_pivot_and_hooks",
        &["checkpoint", "restore --{bundle,image-path,detach,pid-file,no-pivot}", "hooks"],
    ),
    (
        "oci_criu_real::oci_checkpoint_pre_dump_parent_path_leave_running_and_work_path",
        &["checkpoint --{image-path,parent-path,leave-running,work-path}", "restore --{image-path,work-path}"],
    ),
    (
        "oci_criu_real::oci_checkpoint_file_locks_and_tcp_established",
        &["checkpoint --{file-locks,tcp-established}", "restore --{file-locks,tcp-established}"],
    ),
    ("apparmor::process_apparmor_profile_confines_the_program_and_what_joins_it", &["process.apparmorProfile"]),
    (
        "systemd::oci_systemd_cgroup_carries_a_container_through_its_life",
        &["--systemd-cgroup", "linux.cgroupsPath", "{create,start,state,exec,update,pause,resume,kill,delete}"],
    ),
    ("systemd::oci_systemd_cgroup_delete_force_stops_the_scope", &["--systemd-cgroup", "delete --force"]),
    ("systemd::oci_systemd_cgroup_restore_makes_the_scope_again", &["--systemd-cgroup", "checkpoint", "restore"]),
    ("systemd::podman_with_systemd_as_its_cgroup_manager_as_with_runc", &["--systemd-cgroup"]),
    ("law oci::create", &["create"]),
    ("law oci::create::shared_parent", &["create"]),
    ("law oci::start", &["start"]),
    ("law oci::exec", &["exec"]),
    ("law oci::exec::detached", &["exec --detach"]),
    ("law oci::exec::host_pids", &["exec --detach"]),
    ("law oci::delete", &["delete"]),
    ("law oci::delete::running", &["delete --force"]),
    ("callers podman::output_and_exit_codes", &["{create,start,delete,state}"]),
    ("callers podman::a_terminal", &["create --console-socket"]),
    ("callers podman::limits", &["linux.resources"]),
    ("callers podman::a_life", &["{kill,exec}"]),
    ("callers podman::paused_and_going_on", &["{pause,resume}"]),
    ("callers podman::limits_are_changed", &["update --resources"]),
    ("callers containerd::output_and_exit_codes", &["{create,start,delete,exec}"]),
    ("callers containerd::a_terminal", &["create --console-socket"]),
    ("callers containerd::its_processes", &["ps"]),
    ("callers containerd::paused_and_going_on", &["{pause,resume}"]),
];

/// What no test covers, and why. A field or option that gets a test leaves this list: the table's test fails until it does.
pub const KNOWN_GAPS: &[(&str, &str)] =
    &[("--rootless", "accepted for runc's callers, which give it: whether cgroups are the caller's is found out")];

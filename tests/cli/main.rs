//! The program as a person uses it: every command on the real kernel, and the built-in plans against fixed facts.

use std::process::ExitCode;

use lifecycle_tests::harness::{self, Need};
use lifecycle_tests::tests;

mod apparmor;
mod attacks;
mod boxed;
mod catalogue;
mod containers;
mod coverage;
mod covers;
mod delegated;
mod faults;
mod fields;
mod fields_cgroup;
mod fields_config;
mod fields_hooks;
mod fields_mounts;
mod fields_namespaces;
mod fields_net;
mod fields_planned;
mod fields_process;
mod fields_root;
mod fields_seccomp;
mod images;
mod masked;
mod oci_criu;
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
mod service;
mod systemd;
mod systemd_oci;
mod users;

fn main() -> ExitCode {
    use Need::{Kernel, Program, Root};
    let tests = tests![
        coverage::a_tests_name_says_what_it_covers,
        plans::text_folded,
        plans::json,
        plans::dot,
        plans::mermaid,
        plans::svg,
        plans::text_by_the_programs_own_snapshots,
        plans::no_plan_is_without_a_snapshot,
        plans::a_part_of_a_plan_says_what_it_needs,
        fields_planned::linux_intel_rdt_clos_id_and_schemata,
        fields_planned::linux_intel_rdt_enable_monitoring_enable_cmt_and_enable_mbm,
        fields_planned::linux_resources_rdma_hca_handles_and_hca_objects,
        fields_planned::linux_resources_cpu_mems_of_a_machine_with_two,
        fields_planned::linux_resources_network_priorities_name_and_priority,
        plans::the_facts_hold_the_bundles_of_runc,
        plans::the_facts_name_every_fact,
        #[needs(Root)]
        plans::the_same_for_another_user_in_another_directory,
        #[needs(Root)]
        running::hello_shows_the_container_from_inside_and_leaves_nothing,
        #[needs(Root)]
        running::the_exit_code_is_the_containers,
        #[needs(Root)]
        running::a_container_that_is_killed_is_137,
        #[needs(Root)]
        running::stdin_and_stdout_are_the_containers_own,
        #[needs(Root)]
        running::what_follows_two_dashes_is_the_command_word_by_word,
        #[needs(Root)]
        running::parameters_come_from_a_file_and_the_command_line,
        #[needs(Root)]
        running::wrong_input_is_125_and_changes_nothing,
        #[needs(Root)]
        running::every_event_is_a_line_of_json,
        #[needs(Root)]
        running::a_trace_has_a_lane_for_the_host_and_one_for_init,
        #[needs(Root)]
        running::hello_runs_without_each_of_the_newer_calls,
        #[needs(Root)]
        running::a_stopped_engine_does_not_wait_for_its_container,
        #[needs(Root)]
        faults::a_fault_before_or_after_each_step_is_taken_back,
        #[needs(Root)]
        faults::a_crash_at_each_step_is_made_good_by_recover,
        #[needs(Root)]
        faults::every_step_of_hello_can_fail_and_leaves_nothing,
        #[needs(Root)]
        faults::a_signal_cancels_and_rolls_back_and_another_does_no_harm,
        #[needs(Root)]
        faults::a_killed_engine_is_made_good_by_recover,
        #[needs(Root)]
        faults::a_killed_engine_is_made_good_by_undo_too,
        #[needs(Root)]
        faults::recover_leaves_a_run_alone_that_is_going_on,
        #[needs(Root)]
        faults::undo_cancels_a_run_that_is_going_on,
        #[needs(Root)]
        faults::the_second_run_of_an_id_is_refused_at_once_and_names_the_first,
        #[needs(Root)]
        faults::a_step_that_fails_says_what_where_why_and_what_was_undone,
        #[needs(Root)]
        faults::an_undo_that_fails_is_stuck_and_can_be_tried_again,
        #[needs(Root)]
        faults::a_pause_tells_how_to_look_inside_and_goes_on_at_enter,
        #[needs(Root)]
        faults::an_interrupt_while_paused_takes_everything_back,
        #[needs(Root)]
        runs::a_kept_run_stays_until_it_is_undone,
        #[needs(Root)]
        runs::undo_and_show_and_logs_of_no_run_say_so,
        #[needs(Root)]
        runs::a_run_shows_its_steps_with_times_and_outcomes,
        #[needs(Root)]
        runs::logs_are_told_by_step,
        #[needs(Root)]
        runs::a_secret_is_nowhere,
        #[needs(Root)]
        runs::a_detached_run_goes_on_and_is_reached_by_its_id,
        #[needs(Root)]
        runs::a_detached_run_that_cannot_begin_says_why_at_once,
        #[needs(Root)]
        runs::a_detached_containers_output_is_in_its_logs,
        #[needs(Root)]
        runs::a_detached_runs_failure_is_in_its_logs_apart,
        #[needs(Root, Program("busybox"))]
        runs::audit_knows_whose_everything_is,
        #[needs(Root)]
        runs::a_damaged_journal_is_named_and_left_alone,
        #[needs(Root, Program("script"))]
        runs::at_a_terminal_the_container_has_it_and_an_error_stays,
        #[needs(Root, Program("script"))]
        runs::a_shell_at_a_terminal_has_job_control,
        #[needs(Root)]
        saved::a_saved_plan_runs_exactly_as_shown,
        #[needs(Root, Program("busybox"))]
        saved::a_saved_plan_is_refused_once_the_config_has_changed,
        #[needs(Root)]
        saved::a_saved_plan_is_refused_where_the_facts_are_others,
        #[needs(Root, Program("busybox"))]
        saved::two_bundles_and_two_hosts_are_compared_effect_by_effect,
        #[needs(Root)]
        saved::ten_mistakes_get_ten_good_messages,
        #[needs(Root)]
        saved::check_has_nothing_to_say_of_the_built_in_plans,
        #[needs(Root, Program("busybox"))]
        saved::a_dry_run_needs_no_root_and_touches_nothing,
        #[needs(Root)]
        saved::a_snapshot_in_ci_fails_readably_and_is_accepted_on_purpose,
        #[needs(Root)]
        catalogue::every_kind_is_documented_and_its_examples_are_plans,
        #[needs(Root)]
        catalogue::the_built_in_plans_fit_the_schema_and_wrong_ones_do_not,
        #[needs(Root)]
        catalogue::facts_are_found_whole_and_masked,
        #[needs(Root)]
        catalogue::completions_are_scripts_that_their_shells_take,
        #[needs(Root)]
        catalogue::the_manual_has_a_page_for_every_command_that_renders,
        #[needs(Root, Program("busybox"))]
        containers::a_bundle_runs_with_its_own_exit_code_and_stdio,
        #[needs(Root, Program("busybox"))]
        containers::death_by_signal_is_128_and_its_number,
        #[needs(Root, Program("busybox"))]
        containers::created_started_and_deleted_like_with_any_runtime,
        #[needs(Root, Program("busybox"))]
        containers::every_step_of_a_container_can_fail_and_leaves_nothing,
        #[needs(Root, Program("busybox"), Program("script"))]
        containers::a_terminal_is_the_containers_own,
        #[needs(Root, Program("busybox"))]
        containers::a_rootless_bundle_runs_for_root_and_for_a_user,
        #[needs(Root, Program("busybox"))]
        containers::a_config_that_cannot_be_is_refused_with_its_field,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_default_action_and_default_errno_ret,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_architectures,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_syscalls_action,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_syscalls_args_op,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_flags,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_is_loaded_with_and_without_no_new_privileges,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_listener_path_gets_the_descriptor_and_the_state,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_listener_path_where_nobody_listens_fails_before_the_container,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_flags_wait_killable_recv_keeps_signals_from_a_notified_call,
        #[needs(Root, Program("busybox"))]
        fields_seccomp::linux_seccomp_is_compiled_once_and_kept_by_content,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_are_moved_with_their_addresses_and_come_back,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_name_is_the_name_inside,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_come_back_whatever_the_container_did_to_them,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_come_back_when_the_container_has_died,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_come_back_after_every_failure_and_crash,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_that_cannot_be_moved_are_refused,
        #[needs(Root, Program("busybox"), Program("ip"), Program("nsenter"))]
        fields_net::linux_net_devices_in_a_namespace_that_was_there_before,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_prestart_runs_on_the_host_while_creating,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_create_runtime_runs_on_the_host_while_creating,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_poststart_runs_on_the_host_once_running,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_poststop_runs_on_the_host_once_stopped,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_create_container_runs_in_the_containers_namespaces_with_the_hosts_files,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_start_container_runs_in_the_container_before_its_program,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_run_in_the_order_of_the_spec,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_that_fail_before_the_program_fail_the_container,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_poststart_that_fails_stops_the_container,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_poststop_that_fails_is_a_warning,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_timeout_ends_a_hook_that_takes_too_long,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_that_the_spec_forbids_are_refused,
        #[needs(Root, Program("busybox"))]
        fields_hooks::hooks_path_is_executed_as_it_is,
        #[needs(Root, Program("busybox"))]
        fields_process::process_scheduler_policy_and_nice,
        #[needs(Root, Program("busybox"))]
        fields_process::process_scheduler_priority_and_flags,
        #[needs(Root, Program("busybox"), Program("chrt"))]
        fields_process::process_scheduler_runtime_deadline_and_period,
        #[needs(Root, Program("busybox"), Program("ionice"))]
        fields_process::process_io_priority,
        #[needs(Root, Program("busybox"), Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        fields_process::process_exec_cpu_affinity_initial_and_final,
        #[needs(Root, Program("busybox"), Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        fields_process::process_scheduler_io_priority_and_exec_cpu_affinity_of_an_exec,
        #[needs(Root, Program("busybox"))]
        fields_process::linux_personality,
        #[needs(Root, Program("busybox"), Kernel("/proc/self/numa_maps", "a kernel with NUMA"))]
        fields_process::linux_memory_policy_mode_nodes_and_flags,
        #[needs(Root, Program("busybox"))]
        fields_process::process_apparmor_profile,
        #[needs(Root, Program("busybox"))]
        fields_process::process_selinux_label,
        #[needs(Root, Program("busybox"))]
        fields_process::linux_mount_label,
        #[needs(Root, Program("busybox"))]
        fields_process::process_args_env_and_cwd,
        #[needs(Root, Program("busybox"))]
        fields_process::process_rlimits,
        #[needs(Root, Program("busybox"))]
        fields_process::process_rlimits_above_the_callers_own,
        #[needs(Root, Program("busybox"))]
        fields_process::process_user_uid_gid_umask_and_additional_gids,
        #[needs(Root, Program("busybox"))]
        fields_process::process_capabilities,
        #[needs(Root, Program("busybox"))]
        fields_process::process_no_new_privileges,
        #[needs(Root, Program("busybox"))]
        fields_process::process_oom_score_adj,
        #[needs(Root, Program("busybox"))]
        fields_process::process_terminal_and_console_size,
        #[needs(Root, Program("busybox"))]
        fields_process::hostname_and_domainname,
        #[needs(Root, Program("busybox"))]
        fields_process::linux_sysctl,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_attributes,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_attributes_cleared,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_recursive_attributes,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_recursive_attributes_cleared,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_of_the_file_system,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_propagation,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_bind_and_rbind,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_destination_of_a_file_and_missing,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_tmpcopyup,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_uid_mappings_and_gid_mappings,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_idmap_in_a_user_namespace,
        #[needs(Root, Program("busybox"), Program("unshare"))]
        fields_mounts::mounts_options_idmap_in_a_joined_user_namespace,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_source_closed_to_a_user_namespace,
        #[needs(Root, Program("busybox"))]
        fields_mounts::mounts_options_remount,
        #[needs(Root, Program("busybox"))]
        fields_root::mounts_type_cgroup,
        #[needs(Root, Program("busybox"))]
        fields_root::mounts_type_cgroup_in_a_user_namespace_is_read_only,
        #[needs(Root, Program("busybox"))]
        fields_root::linux_default_devices,
        #[needs(Root, Program("busybox"))]
        fields_root::linux_devices,
        #[needs(Root, Program("busybox"))]
        fields_root::linux_rootfs_propagation,
        #[needs(Root, Program("busybox"))]
        fields_root::root_path_and_readonly,
        #[needs(Root, Program("busybox"))]
        fields_root::linux_masked_paths_and_readonly_paths,
        #[needs(Root, Program("busybox"))]
        images::an_image_whose_dev_is_a_symlink_gets_no_node_on_the_host,
        #[needs(Root, Program("busybox"))]
        images::an_image_with_symlinks_for_devices_reaches_no_file_of_the_host,
        #[needs(Root, Program("busybox"))]
        images::files_that_stdio_leads_to_keep_their_owner,
        #[needs(Root, Program("busybox"))]
        images::an_image_whose_passwd_is_endless_or_a_fifo_holds_nobody_up,
        #[needs(Root, Program("busybox"), Program("setpriv"))]
        images::the_callers_groups_are_not_the_containers,
        #[needs(Root, Program("busybox"))]
        races::a_file_systems_destination_that_is_swapped_stays_in_the_root,
        #[needs(Root, Program("busybox"))]
        races::a_bound_files_destination_that_is_swapped_stays_in_the_root,
        #[needs(Root, Program("busybox"))]
        races::a_copied_up_destination_that_is_swapped_stays_in_the_root,
        #[needs(Root, Program("busybox"))]
        races::an_image_that_fakes_proc_or_sys_is_refused,
        #[needs(Root, Program("busybox"))]
        races::a_copied_up_destination_that_is_swapped_fills_nothing_else_by_the_older_calls,
        #[needs(Root, Program("busybox"))]
        races::a_parameter_is_written_where_it_belongs_by_the_older_calls_too,
        #[needs(Root, Program("busybox"))]
        races::a_parameter_is_written_where_it_belongs_whatever_others_mount,
        #[needs(Root, Program("busybox"))]
        fields_config::config_json_with_a_wrong_type_or_value_is_refused_with_file_line_and_column,
        #[needs(Root, Program("busybox"))]
        fields_config::config_json_unknown_members_are_ignored_with_a_warning,
        #[needs(Root, Program("busybox"))]
        fields_config::annotations_are_kept_those_that_nobody_knows_too,
        #[needs(Root, Program("busybox"))]
        rootless::oci_rootless_a_user_without_a_cgroup_is_warned_and_his_container_is_where_he_is,
        #[needs(Root, Program("busybox"), Program("unshare"))]
        rootless::oci_rootless_without_a_log_the_warning_is_on_stderr,
        #[needs(Root, Program("busybox"), Program("unshare"))]
        rootless::oci_rootless_what_needs_a_cgroup_is_refused_while_planning_by_its_field,
        #[needs(Root, Program("busybox"), rootless::v1(), Program("unshare"))]
        rootless::oci_rootless_a_cgroup_below_one_that_was_handed_over_is_made_and_limited,
        #[needs(Root, Program("busybox"))]
        rootless::oci_rootless_root_where_cgroups_are_read_only_has_to_ask_for_it,
        #[needs(Root, Program("busybox"))]
        rootless::a_user_without_a_cgroup_is_warned_by_a_plan_too,
        #[needs(Root)]
        users::hello_runs_for_an_ordinary_user_and_leaves_nothing,
        #[needs(Root)]
        users::an_ordinary_users_container_can_change_its_own_files_only,
        #[needs(Root)]
        users::where_no_overlay_is_to_be_had_the_files_are_read_only,
        #[needs(Root)]
        users::an_ordinary_users_faults_and_crashes_leave_nothing,
        #[needs(Root)]
        users::a_plan_that_needs_root_says_so,
        #[needs(Root)]
        masked::the_masked_facts_are_what_such_a_kernel_has,
        #[needs(Root)]
        masked::hello_is_the_same_without_the_newer_calls,
        #[needs(Root)]
        masked::a_read_only_hello_is_read_only_below_too,
        #[needs(Root, Program("busybox"))]
        masked::a_bundle_is_the_same_without_the_newer_calls,
        #[needs(Root, Program("busybox"))]
        masked::a_container_is_created_started_and_deleted_without_the_newer_calls,
        #[needs(Root, Program("busybox"))]
        masked::what_has_no_older_way_is_refused_with_the_fact,
        #[needs(Root, Program("perl"))]
        service::a_ci_job_prints_both_logs_by_step_and_leaves_nothing,
        #[needs(Root, Program("perl"))]
        service::a_ci_job_ends_with_its_clients_exit_code,
        #[needs(Root, Program("perl"), Program("ip"))]
        service::the_host_has_no_address_in_a_jobs_network,
        #[needs(Root, Program("perl"))]
        service::a_server_that_ends_is_found_out_by_the_probe,
        #[needs(Root, Program("perl"))]
        service::every_step_of_a_ci_job_can_fail_and_leaves_nothing,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_limit,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_reservation,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_swap,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_kernel_is_refused,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_kernel_tcp,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_swappiness,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_disable_oom_killer,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_use_hierarchy,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_use_hierarchy_false_is_refused,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_shares,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_quota,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_period,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_burst,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_realtime_runtime,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_realtime_runtime_below_parents_that_are_made,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_realtime_period,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_idle,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_cpus,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_cpu_mems,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_pids_limit,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_hugepage_limits,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_hugepage_limits_of_no_size_are_refused,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_network_class_id,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_network_priorities,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_leaf_weight,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_weight_device_leaf_weight,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_unified,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_throttle_read_bps_device,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_throttle_write_bps_device,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_throttle_read_iops_device,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_throttle_write_iops_device,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_weight,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_block_io_weight_device,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_rdma,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_memory_check_before_update,
        #[needs(Root, Program("busybox"))]
        fields_cgroup::linux_resources_devices,
        #[needs(Root, Program("busybox"), Program("ps"))]
        oci_verbs::oci_ps_prints_the_containers_processes_and_no_others,
        #[needs(Root, Program("busybox"))]
        oci_rdt::oci_exec_joins_the_containers_resctrl_groups_and_events_stats_reads_them,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_events_stats_prints_one_document_of_what_was_used,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_events_interval_goes_on_until_the_container_ends,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_events_tells_when_memory_runs_out,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_pause_stops_every_process_until_resume,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_kill_ends_a_paused_container_and_delete_force_too,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_pause_and_resume_a_created_container,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_update_changes_each_limit_by_its_flag,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_update_blkio_weight_is_written_or_refused_with_its_controller,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_update_resources_come_from_a_file_or_stdin,
        #[needs(Root, Program("busybox"))]
        oci_verbs::oci_spec_writes_a_config_that_runs_and_overwrites_nothing,
        #[needs(Root)]
        oci_verbs::oci_features_and_version_are_as_callers_read_them,
        #[needs(Root)]
        oci_verbs::oci_completions_and_man_cover_every_verb,
        #[needs(Root)]
        oci_verbs::oci_completions_complete_a_verbs_options,
        #[needs(Root, delegated::v2_alone(), Program("busybox"), Program("setpriv"))]
        delegated::an_ordinary_users_limits_are_kept_below_his_own_cgroup,
        #[needs(Root, delegated::v2_alone(), Program("busybox"), Program("setpriv"))]
        delegated::an_ordinary_user_names_a_cgroup_of_his_own,
        #[needs(Root, delegated::v2_alone(), Program("busybox"), Program("setpriv"))]
        delegated::an_ordinary_user_is_refused_a_cgroup_of_somebody_elses,
        #[needs(Root, delegated::v2_alone(), Program("busybox"), Program("setpriv"))]
        delegated::an_ordinary_users_container_is_deleted_with_its_cgroup,
        #[needs(Root, delegated::v2_alone(), Program("busybox"), Program("setpriv"), Program("newuidmap"))]
        delegated::an_ordinary_user_with_subordinate_ids_has_limits_too,
        #[needs(Root, Need::Other(!std::path::Path::new("/sys/fs/resctrl/info").exists(), "a machine without resctrl"), Program("busybox"))]
        fields_cgroup::linux_intel_rdt_is_refused_without_resctrl,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_ends_with_the_programs_exit_code,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_cwd_is_where_it_starts,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_env_adds_variables,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_user_and_additional_gids_are_whom_it_runs_as,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_cap_adds_a_capability,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_no_new_privs_is_as_asked_and_otherwise_the_containers,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_process_is_the_whole_process,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_detach_leaves_it_running_and_pid_file_tells_which,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_tty_is_a_terminal_of_the_containers,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_cgroup_is_one_below_the_containers,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_ignore_paused_waits_until_the_container_goes_on,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_preserve_fds_are_the_programs,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_joins_a_cgroup_namespace_and_is_in_its_cgroup,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_apparmor_and_process_label_are_refused_where_no_module_is,
        #[needs(Root, Program("busybox"))]
        oci_exec::oci_exec_in_a_stopped_or_absent_container_is_255,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_create_and_exec_pidfd_socket_gets_the_process,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_create_console_socket_takes_the_terminal,
        #[needs(Root, Program("busybox"), Program("setsid"))]
        oci_making::oci_run_terminal_has_the_callers_size_whenever_that_changes,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_run_preserve_fds_and_listen_fds_are_the_programs,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_run_ends_with_the_programs_code_and_keep_leaves_the_container,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_kill_takes_signals_by_name_and_number_realtime_ones_too,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_kill_all_reaches_every_process_of_a_stopped_container_too,
        #[needs(Root, Program("busybox"))]
        oci_making::oci_create_and_run_that_are_cancelled_leave_nothing,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_exec_that_is_cancelled_sends_the_signal_to_its_program,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_run_and_exec_send_a_signal_on_that_comes_right_after_the_start,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_run_sends_signals_on_that_come_while_poststart_hooks_run,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_run_that_is_killed_leaves_nothing_once_the_container_is_deleted,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_start_that_is_cancelled_in_a_start_container_hook_has_started_the_container,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_start_that_is_killed_in_a_start_container_hook_has_started_the_container,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_start_that_is_cancelled_in_a_poststart_hook_stops_the_container,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_delete_force_ends_a_paused_container_whose_engine_was_killed,
        #[needs(Root, Program("busybox"))]
        oci_signals::oci_delete_says_who_does_not_reap_what_keeps_the_container,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_create_messages_tell_a_missing_program_from_one_that_may_not_run,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_messages_of_state_kill_delete_and_start_are_what_callers_match,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_log_has_the_reason_as_its_last_error_in_either_format,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_log_has_what_is_wrong_with_the_command_line,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_messages_of_wrong_ids_and_signals_are_runcs,
        #[needs(Root, Program("busybox"))]
        oci_messages::oci_options_are_taken_before_and_behind_the_id,
        #[needs(Root, Program("busybox"))]
        oci_notify::oci_start_notify_socket_waits_until_the_container_is_ready,
        #[needs(Root, Program("busybox"))]
        oci_notify::oci_start_notify_socket_ends_with_the_container_and_fails_without_a_manager,
        #[needs(Root, Program("busybox"))]
        oci_notify::oci_run_notify_socket_passes_on_what_the_container_says,
        #[needs(Root, Program("busybox"))]
        oci_criu::oci_checkpoint_and_restore_say_what_criu_lacks_and_change_nothing,
        #[needs(Root, Program("busybox"))]
        oci_criu::oci_checkpoint_gives_criu_every_option_and_deletes_the_container,
        #[needs(Root, Program("busybox"))]
        oci_criu::oci_restore_makes_a_container_that_every_verb_knows,
        #[needs(Root, Program("busybox"))]
        oci_criu::oci_checkpoint_status_fd_is_passed_on_to_criu,
        #[needs(Root, Program("busybox"))]
        oci_criu::oci_restore_gives_criu_every_option,
        #[needs(Root, Program("busybox"), Program("unshare"))]
        fields_namespaces::linux_namespaces_type_and_path,
        #[needs(Root, Program("busybox"), Program("unshare"))]
        fields_namespaces::linux_namespaces_path_of_a_mount_namespace,
        #[needs(Root, Program("busybox"))]
        fields_namespaces::linux_time_offsets_secs_and_nanosecs,
        #[needs(Root, Program("busybox"))]
        fields_namespaces::linux_uid_mappings_and_gid_mappings,
        #[needs(Root, Program("busybox"))]
        fields_namespaces::linux_cgroups_path,
        #[needs(Root, Program("busybox"))]
        fields_namespaces::vm_windows_solaris_zos_and_freebsd_are_refused,
        #[needs(Root, Program("busybox"))]
        fields_namespaces::process_command_line_is_not_interpreted,
        #[needs(Root, Program("busybox"))]
        oci_options::oci_list_format_and_quiet,
        #[needs(Root, Program("busybox"))]
        oci_options::oci_create_pid_file_and_preserve_fds,
        #[needs(Root, Program("busybox"), Program("nsenter"))]
        oci_options::oci_create_and_run_no_pivot,
        #[needs(Root, Program("busybox"), Kernel("/proc/keys", "/proc/keys"))]
        oci_options::oci_create_and_run_no_new_keyring,
        #[needs(Root, Program("busybox"))]
        oci_options::oci_run_and_exec_console_socket,
        #[needs(Root, Program("busybox"))]
        oci_options::oci_run_and_exec_no_subreaper,
        #[needs(Root, Program("busybox"))]
        oci_options::oci_update_cpu_rt_period_and_cpu_rt_runtime,
        #[needs(Root, Need::Other(!std::path::Path::new("/run/systemd/system").exists(), "a machine without systemd"), Program("busybox"))]
        oci_options::oci_systemd_cgroup_is_refused_where_systemd_is_not,
        #[needs(Root, Program("busybox"))]
        attacks::a_descriptor_that_leaks_is_no_way_out,
        #[needs(Root, Program("busybox"))]
        attacks::the_runtimes_own_file_cannot_be_overwritten,
        #[needs(Root, Program("busybox"))]
        attacks::what_enters_a_container_is_closed_to_it,
    ];
    let tests = [tests, oci_criu_real::tests(), apparmor::tests(), systemd::tests()].concat();
    let coverage = coverage::test(&tests);
    harness::main([tests, vec![coverage]].concat())
}

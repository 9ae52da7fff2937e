//! When and where the container's program runs: scheduler, I/O priority, processors, memory nodes, and its personality.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, program};
use serde_json::{Value, json};

use crate::fields::{Field, line, proc, stat};
use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Kernel, Program, Root};
    let tests = lifecycle_tests::tests![
        process_scheduler_policy_and_nice,
        process_scheduler_priority_and_flags,
        #[needs(Program("chrt"))]
        process_scheduler_runtime_deadline_and_period,
        #[needs(Program("ionice"))]
        process_io_priority,
        #[needs(Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        process_exec_cpu_affinity_initial_and_final,
        #[needs(Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        process_exec_cpu_affinity_and_the_cpuset_count_and_not_the_callers_cpus,
        #[needs(Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        process_scheduler_io_priority_and_exec_cpu_affinity_of_an_exec,
        linux_personality,
        #[needs(Kernel("/proc/self/numa_maps", "a kernel with NUMA"))]
        linux_memory_policy_mode_nodes_and_flags,
    ];
    tests.into_iter().map(|test| test.within("fields_scheduling").needs(&[Root, Program("busybox")])).collect()
}

const NICE: usize = 19;
const PRIORITY: usize = 40;
const POLICY: usize = 41;

pub fn process_scheduler_policy_and_nice(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (policy, number, nice) in [("SCHED_BATCH", 3, 7), ("SCHED_OTHER", 0, 3), ("SCHED_IDLE", 5, 0)] {
        field.config(|config| config["process"]["scheduler"] = json!({ "policy": policy, "nice": nice }))?;
        let inside = field.prints(&["cat", "/proc/self/stat"])?;
        assert_eq!(stat(&inside, POLICY), number, "{policy}: {inside}");
        // SCHED_IDLE is below every nice value.
        assert!(policy == "SCHED_IDLE" || stat(&inside, NICE) == nice, "{policy}: {inside}");
    }
    field.running(|pid| {
        assert_eq!(stat(&proc(pid, "stat")?, POLICY), 5);
        Ok(())
    })?;
    field.config(|config| config["process"]["scheduler"] = json!({ "policy": "SCHED_ISO" }))?;
    Ok(field.is_refused(&["process.scheduler.policy", "SCHED_ISO"])?)
}

/// With CONFIG_RT_GROUP_SCHED the container's cgroup needs real time of its own.
pub fn process_scheduler_priority_and_flags(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["scheduler"] =
            json!({ "policy": "SCHED_FIFO", "priority": 42, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
        if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            config["linux"]["resources"]["cpu"] = json!({ "realtimeRuntime": 5000, "realtimePeriod": 1_000_000 });
        }
    })?;
    // The shell has it; what it forks does not.
    let inside = field.shell("cat /proc/$$/stat /proc/self/stat | cat")?;
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!((stat(lines[0], POLICY), stat(lines[0], PRIORITY)), (1, 42), "{inside}");
    assert_eq!((stat(lines[1], POLICY), stat(lines[1], PRIORITY)), (0, 0), "{inside}");
    Ok(())
}

pub fn process_scheduler_runtime_deadline_and_period(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let deadline = |runtime: u64| {
        json!({ "policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": 10_000_000, "period": 20_000_000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"] })
    };
    field.config(|config| config["process"]["scheduler"] = deadline(1_000_000))?;
    field.running(|pid| {
        assert_eq!(stat(&proc(pid, "stat")?, POLICY), 6);
        let shown = program::output("chrt", &["-p", &pid.to_string()])?;
        assert!(shown.contains("1000000/10000000/20000000"), "{shown}");
        Ok(())
    })?;
    field.config(|config| config["process"]["scheduler"] = deadline(11_000_000))?;
    Ok(field.is_refused(&["process.scheduler.runtime", "longer than the deadline"])?)
}

pub fn process_io_priority(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (class, level, shown) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        field.config(|config| config["process"]["ioPriority"] = json!({ "class": class, "priority": level }))?;
        field.running(|pid| {
            assert_eq!(program::output("ionice", &["-p", &pid.to_string()])?.trim(), shown);
            Ok(())
        })?;
    }
    field.config(|config| config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }))?;
    Ok(field.is_refused(&["process.ioPriority.priority"])?)
}

/// As an exec's plan uses them: where the process is before it is in its cgroup, and where after.
pub fn process_exec_cpu_affinity_initial_and_final(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let cpus = |with: &str, last: &str| -> Result<String> {
        let script = "grep Cpus_allowed_list /proc/self/status";
        let plan = format!(
            "plan: {}\nsteps:\n  cgroup: {{ uses: cgroup.create, with: {{ path: \"/{0}/affinity\" }} }}\n  init:\n    uses: process.clone\n    \
             with: {{ new: [pid], cgroup: \"${{cgroup.join}}\", {with} }}\n  \
             affinity: {{ uses: process.affinity, site: \"${{init}}\", with: {{ {last} }} }}\n  \
             exec: {{ uses: process.exec, site: \"${{init}}\", with: {{ args: [/bin/sh, -c, \"{script}\"] }} }}\n  \
             wait: {{ uses: process.wait, with: {{ process: \"${{init.process}}\" }} }}\nmain: wait\n",
            lab.token()
        );
        field.scene.write("affinity.yaml", &plan)?;
        let told = field.scene.told(&["run", "affinity.yaml"]).ended(0);
        Ok(line(&told.out, "Cpus_allowed_list"))
    };
    assert_eq!(cpus("cpu_affinity: \"1\"", "")?, "1");
    assert_eq!(cpus("cpu_affinity: \"1\"", "cpus: \"0\"")?, "0");
    assert_eq!(cpus("oom_score_adj: 1", "cpus: 0-1")?, "0-1");
    for (name, list) in [("initial", "0 1"), ("final", "3-1")] {
        field.config(|config| config["process"]["execCPUAffinity"] = json!({ name: list }))?;
        field.is_refused(&[&format!("process.execCPUAffinity.{name}"), list])?;
    }
    // It is for exec alone: the container's own process runs everywhere.
    field.config(|config| config["process"]["execCPUAffinity"] = json!({ "initial": "1", "final": "1" }))?;
    assert_ne!(line(&field.prints(&["cat", "/proc/self/status"])?, "Cpus_allowed_list"), "1");
    Ok(())
}

/// A service that is bound to a CPU makes containers that are not.
pub fn process_exec_cpu_affinity_and_the_cpuset_count_and_not_the_callers_cpus(lab: &Lab) -> TestResult {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let cpus = |status: &str| line(status, "Cpus_allowed_list");
    let all = cpus(&std::fs::read_to_string("/proc/self/status")?);
    let before = sched_getaffinity(None)?;
    let mut first = CpuSet::new();
    first.set(0);
    // Whatever this test starts from here on has it.
    sched_setaffinity(None, &first)?;
    assert_eq!(cpus(&std::fs::read_to_string("/proc/self/status")?), "0");
    oci.running(&[]);
    assert_eq!(cpus(&proc(oci.pid()?, "status")?), all);
    assert_eq!(cpus(&oci.inside(&["cat", "/proc/self/status"])), all);
    oci.bundle.edit(|config| config["process"]["execCPUAffinity"] = json!({ "final": "1" }))?;
    assert_eq!(cpus(&oci.inside(&["cat", "/proc/self/status"])), "1");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    oci.edit(|config| config["linux"]["resources"]["cpu"] = json!({ "cpus": "1" }))?;
    oci.running(&[]);
    assert_eq!(cpus(&proc(oci.pid()?, "status")?), "1");
    sched_setaffinity(None, &before)?;
    Ok(oci.gone()?)
}

/// What an exec's own process asks for, and not what the container's does.
pub fn process_scheduler_io_priority_and_exec_cpu_affinity_of_an_exec(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| config["process"]["scheduler"] = json!({ "policy": "SCHED_IDLE" }))?;
    let process = |more: Value| {
        let mut process =
            json!({ "args": ["cat", "/proc/self/stat", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"] });
        for (name, value) in more.as_object().into_iter().flatten() {
            process[name] = value.clone();
        }
        process
    };
    field.running(|_| {
        let asked = json!({
            "scheduler": { "policy": "SCHED_BATCH", "nice": 11 },
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 },
            "execCPUAffinity": { "initial": "1", "final": "0" },
        });
        let inside = field.executes(&process(asked))?.ended(0).out;
        assert_eq!((stat(&inside, POLICY), stat(&inside, NICE)), (3, 11), "{inside}");
        assert_eq!(line(&inside, "Cpus_allowed_list"), "0");
        // Without a final one it stays where it began.
        let inside = field.executes(&process(json!({ "execCPUAffinity": { "initial": "1" } })))?.ended(0).out;
        assert_eq!((stat(&inside, POLICY), line(&inside, "Cpus_allowed_list").as_str()), (0, "1"), "{inside}");
        for (name, value, words) in [
            ("execCPUAffinity", json!({ "final": "1-" }), "process.execCPUAffinity.final"),
            ("apparmorProfile", json!("docker-default"), "AppArmor is not in force"),
            ("selinuxLabel", json!("a:b:c:s0"), "SELinux is not in force"),
        ] {
            let told = field.executes(&process(json!({ name: value })))?;
            // A machine that has the module may also have what was asked for.
            assert!(told.code != 0 || name != "execCPUAffinity", "{name}: {}", told.out);
            if told.code != 0 {
                told.says(&[words]);
            }
        }
        Ok(())
    })?;
    Ok(())
}

pub fn linux_personality(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let native = field.prints(&["uname", "-m"])?;
    field.config(|config| config["linux"]["personality"] = json!({ "domain": "LINUX32" }))?;
    field.running(|pid| {
        assert_eq!(proc(pid, "personality")?.trim(), "00000008");
        Ok(())
    })?;
    if native.trim() == "x86_64" {
        assert_eq!(field.prints(&["uname", "-m"])?.trim(), "i686");
    }
    field.config(|config| config["linux"]["personality"] = json!({ "domain": "LINUX" }))?;
    assert_eq!(field.prints(&["uname", "-m"])?, native);
    field.config(|config| config["linux"]["personality"]["flags"] = json!(["ADDR_NO_RANDOMIZE"]))?;
    Ok(field.is_refused(&["linux.personality.flags", "defines none"])?)
}

pub fn linux_memory_policy_mode_nodes_and_flags(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (policy, shown) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), " bind:0 "),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), " interleave=static:0 "),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }), " prefer=relative:0 "),
        (json!({ "mode": "MPOL_LOCAL" }), " local "),
    ] {
        field.config(|config| config["linux"]["memoryPolicy"] = policy)?;
        let maps = field.prints(&["cat", "/proc/self/numa_maps"])?;
        assert!(maps.contains(shown), "no{shown}in:\n{maps}");
    }
    for (policy, words) in [
        (json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0,x" }), "`0,x` is not a list"),
        (json!({ "mode": "MPOL_LOCAL", "flags": ["MPOL_F_NUMA_BALANCING"] }), "linux.memoryPolicy.flags"),
    ] {
        field.config(|config| config["linux"]["memoryPolicy"] = policy)?;
        field.is_refused(&[words])?;
    }
    Ok(())
}

//! No descriptor of the runtime's leads a container out of its root (CVE-2024-21626): not as the program's path, nor through the /proc directory
//! of what makes a container or enters it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{killer, program};
use serde_json::json;

use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        no_descriptor_of_a_created_container_leads_out,
        no_descriptor_of_what_becomes_a_container_or_is_its_hook_leads_out,
        no_descriptor_of_what_enters_a_container_leads_out,
        what_enters_a_container_does_not_show_its_arguments_nor_its_callers_environment,
        what_changes_its_user_stays_closed_to_that_user,
        no_program_of_the_host_is_started_by_a_descriptor,
        a_directory_is_not_taken_for_standard_input,
        the_hosts_null_device_is_nobodys_stdio,
    ];
    tests.into_iter().map(|test| test.within("attacks_descriptors").needs(&[Root, Program("busybox")])).collect()
}

/// A directory of the host, with a program that is not the image's and a file.
pub struct Outside(PathBuf);

impl Outside {
    pub fn new(lab: &Lab) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = lab.dir().join("outside");
        fs::create_dir(&dir)?;
        fs::write(dir.join("flag"), "of the host\n")?;
        fs::copy(program::find("busybox").ok_or("no busybox")?, dir.join("busybox-host"))?;
        Ok(Self(dir))
    }

    /// The descriptors of a process by which its file can be reached, upwards from what they are, with what they are.
    pub fn ways_out(&self, pid: i32) -> Vec<String> {
        let held = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let process = ["cwd", "root"].map(|name| PathBuf::from(format!("/proc/{pid}/{name}")));
        let leads_out = |held: &PathBuf| {
            (0..8).any(|up| {
                Path::new(&format!("{}{}{}/flag", held.display(), "/..".repeat(up), self.0.display())).exists()
            })
        };
        let all = held.chain(process).filter(leads_out);
        all.map(|held| format!("{}: {}", held.display(), fs::read_link(&held).unwrap_or_default().display())).collect()
    }
}

/// What a created container waits with, and what it is when it runs.
pub fn no_descriptor_of_a_created_container_leads_out(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    let outside = Outside::new(lab)?;
    assert!(!outside.ways_out(1).is_empty(), "the test finds no way where there is one");
    oci.create(&[]);
    assert_eq!(outside.ways_out(oci.pid()?), [""; 0]);
    oci.verb("start").ended(0);
    assert_eq!(outside.ways_out(oci.pid()?), [""; 0]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

/// From the moment on in which a process has left the host's root and let go of it: with hooks, in namespaces of all kinds, and as another user.
pub fn no_descriptor_of_what_becomes_a_container_or_is_its_hook_leads_out(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["true"])?;
    let outside = Outside::new(lab)?;
    oci.edit(|config| {
        let hook = json!([{ "path": "/bin/busybox", "args": ["sh", "-c", "true; exit 0"] }]);
        config["hooks"] = json!({ "startContainer": hook });
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    })?;
    for users in [false, true] {
        if users {
            oci.edit(|config| {
                let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
                (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
                if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                    namespaces.extend([
                        json!({ "type": "user" }),
                        json!({ "type": "cgroup" }),
                        json!({ "type": "time" }),
                    ]);
                }
            })?;
        }
        let mut left: BTreeMap<i32, usize> = BTreeMap::new();
        let mut ways = Vec::new();
        let outcome = killer::watch(&mut oci.command(&["run", "--bundle", "bundle", &oci.id]), |pid| {
            let host = Path::new(&format!("/proc/{pid}/root{}/flag", outside.0.display())).exists();
            let found = outside.ways_out(pid);
            match left.get_mut(&pid) {
                Some(looks) => {
                    *looks += 1;
                    ways.extend(found);
                }
                None if !host && found.is_empty() && Path::new(&format!("/proc/{pid}/root/bin/busybox")).exists() => {
                    left.insert(pid, 0);
                }
                None => {}
            }
        })?;
        assert_eq!(outcome.ending, killer::Ending::Exited(0), "{}", outcome.stderr);
        assert_eq!(ways, [""; 0], "users: {users}");
        // The container's first process, and its hook's.
        let looked_at = left.values().filter(|looks| **looks > 10).count();
        assert!(looked_at >= 2, "users: {users}: {left:?}");
    }
    Ok(oci.scene.nothing_left()?)
}

/// What enters a container is seen by its processes from its first moment in their pid namespace on. It is looked at before and after each of its
/// system calls, as a process with CAP_SYS_PTRACE could.
pub fn no_descriptor_of_what_enters_a_container_leads_out(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "1000"])?;
    let outside = Outside::new(lab)?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    let no_new_privileges = json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
        "user": { "uid": 1000, "gid": 1000 } });
    fs::write(lab.dir().join("process.json"), no_new_privileges.to_string())?;
    let execs: [&[&str]; 3] = [
        &["exec", &oci.id, "true"],
        &["exec", "--process", "process.json", &oci.id],
        &["exec", "--user", "1000:1000", "--cwd", "/tmp", "--env", "A=B", &oci.id, "true"],
    ];
    for exec in execs {
        let mut ways = Vec::new();
        entering(&oci, &mut oci.command(exec), |pid| ways.extend(outside.ways_out(pid)))?;
        ways.dedup();
        assert_eq!(ways, [""; 0], "{exec:?}");
    }
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

/// What `--env` says is a secret until the program has it, and the caller's own environment always.
pub fn what_enters_a_container_does_not_show_its_arguments_nor_its_callers_environment(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    oci.running(&[]);
    let mut seen = Vec::new();
    let mut exec = oci.command(&["exec", "--env", "SECRET=hunter2", &oci.id, "true"]);
    entering(&oci, exec.env("OF_THE_CALLER", "hunter3"), |pid| {
        for (name, secret) in [("cmdline", "hunter2"), ("environ", "hunter3")] {
            let shown = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            seen.extend(Some(name).filter(|_| String::from_utf8_lossy(&shown).contains(secret)));
        }
    })?;
    assert_eq!(seen, [""; 0]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

/// Whether a program that changes its user can be traced by that user afterwards: a setting of the whole machine.
struct SuidDumpable(String);

impl SuidDumpable {
    const FILE: &str = "/proc/sys/fs/suid_dumpable";

    fn allow() -> std::io::Result<Self> {
        let before = Self(fs::read_to_string(Self::FILE)?);
        fs::write(Self::FILE, "1")?;
        Ok(before)
    }
}

impl Drop for SuidDumpable {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
    }
}

/// CVE-2016-9962 where the administrator has set fs.suid_dumpable: each change of credentials then opens a process to whom it has become, as
/// which the container has processes of its own.
pub fn what_changes_its_user_stays_closed_to_that_user(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "1000"])?;
    // Who holds more capabilities than somebody else is not his to trace.
    oci.edit(|config| config["process"]["capabilities"] = json!({}))?;
    let _restored = SuidDumpable::allow()?;
    oci.running(&[]);
    let mut seen = Vec::new();
    let mut looked_at_it_as_user = false;
    entering(&oci, &mut oci.command(&["exec", "--user", "1000:1000", &oci.id, "true"]), |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if !status.contains("Uid:\t1000\t1000") {
            return;
        }
        looked_at_it_as_user = true;
        // As any process of that user, without capabilities.
        let look = Command::new("readlink").arg(format!("/proc/{pid}/exe")).uid(1000).gid(1000).output();
        seen.extend(
            look.ok().map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).filter(|exe| !exe.is_empty()),
        );
    })?;
    assert!(looked_at_it_as_user);
    seen.dedup();
    assert_eq!(seen, [""; 0]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

/// Runs an exec, and looks at every process of it that the container's processes see, before and after each of its system calls.
fn entering(oci: &Oci, exec: &mut Command, mut look: impl FnMut(i32)) -> TestResult {
    let pids = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let inside = pids(oci.pid()?)?;
    let mut looks = 0;
    let outcome = killer::watch(exec, |pid| {
        if pids(pid).is_ok_and(|pids| pids == inside) {
            looks += 1;
            look(pid);
        }
    })?;
    assert_eq!(outcome.ending, killer::Ending::Exited(0), "{exec:?}: {}", outcome.stderr);
    assert!(looks > 20, "what enters the container was looked at {looks} times only");
    Ok(())
}

/// By each number that a descriptor may have, upwards from it: as the program, as a link or an interpreter in the image, by PATH, from the working
/// directory, as another user, and by exec.
pub fn no_program_of_the_host_is_started_by_a_descriptor(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["true"])?;
    let outside = Outside::new(lab)?;
    oci.scene.begins_here()?;
    let inside = oci.bundle.rootfs();
    let mut escapes = Vec::new();
    let mut judge = |how: String, out: &str| {
        if out.contains("of the host") {
            escapes.push(how);
        }
    };
    let flag = outside.0.join("flag").display().to_string();
    for fd in 3..16 {
        let up = format!("/proc/self/fd/{fd}/../../..");
        let program = format!("{up}{}/busybox-host", outside.0.display());
        let link = inside.join("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&program, &link)?;
        fs::write(inside.join("script"), format!("#!{program} cat\n# of the host\n"))?;
        fs::set_permissions(inside.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let directory = format!("{up}{}", outside.0.display());
        let cases: [(&str, &str, &str, u32); 6] = [
            (&program, "/", "/bin", 0),
            (&program, "/", "/bin", 1000),
            ("/link", "/", "/bin", 0),
            ("/script", "/", "/bin", 0),
            ("busybox-host", "/", &directory, 0),
            ("./busybox-host", &directory, "/bin", 0),
        ];
        for (program, cwd, path, uid) in cases {
            oci.bundle.edit(|config| {
                config["root"]["readonly"] = json!(false);
                let process = &mut config["process"];
                process["args"] = json!([program, "echo", "of the host"]);
                process["cwd"] = json!(cwd);
                process["env"] = json!([format!("PATH={path}")]);
                process["user"]["uid"] = json!(uid);
            })?;
            let told = oci.told(&["run", "--bundle", "bundle", &oci.id]);
            judge(format!("run {program} in {cwd} with PATH={path} as {uid}"), &told.out);
        }
    }
    oci.bundle.edit(|config| {
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["process"]["cwd"] = json!("/");
        config["process"]["user"]["uid"] = json!(0);
        config["process"]["env"] = json!(["PATH=/bin"]);
    })?;
    oci.running(&[]);
    for fd in 3..16 {
        let directory = format!("/proc/self/fd/{fd}/../../..{}", outside.0.display());
        let program = format!("{directory}/busybox-host");
        let path = format!("PATH={directory}");
        let file = format!("/proc/self/fd/{fd}/../../..{flag}");
        let execs: [&[&str]; 4] = [
            &["exec", &oci.id, &program, "echo", "of the host"],
            &["exec", "--env", &path, &oci.id, "busybox-host", "echo", "of the host"],
            &["exec", "--cwd", &directory, &oci.id, "./busybox-host", "echo", "of the host"],
            &["exec", &oci.id, "cat", &file],
        ];
        for exec in execs {
            judge(format!("{exec:?}"), &oci.told(exec).out);
        }
    }
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    assert_eq!(escapes, [""; 0]);
    Ok(())
}

/// It would be the host's, open in the container.
pub fn a_directory_is_not_taken_for_standard_input(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["ls", "/proc/self/fd/0/"])?;
    let mut command = oci.command(&["run", "--bundle", "bundle", &oci.id]);
    let told = crate::scene::told_from(&mut command, fs::File::open(lab.dir())?.into());
    drop(command);
    told.ended_badly().says(&["standard input is a directory"]);
    oci.scene.nothing_left()?;
    Ok(())
}

/// Its mode could be changed by the descriptor, by the root of a container that has no user namespace: for everybody on the host.
pub fn the_hosts_null_device_is_nobodys_stdio(lab: &Lab) -> TestResult {
    use std::os::unix::fs::MetadataExt;
    let mut oci = Oci::new(lab, &["sleep", "1000"])?;
    oci.edit(|config| config["root"]["readonly"] = json!(false))?;
    oci.running(&[]);
    let host = fs::metadata("/dev/null")?;
    let host = format!("{} {}", host.dev(), host.ino());
    let script = "for fd in 0 1 2; do seen=$(stat -L -c '%t:%T %d %i' /proc/$$/fd/$fd); echo $seen >> /seen; done";
    let seen = oci.bundle.rootfs().join("seen");
    // The container may also take its own away.
    for before in ["true", "rm /dev/null"] {
        oci.inside(&["sh", "-c", before]);
        let mut exec = oci.command(&["exec", &oci.id, "sh", "-c", script]);
        assert!(exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success());
        let told = fs::read_to_string(&seen)?;
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.starts_with("1:3 ")), "{before}: {told}");
        assert!(!lines.iter().any(|line| line.ends_with(&host)), "{before}: it has the host's, {host}: {told}");
        fs::remove_file(&seen)?;
    }
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    Ok(())
}

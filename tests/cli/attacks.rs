//! What a container does to the runtime that makes it or enters it: the host's files and processes are what is looked at, not exit codes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{keyring, program};
use nix::mount::{MsFlags, mount};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;

use crate::fields::tmpfs;
use crate::oci_scene::{Oci, eventually};
use crate::scene::{self, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_descriptor_that_leaks_is_no_way_out,
        the_runtimes_own_file_cannot_be_overwritten,
        the_runtimes_file_on_a_read_only_mount_is_out_of_reach_when_that_can_be_written_again,
        what_enters_a_container_is_closed_to_it,
        without_pivot_root_no_unmasked_procfs_can_be_mounted,
        a_filter_that_answers_for_the_kernel_keeps_no_capability,
        a_program_that_is_traced_to_its_end_keeps_nobody_waiting,
        what_a_container_and_its_hooks_make_does_not_depend_on_the_callers_umask,
        an_owner_that_no_file_names_has_his_number,
        what_hooks_and_commands_print_moves_no_terminal_and_is_no_warning_of_ours,
        a_session_keyring_is_nobody_elses_and_that_of_exec_is_the_containers,
    ];
    tests.into_iter().map(|test| test.within("attacks").needs(&[Root, Program("busybox")])).collect()
}

/// The numbers that a descriptor of ours or of the caller's may have.
const DESCRIPTORS: std::ops::Range<i32> = 3..16;

/// Directories of the host that the caller has left open, without saying that they are to be passed on.
fn leaked(dir: &Path) -> Result<Vec<OwnedFd>, Box<dyn std::error::Error>> {
    fs::create_dir(dir)?;
    fs::write(dir.join("flag"), "of the host\n")?;
    fs::copy(program::find("busybox").ok_or("no busybox")?, dir.join("busybox"))?;
    let mut held = Vec::new();
    while held.len() < 4 {
        let fd = OwnedFd::from(File::open(dir)?);
        fcntl_setfd(&fd, FdFlags::empty())?;
        held.push(fd);
    }
    Ok(held)
}

/// CVE-2024-21626: the program starts in, or comes from, a directory of the host.
pub fn a_descriptor_that_leaks_is_no_way_out(lab: &Lab) -> TestResult {
    let outside = lab.dir().join("outside");
    let held = leaked(&outside)?;
    let last = held.iter().map(AsRawFd::as_raw_fd).max().unwrap_or_default();
    assert!(DESCRIPTORS.contains(&last), "the leaked descriptors are beyond those that are tried: {last}");
    let oci = Oci::new(lab, &["sh"])?;
    // Writes where it is, and reads there.
    let script = "cat flag ../flag; mkdir owned; echo owned > owned.txt; ls /proc/self/fd";
    let harmless = |text: &str, how: &str| {
        assert!(!text.contains("of the host"), "{how} has read a file of the host: {text}");
        let entries = fs::read_dir(&outside).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap_or_default()).collect();
        assert!(!names.iter().any(|name| name.starts_with("owned")), "{how} has written on the host: {names:?}");
    };
    for fd in DESCRIPTORS {
        let cwd = format!("/proc/self/fd/{fd}");
        oci.bundle.edit(|config| {
            config["root"]["readonly"] = json!(false);
            config["process"]["cwd"] = json!(cwd);
            config["process"]["args"] = json!(["sh", "-c", script]);
        })?;
        let told = oci.told(&["run", "--bundle", "bundle", &oci.id]);
        harmless(&told.out, &format!("run with the cwd {cwd}"));
        let path = format!("/proc/self/fd/{fd}/busybox");
        oci.bundle.edit(|config| {
            config["process"]["cwd"] = json!("/");
            config["process"]["args"] = json!([path, "echo", "of the host"]);
        })?;
        let told = oci.told(&["run", "--bundle", "bundle", &oci.id]);
        harmless(&told.out, &format!("run of {path}"));
    }
    oci.bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]))?;
    oci.running(&[]);
    for fd in DESCRIPTORS {
        let cwd = format!("/proc/self/fd/{fd}");
        let told = oci.told(&["exec", "--cwd", &cwd, &oci.id, "sh", "-c", script]);
        harmless(&told.out, &format!("exec with the cwd {cwd}"));
        let path = format!("/proc/self/fd/{fd}/busybox");
        let told = oci.told(&["exec", &oci.id, &path, "echo", "of the host"]);
        harmless(&told.out, &format!("exec of {path}"));
    }
    // None of them is there: 0 to 2, and the one by which ls reads the directory.
    assert_eq!(oci.inside(&["ls", "/proc/self/fd"]).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    drop(held);
    Ok(())
}

/// The host's procfs and sysfs below the container's root, which nobody masks and nobody can reach, are to the kernel as good as the container's own:
/// it would allow fresh ones. Also where they lie in another place, on each other, or under something else.
pub fn without_pivot_root_no_unmasked_procfs_can_be_mounted(lab: &Lab) -> TestResult {
    let script = "unshare -Urmpf sh -c 'mount -t proc proc /tmp && echo fresh; mount -t proc none /tmp; umount /tmp'; \
                  unshare -Urmn sh -c 'mount -t sysfs sysfs /tmp && echo fresh'; echo tried; grep -E ' - (proc|sysfs) ' /proc/self/mountinfo";
    let oci = Oci::new(lab, &["sh", "-c", script])?;
    // Root's own id is nobody's to map without CAP_SETFCAP.
    oci.bundle.edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))?;
    let elsewhere = lab.dir().join("elsewhere");
    for (kind, name) in
        [("proc", "proc"), ("proc", "proc"), ("sysfs", "sys"), ("proc", "covered/proc"), ("tmpfs", "covered")]
    {
        let at = elsewhere.join(name);
        fs::create_dir_all(&at)?;
        mount(Some(kind), &at, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    let mut before = fs::read_to_string("/proc/self/mountinfo")?;
    for users in [false, true] {
        if users {
            oci.bundle.edit(|config| {
                let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map;
                if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                    namespaces.push(json!({ "type": "user" }));
                }
            })?;
            // What is out of reach there cannot be covered, and what covers it is locked.
            let told = oci.told(&["run", "--bundle", "bundle", "--no-pivot", &oci.id]).ended_badly();
            told.says(&["covered/proc cannot be taken away"]);
            nix::mount::umount(&elsewhere.join("covered"))?;
            before = fs::read_to_string("/proc/self/mountinfo")?;
        }
        for how in [&[][..], &["--no-pivot"]] {
            let told = oci.told(&[&["run", "--bundle", "bundle"], how, &[&oci.id]].concat()).ended(0);
            assert!(told.out.contains("tried\n"), "{how:?}: {}{}", told.out, told.err);
            assert!(!told.out.contains("fresh"), "{how:?}, users: {users}: {}{}", told.out, told.err);
        }
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?, before, "the host's own mounts have changed");
    Ok(())
}

/// In the container: takes hold of every other program that shows itself, and writes to its file as soon as it does not run any more.
const OVERWRITE: &str = r#"
while :; do
    for exe in /proc/[0-9]*/exe; do
        case $(readlink $exe 2>/dev/null) in /bin/busybox | "") continue ;; esac
        {
            touch /tried
            n=0
            while [ $n -lt 300 ]; do
                { echo owned > /proc/self/fd/9; } 2>/dev/null && touch /written && break
                n=$((n + 1))
            done
        } 9<$exe
    done
done 2>/dev/null
"#;

/// CVE-2019-5736: a container whose first process is root, with every capability that the caller has, overwrites the runtime that enters it
/// or that it has been made to execute.
pub fn the_runtimes_own_file_cannot_be_overwritten(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", OVERWRITE])?;
    let victim = lab.dir().join("victim");
    fs::copy(program::find("busybox").ok_or("no busybox")?, &victim)?;
    let runtime = lab.dir().join("runtime");
    fs::copy(program::lifecycle_oci()?, &runtime)?;
    let original = fs::read(&runtime)?;
    let capabilities = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_KILL", "CAP_CHOWN"]);
    oci.edit(|config| {
        config["root"]["readonly"] = json!(false);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = capabilities.clone();
        }
        let mount =
            json!({ "destination": "/victim/busybox", "type": "bind", "source": victim, "options": ["bind", "rw"] });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        config["linux"]["maskedPaths"] = json!([]);
    })?;
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(&runtime);
        command.arg("--root").arg(lab.state_root()).args(arguments).current_dir(lab.dir());
        scene::told(&mut command)
    };
    ours(&["create", "--bundle", "bundle", &oci.id]).ended(0);
    ours(&["start", &oci.id]).ended(0);
    let inside = oci.bundle.rootfs();
    // The container's init is made to execute the runtime, and so is what enters it.
    for program in ["/proc/self/exe", "/proc/1/exe", "sh"] {
        for _ in 0..5 {
            ours(&["exec", &oci.id, program, "-c", "sleep 0.02"]);
        }
    }
    let tried_on_ours = inside.join("tried").exists();
    // The attack itself works, on a file that is the container's to write.
    eventually("the attack to succeed on another program", || {
        // Until it has met it once: on a busy machine it may look too late.
        ours(&["exec", &oci.id, "/victim/busybox", "sleep", "0.2"]);
        Ok(inside.join("written").exists())
    })?;
    assert_eq!(fs::read(&victim)?, b"owned\n");
    ours(&["delete", "--force", &oci.id]).ended(0);
    assert!(fs::read(&runtime)? == original, "the runtime's file was overwritten");

    // The first process becomes the runtime.
    fs::remove_file(inside.join("written"))?;
    fs::remove_file(inside.join("tried"))?;
    fs::write(inside.join("script"), "#!/proc/self/exe\n")?;
    fs::set_permissions(inside.join("script"), PermissionsExt::from_mode(0o755))?;
    for program in ["/proc/self/exe", "/script"] {
        oci.edit(|config| {
            config["process"]["args"] = json!([program, "--version"]);
            config["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        })?;
        for _ in 0..2 {
            ours(&["run", "--bundle", "bundle", &oci.id]);
        }
    }
    assert!(fs::read(&runtime)? == original, "the runtime's file was overwritten");
    note(if tried_on_ours {
        "the container got hold of the runtime's file"
    } else {
        "the container never saw the runtime's file"
    });
    Ok(())
}

/// CVE-2019-5736 where the runtime lies on a read-only /usr: what a container can hold of it must not be that mount, which the administrator makes
/// writable for the next upgrade.
pub fn the_runtimes_file_on_a_read_only_mount_is_out_of_reach_when_that_can_be_written_again(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    let usr = lab.dir().join("usr");
    tmpfs(&usr, MsFlags::empty())?;
    let runtime = usr.join("runtime");
    fs::copy(program::lifecycle_oci()?, &runtime)?;
    let original = fs::read(&runtime)?;
    let remount = |flags: MsFlags| {
        let none: Option<&str> = None;
        mount(none, &usr, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)
    };
    // By its name, and as somebody would do it who knows how the runtime knows what it was executed from.
    for how in ["exec \"$0\" \"$@\"", "exec 9< \"$0\"; exec /dev/fd/9 \"$@\""] {
        remount(MsFlags::MS_RDONLY)?;
        let ours = |arguments: &[&str]| {
            let mut command = Command::new("sh");
            command.args(["-c", how]).arg(&runtime).arg("--root").arg(lab.state_root()).args(arguments);
            command.current_dir(lab.dir());
            command
        };
        let hold = |pid: i32| {
            let exe = format!("/proc/{pid}/exe");
            assert!(fs::read(&exe)? == original, "{how}: the process is not the runtime any more");
            File::open(&exe)
        };
        scene::told(&mut ours(&["create", "--bundle", "bundle", &oci.id])).ended(0);
        let mut held = vec![hold(oci.pid()?)?];
        scene::told(&mut ours(&["start", &oci.id])).ended(0);
        let mut exec = Started::new(&mut ours(&["exec", &oci.id, "sh", "-c", "echo inside; read line"]))?;
        exec.wait_for("inside")?;
        held.push(hold(exec.pid())?);
        exec.end()?;
        scene::told(&mut ours(&["delete", "--force", &oci.id])).ended(0);
        remount(MsFlags::empty())?;
        for held in &held {
            let link = format!("/proc/self/fd/{}", held.as_raw_fd());
            let written = fs::write(&link, "owned\n");
            assert!(fs::read(&runtime)? == original, "{how}: the runtime's file was overwritten: {written:?}");
            written.expect_err("what the container holds can be written");
        }
    }
    // The attack itself works on that mount.
    let held = File::open(&runtime)?;
    fs::write(format!("/proc/self/fd/{}", held.as_raw_fd()), "owned\n")?;
    assert_eq!(fs::read(&runtime)?, b"owned\n");
    Ok(())
}

/// In the container: looks into every program that is not the image's.
const LOOK: &str = r#"
while :; do
    for process in /proc/[0-9]*; do
        case $(readlink $process/exe 2>/dev/null) in
            /bin/busybox) ;;
            "") grep -q '^Name:.lifecycle\|^Name:.runtime' $process/status 2>/dev/null && echo $process >> /refused ;;
            *)
                echo $process >> /seen
                ls -l $process/fd $process/root/ $process/cwd/ >> /seen 2>&1
                ;;
        esac
    done
done 2>/dev/null
"#;

/// CVE-2016-9962 and its kin: what enters a container cannot be traced from there before it has become the container's program, and so gives
/// away neither its descriptors nor its root.
pub fn what_enters_a_container_is_closed_to_it(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", LOOK])?;
    oci.edit(|config| config["root"]["readonly"] = json!(false))?;
    oci.running(&[]);
    let inside = oci.bundle.rootfs();
    let refused = || fs::read_to_string(inside.join("refused")).unwrap_or_default().lines().count();
    let mut rounds = 0;
    while rounds < 20 || (refused() < 3 && rounds < 200) {
        oci.told(&["exec", &oci.id, "true"]).ended(0);
        rounds += 1;
    }
    assert!(refused() >= 3, "the container never met the runtime: nothing was tried in {rounds} rounds");
    let seen = fs::read_to_string(inside.join("seen")).unwrap_or_default();
    assert_eq!(seen, "", "the container has looked into the runtime");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    note(format!("met {} times in {rounds} rounds", refused()));
    Ok(())
}

/// Without noNewPrivileges the filter is there before capabilities are taken away, and may answer the questions about them.
pub fn a_filter_that_answers_for_the_kernel_keeps_no_capability(lab: &Lab) -> TestResult {
    const PR_CAPBSET_READ: u64 = 23;
    let mut oci = Oci::new(lab, &["grep", "Cap", "/proc/self/status"])?;
    let mut told = Vec::new();
    for answer in [None, Some(0), Some(1), Some(22)] {
        oci.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            config["linux"]["seccomp"] = answer.map_or(json!(null), |errno| {
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                    "names": ["prctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
                    "args": [{ "index": 0, "value": PR_CAPBSET_READ, "op": "SCMP_CMP_EQ" }],
                }] })
            });
        })?;
        told.push(oci.told(&["run", "--bundle", "bundle", &oci.id]).ended(0).out);
    }
    assert!(told[0].contains("CapBnd") && !told[0].contains("1ffffffffff"), "{}", told[0]);
    for with in &told[1..] {
        assert_eq!(with, &told[0]);
    }
    Ok(())
}

/// Keys are not namespaced, and whoever makes a keyring says who may have it.
pub fn a_session_keyring_is_nobody_elses_and_that_of_exec_is_the_containers(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "cat /proc/keys > /dev/shm/keys; exec sleep 600"])?;
    // The runtime-spec's usual masked paths have it.
    oci.edit(|config| config["linux"]["maskedPaths"] = json!([]))?;
    let name = format!("_ses.{}", oci.id);
    // As the root of another container makes it, before this one is there.
    let planted = keyring::plant(&name)?;
    let serials = |keys: &str| -> Vec<i32> {
        let named = keys.lines().filter(|line| line.contains(&name));
        named.filter_map(|line| i32::from_str_radix(line.split(' ').next()?, 16).ok()).collect()
    };
    assert_eq!(serials(&fs::read_to_string("/proc/keys")?), [planted]);
    oci.running(&[]);
    let keys = format!("/proc/{}/root/dev/shm/keys", oci.pid()?);
    eventually("the keys", || Ok(fs::read_to_string(&keys).is_ok_and(|text| !text.is_empty())))?;
    let own = serials(&fs::read_to_string(&keys)?);
    assert!(own.len() == 1 && own != [planted], "{own:x?}, planted {planted:x}");
    assert_eq!(serials(&oci.inside(&["cat", "/proc/keys"])), own);
    // Nobody else sees it, even root.
    assert_eq!(serials(&fs::read_to_string("/proc/keys")?), [planted]);
    Ok(oci.gone()?)
}

/// The permissions of a directory and of all that is in it.
fn permissions(dir: &Path, found: &mut BTreeMap<String, u32>) -> std::io::Result<()> {
    let stat = fs::symlink_metadata(dir)?;
    found.insert(dir.display().to_string(), stat.permissions().mode());
    if !stat.is_dir() {
        return Ok(());
    }
    fs::read_dir(dir)?.try_for_each(|entry| permissions(&entry?.path(), found))
}

pub fn what_a_container_and_its_hooks_make_does_not_depend_on_the_callers_umask(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "umask > /dev/shm/program; exec sleep 600"])?;
    let noted = lab.dir().join("noted");
    let to = |file: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("umask >> {file}")] }]);
    let on_host = to(&noted.display().to_string());
    oci.edit(|config| {
        config["hooks"] = json!({
            "createRuntime": on_host, "createContainer": on_host, "startContainer": to("/dev/shm/hook"),
            "poststart": on_host, "poststop": on_host,
        });
    })?;
    let mut usual = None;
    for mask in [0o022, 0o000, 0o077, 0o777] {
        let callers = rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        oci.running(&["--pid-file", "pid"]);
        assert_eq!(
            oci.inside(&["sh", "-c", "umask; cat /dev/shm/hook /dev/shm/program"]),
            "0022\n".repeat(3),
            "{mask:o}"
        );
        let mut made = BTreeMap::new();
        for path in [lab.state_root(), lab.dir().join("pid"), oci.cgroup("pids")?, oci.cgroup("memory")?] {
            permissions(&path, &mut made)?;
        }
        assert_eq!(usual.get_or_insert_with(|| made.clone()), &made, "{mask:o}");
        oci.told(&["delete", "-f", &oci.id]).ended(0);
        rustix::process::umask(callers);
        assert_eq!(fs::read_to_string(&noted)?, "0022\n".repeat(4), "{mask:o}");
        oci.without(&["noted", "pid"])?;
    }
    Ok(oci.scene.nothing_left()?)
}

/// Whom /etc/passwd does not name, the C library looks for elsewhere, with code that a static program cannot load.
pub fn an_owner_that_no_file_names_has_his_number(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    let none = lab.dir().join("passwd");
    for (text, owner) in [("root:x:0:0:root:/root:/bin/sh\n", "root"), ("nobody:x:65534:65534::/:/bin/sh\n", "#0")] {
        fs::write(&none, text)?;
        mount(Some(&none), "/etc/passwd", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let (state, list) = (oci.verb("state"), oci.told(&["list"]));
        nix::mount::umount("/etc/passwd")?;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&state.ended(0).out)?["owner"], owner);
        let list = list.ended(0).out;
        assert!(list.lines().nth(1).is_some_and(|line| line.ends_with(&format!("   {owner}"))), "{list}");
    }
    oci.without(&["passwd"])?;
    Ok(oci.gone()?)
}

/// A title, a colour, a bell, a C1 control and one that turns the direction; then the words of a warning.
const PRINTED: &str =
    r"printf '\033]0;title\007\033[2Jhidden\033[31m \302\233 \342\200\256turned\nwarning: of nobody\n'";

fn moves_no_terminal(text: &str, how: &str) {
    let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(hostile), "{how}: {text:?}");
}

/// The hosts' programs may print what a container has told them; what a container prints itself is its caller's, byte by byte.
pub fn what_hooks_and_commands_print_moves_no_terminal_and_is_no_warning_of_ours(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", PRINTED])?;
    let raw = oci.told(&["run", "-b", "bundle", &oci.id]).ended(0).out;
    assert_eq!(raw, "\u{1b}]0;title\u{7}\u{1b}[2Jhidden\u{1b}[31m \u{9b} \u{202e}turned\nwarning: of nobody\n");
    let stages = ["createRuntime", "createContainer", "startContainer"];
    for (stage, ends) in stages.iter().flat_map(|stage| [(stage, 0), (stage, 7)]) {
        let script = format!("{PRINTED}; exit {ends}");
        oci.edit(|config| config["hooks"] = json!({ *stage: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] }))?;
        for options in [&["--debug"][..], &["--debug", "--log-format", "json"], &["--debug", "--log", "log"]] {
            let told = oci.told(&[options, &["run", "-b", "bundle", &oci.id]].concat());
            let log =
                if options.contains(&"log") { fs::read_to_string(lab.dir().join("log"))? } else { told.err.clone() };
            let how = format!("{stage} {options:?}");
            assert!(log.contains("turned"), "{how}: {log}");
            moves_no_terminal(&log, &how);
            moves_no_terminal(&told.err, &how);
            let mut warned =
                log.lines().filter(|line| line.contains("level=warning") || line.contains(r#""level":"warning""#));
            assert_eq!(warned.next(), None, "{how}");
        }
        oci.without(&["log"])?;
    }
    let plan = |ends: i32| {
        json!({ "plan": "loud", "run": "loud", "steps": { "loud": {
            "uses": "command.run", "with": { "args": ["sh", "-c", format!("{PRINTED}; exit {ends}")] } } } })
    };
    for ends in [0, 7] {
        fs::write(lab.dir().join("loud.yaml"), plan(ends).to_string())?;
        let told = scene::told(oci.scene.command(&["run", "loud.yaml", "--keep"]).current_dir(lab.dir()));
        assert!(told.err.contains("turned"), "{}", told.err);
        moves_no_terminal(&told.err, "run");
        if ends == 0 {
            let logs = scene::told(&mut oci.scene.command(&["logs", "loud"])).ended(0).out;
            assert!(logs.contains("turned"), "{logs}");
            moves_no_terminal(&logs, "logs");
            scene::told(&mut oci.scene.command(&["undo", "loud"])).ended(0);
        }
    }
    oci.without(&["loud.yaml"])?;
    Ok(oci.scene.nothing_left()?)
}

/// Whoever traces a process is told of its end before its parent is, ptrace(2), and need not listen. A container may trace what is executed in it,
/// and one of two that share their pid namespace the other; here the test does.
pub fn a_program_that_is_traced_to_its_end_keeps_nobody_waiting(lab: &Lab) -> TestResult {
    use nix::sys::ptrace;
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    let seize = |pid: i32| ptrace::seize(nix::unistd::Pid::from_raw(pid), ptrace::Options::empty());
    let run = oci.start(&["run", "-b", "bundle", &oci.id])?;
    eventually("the program", || Ok(oci.verb("state").out.contains("\"running\"")))?;
    let init = oci.pid()?;
    seize(init)?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    // Nobody has waited for it: it is held.
    run.end()?.ended(137);
    assert!(fs::read_to_string(format!("/proc/{init}/stat"))?.contains(") Z "), "it is not held");
    oci.verb("state").ended(1).says(&["does not exist"]);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(init), Some(nix::sys::wait::WaitPidFlag::__WALL))?;
    // The same with what is executed in it.
    oci.running(&[]);
    let exec = oci.start(&["exec", "--pid-file", "pid", &oci.id, "sleep", "1000"])?;
    let file = lab.dir().join("pid");
    eventually("the program", || Ok(fs::read_to_string(&file).is_ok_and(|pid| comm(&pid) == "sleep\n")))?;
    let program: i32 = fs::read_to_string(&file)?.trim().parse()?;
    seize(program)?;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(program).ok_or("no pid")?,
        rustix::process::Signal::TERM,
    )?;
    exec_stops_and_dies(program)?;
    exec.end()?.ended(143);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(program), Some(nix::sys::wait::WaitPidFlag::__WALL))?;
    let _ = fs::remove_file(&file);
    oci.gone()?;
    Ok(oci.scene.nothing_left()?)
}

fn comm(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default()
}

/// A signal that can be caught stops what is traced until the tracer lets it have it.
fn exec_stops_and_dies(pid: i32) -> TestResult {
    use nix::sys::{ptrace, signal::Signal, wait};
    let pid = nix::unistd::Pid::from_raw(pid);
    match wait::waitpid(pid, Some(wait::WaitPidFlag::__WALL))? {
        wait::WaitStatus::Stopped(_, signal) => Ok(ptrace::cont(pid, Some(signal))?),
        other => Err(format!("it has not stopped for {}: {other:?}", Signal::SIGTERM).into()),
    }
}

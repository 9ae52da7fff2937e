//! `lifecycle-oci` beside Debian's crun and runc: create, start, state, exec and delete of a busybox container.
//!
//! `./dev bench oci [ROUNDS]` prints a table of medians and of ratios to crun. The runtimes take turns, so that whatever else the machine does
//! meets all of them; each verb is timed from its process's start to its end. Once back to back, and once with 60 ms of rest before each call:
//! then the kernel has finished what the call before left it to do.
//!
//! crun does not start where a part of the controllers is in cgroup v2, so all of them run in a mount namespace that hides that hierarchy.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

type Result<T> = std::result::Result<T, String>;

/// The rest before each call in the second run.
const REST: Duration = Duration::from_millis(60);
/// Rounds unless the caller says otherwise.
const ROUNDS: usize = 30;
const VERBS: [&str; 5] = ["create", "start", "state", "exec", "delete"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("oci: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let rounds =
        std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse().map_err(|_| format!("{text} is no number")))?;
    if !rustix::process::geteuid().is_root() {
        return Err("needs root: it makes containers".into());
    }
    hide_unified()?;
    let scratch = tempfile::tempdir_in("/run").map_err(|e| format!("/run: {e}"))?;
    let bundle = bundle(scratch.path())?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("lifecycle-oci");
    let runtimes: Vec<Runtime> = [own, "/usr/bin/crun".into(), "/usr/sbin/runc".into()]
        .into_iter()
        .map(|program: PathBuf| Runtime::new(program, scratch.path()))
        .collect::<Result<_>>()?;
    println!(
        "{:<16} {:>16} {:>9} {:>9} {:>9} {:>11} {:>11}",
        "", "", "ours µs", "crun µs", "runc µs", "ours/crun", "ours/runc"
    );
    for (name, rest) in [("back to back", Duration::ZERO), ("after 60 ms rest", REST)] {
        // What is first read from disk is not what is measured.
        rounds_of(&runtimes, &bundle, 3, rest)?;
        print_table(name, &rounds_of(&runtimes, &bundle, rounds, rest)?);
    }
    Ok(())
}

/// crun has no way to use version 1's controllers while one is in version 2.
fn hide_unified() -> Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.exists() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare(CLONE_NEWNS): {e}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| format!("mount(/): {e}"))?;
    mount("none", unified, "tmpfs", MountFlags::empty(), None).map_err(|e| format!("mount({}): {e}", unified.display()))
}

struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    fn new(program: PathBuf, scratch: &Path) -> Result<Self> {
        if !program.exists() {
            return Err(format!("{} is missing", program.display()));
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { program, root: scratch.join(name) })
    }

    /// How long a verb takes, in microseconds.
    fn time(&self, arguments: &[&str], rest: Duration) -> Result<f64> {
        std::thread::sleep(rest);
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let took = start.elapsed();
        if !status.success() {
            return Err(format!("{} {}: {status}", self.program.display(), arguments.join(" ")));
        }
        Ok(took.as_secs_f64() * 1e6)
    }

    /// One life of a container, verb by verb.
    fn life(&self, id: &str, bundle: &str, rest: Duration) -> Result<[f64; 5]> {
        let create = self.time(&["create", "--bundle", bundle, id], rest)?;
        let start = self.time(&["start", id], rest)?;
        let state = self.time(&["state", id], rest)?;
        let exec = self.time(&["exec", id, "/bin/true"], rest)?;
        let delete = self.time(&["delete", "--force", id], rest)?;
        Ok([create, start, state, exec, delete])
    }
}

/// By runtime and verb: every time that was measured.
fn rounds_of(runtimes: &[Runtime], bundle: &Path, rounds: usize, rest: Duration) -> Result<Vec<[Vec<f64>; 5]>> {
    let mut all: Vec<[Vec<f64>; 5]> = runtimes.iter().map(|_| Default::default()).collect();
    let bundle = bundle.to_str().ok_or("the bundle's path is not UTF-8")?;
    for round in 0..rounds {
        for turn in 0..runtimes.len() {
            // Each is first, second and last as often as the others.
            let which = (turn + round) % runtimes.len();
            let times = runtimes[which].life(&format!("bench-{}-{round}", std::process::id()), bundle, rest)?;
            for (list, time) in all[which].iter_mut().zip(times) {
                list.push(time);
            }
        }
    }
    Ok(all)
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_table(name: &str, all: &[[Vec<f64>; 5]]) {
    for (verb, name) in VERBS.iter().enumerate().map(|(i, verb)| (i, if i == 0 { (name, verb) } else { ("", verb) })) {
        let medians: Vec<f64> = all.iter().map(|of| median(&of[verb])).collect();
        let [ours, crun, runc] = medians[..] else { return };
        println!(
            "{:<16} {:>16} {ours:>9.0} {crun:>9.0} {runc:>9.0} {:>11.2} {:>11.2}",
            name.0,
            name.1,
            ours / crun,
            ours / runc
        );
    }
}

fn bundle(scratch: &Path) -> Result<PathBuf> {
    let failed = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    let bundle = scratch.join("bundle");
    let bin = bundle.join("rootfs/bin");
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        let dir = bundle.join("rootfs").join(dir);
        std::fs::create_dir_all(&dir).map_err(|e| failed(&dir, e))?;
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).map_err(|e| failed(Path::new("/bin/busybox"), e))?;
    for applet in ["sleep", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).map_err(|e| failed(&bin, e))?;
    }
    // What `runc spec` writes, with a program that stays.
    let out = Command::new("/usr/sbin/runc").args(["spec", "--bundle"]).arg(&bundle).status();
    if !out.is_ok_and(|status| status.success()) {
        return Err("runc spec failed".into());
    }
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config).map_err(|e| failed(&config, e))?;
    let mut spec: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    std::fs::write(&config, spec.to_string()).map_err(|e| failed(&config, e))?;
    Ok(bundle)
}

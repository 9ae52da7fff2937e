//! The older ways: with each fact of the kernel masked, with all of them, and on a kernel that has none of the calls. The container must be the same
//! in every way that it can see, and nothing may be left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{older, program};
use serde_json::{Value, json};

use crate::scene::{self, Scene, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        the_masked_facts_are_what_such_a_kernel_has,
        hello_is_the_same_without_the_newer_calls,
        a_read_only_hello_is_read_only_below_too,
        #[needs(Program("busybox"))]
        a_bundle_is_the_same_without_the_newer_calls,
        #[needs(Program("busybox"))]
        a_container_is_created_started_and_deleted_without_the_newer_calls,
        #[needs(Program("busybox"))]
        what_has_no_older_way_is_refused_with_the_fact,
    ];
    tests.into_iter().map(|test| test.within("masked").needs(&[Root])).collect()
}

/// How the newer calls are kept away.
#[derive(Debug, Clone)]
enum Without {
    /// Nothing: what the others are held against.
    Nothing,
    /// These facts are masked.
    Facts(String),
    /// The facts are masked, and the kernel refuses the calls.
    Calls,
}

impl Without {
    fn all() -> Vec<Self> {
        let one_by_one = older::FACTS.iter().map(|fact| Self::Facts((*fact).to_owned()));
        one_by_one.chain([Self::Facts(older::all()), Self::Calls]).collect()
    }

    /// Runs `lifecycle run` so.
    fn run(&self, scene: &Scene, arguments: &[&str]) -> Told {
        let mask = match self {
            Self::Nothing => None,
            Self::Facts(facts) => Some(facts.clone()),
            Self::Calls => Some(older::all()),
        };
        let mask = mask.map(|facts| format!("--mask={facts}"));
        let words = ["run"].into_iter().chain(mask.as_deref()).chain(arguments.iter().copied());
        let mut command = scene.command(&words.collect::<Vec<_>>());
        if matches!(self, Self::Calls) {
            older::kernel(&mut command);
        }
        scene::told(&mut command)
    }
}

/// Everything that a process can see of what it was given: its mounts with their options, its names, ids, capabilities, limits, namespaces and open
/// descriptors. Numbers that differ from run to run are left out.
const VIEW: &str = r#"
    while read id parent dev root target options rest; do
        case "$rest" in *"shared:"*) how=shared ;; *"master:"*) how=slave ;; *) how=private ;; esac
        echo "$target $options $how"
    done < /proc/self/mountinfo | sort
    hostname; id -u; id -g; echo "$$ $PWD"
    grep -E '^(Cap|NoNewPrivs|Groups|Umask)' /proc/self/status
    cat /proc/self/limits /proc/self/uid_map /proc/self/oom_score_adj
    ls /proc/self/fd | tr '\n' ' '
"#;

pub fn the_masked_facts_are_what_such_a_kernel_has(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let facts = |hidden: bool| -> Result<Value, Box<dyn std::error::Error>> {
        let mut command = scene.command(&["facts", "--format", "json"]);
        if hidden {
            older::kernel(&mut command);
        }
        Ok(serde_json::from_str(&scene::told(&mut command).ended(0).out)?)
    };
    let (here, there) = (facts(false)?, facts(true)?);
    for fact in older::HIDDEN {
        assert_eq!((&here["host"][fact], &there["host"][fact]), (&json!(true), &json!(false)), "{fact}");
    }
    // An ordinary user's view of the root needs read-only binds, which an older kernel makes otherwise.
    assert_eq!(here["host"]["overlay.host"], there["host"]["overlay.host"]);
    assert_eq!(here["host"]["overlay.userns"], there["host"]["overlay.userns"]);
    Ok(scene.nothing_left()?)
}

pub fn hello_is_the_same_without_the_newer_calls(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let script = format!(
        "{VIEW}
        echo mine > /etc/made-by-a-test && cat /etc/made-by-a-test
        echo x 2>/dev/null > /proc/sys/kernel/domainname || echo read-only
        dd if=/proc/kcore bs=1 count=1 2>/dev/null | wc -c; exit 9"
    );
    let run = |without: &Without| without.run(&scene, &["hello", "--", "sh", "-c", &script]).ended(9);
    let wanted = run(&Without::Nothing).prints(&["mine\nread-only\n0\n", "/ rw", "\nhello\n0\n0\n1 /\n"]);
    for without in Without::all() {
        let told = run(&without);
        assert_eq!(told.out, wanted.out, "{without:?}");
        assert!(!Path::new("/etc/made-by-a-test").exists(), "{without:?} wrote to the host");
        scene.nothing_left().map_err(|error| format!("{without:?}: {error}"))?;
    }
    Ok(())
}

/// A read-only view of the host's whole root: mount(2) makes one mount read-only at a time.
pub fn a_read_only_hello_is_read_only_below_too(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let below = lab.dir().join("below");
    fs::create_dir(&below)?;
    program::quiet("mount", &["-t", "tmpfs", "none", &below.display().to_string()])?;
    scene.begins_here()?;
    let facts = format!("{},overlay.host", older::all());
    let script = format!("echo x > /srv/x || echo x > {}/x || echo refused", below.display());
    for without in [Without::Facts("overlay.host".into()), Without::Facts(facts)] {
        // The lab's directory is below /run, over which hello mounts a tmpfs of its own.
        let plan = fs::read_to_string(program::source().join("plans/hello.yaml"))?;
        let plan: Vec<&str> = plan.lines().filter(|line| !line.contains("destination: /run")).collect();
        scene.write("hello.yaml", &plan.join("\n"))?;
        let told = without.run(&scene, &["hello.yaml", "--", "sh", "-c", &script]).ended(0);
        assert_eq!(told.out, "refused\n", "{without:?}: {}", told.err);
        fs::remove_file(lab.dir().join("hello.yaml"))?;
        scene.nothing_left()?;
    }
    program::quiet("umount", &[&below.display().to_string()]).map_err(Into::into)
}

/// A bundle with a mount of every sort, one of them recursive.
fn bundle<'a>(lab: &'a Lab, script: &str) -> lifecycle_tests::Result<(Scene<'a>, Bundle)> {
    use lifecycle_tests::While;
    let mut scene = Scene::new(lab)?;
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["sh", "-c", script])?;
    let data = lab.dir().join("data");
    fs::create_dir_all(data.join("below")).when(|| "making the data".into())?;
    program::quiet("mount", &["-t", "tmpfs", "none", &data.join("below").display().to_string()])?;
    fs::create_dir(bundle.rootfs().join("copied")).when(|| "making /copied".into())?;
    fs::write(bundle.rootfs().join("copied/file"), "from the image\n").when(|| "writing /copied/file".into())?;
    bundle.edit(|config| {
        let more = [
            json!({ "destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rro", "nosuid"] }),
            json!({ "destination": "/open", "type": "bind", "source": data, "options": ["bind", "nodev", "noexec"] }),
            json!({ "destination": "/copied", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"] }),
        ];
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.extend(more);
        }
        config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1" });
        config["process"]["oomScoreAdj"] = json!(100);
        config["process"]["user"]["additionalGids"] = json!([5, 6]);
    })?;
    // The mountpoints that it lacks are made once, and kept.
    for name in ["data", "open"] {
        fs::create_dir(bundle.rootfs().join(name)).when(|| format!("making /{name}"))?;
    }
    for name in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir_all(bundle.rootfs().join(name)).when(|| format!("making /{name}"))?;
    }
    scene.begins_here()?;
    Ok((scene, bundle))
}

const PROBE: &str = r#"
    cat /copied/file /proc/sys/kernel/shm_rmid_forced
    for file in /x /data/x /data/below/x /copied/x /proc/sys/kernel/domainname; do
        echo x 2>/dev/null > $file && echo "wrote $file"
    done
    echo x > /open/x && rm /open/x && echo "wrote /open/x"
"#;

pub fn a_bundle_is_the_same_without_the_newer_calls(lab: &Lab) -> TestResult {
    let (scene, bundle) = bundle(lab, &format!("{VIEW}{PROBE} exit 4"))?;
    bundle.in_cgroup(&format!("/{}/c1", lab.token()))?;
    let mut scene = scene;
    scene.begins_here()?;
    let run = |without: &Without| without.run(&scene, &["oci/run", "-p", "id=c1", "-p", "bundle=bundle"]).ended(4);
    let wanted = run(&Without::Nothing).prints(&["from the image\n1\nwrote /open/x\n", "/data/below ro,", "\n100\n"]);
    assert!(!wanted.out.contains("wrote /data") && !wanted.out.contains("wrote /x"), "{}", wanted.out);
    for without in Without::all() {
        let told = run(&without);
        assert_eq!(told.out, wanted.out, "{without:?}: {}", told.err);
        scene.nothing_left().map_err(|error| format!("{without:?}: {error}"))?;
    }
    Ok(())
}

pub fn a_container_is_created_started_and_deleted_without_the_newer_calls(lab: &Lab) -> TestResult {
    let (scene, bundle) = bundle(lab, "exec sleep 100")?;
    let cgroup = format!("/{}/c1", lab.token());
    bundle.in_cgroup(&cgroup)?;
    let mut scene = scene;
    scene.begins_here()?;
    let state = || -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&fs::read_to_string(lab.state_root().join("c1/state.json"))?)?)
    };
    for without in Without::all() {
        let failed = |error: Box<dyn std::error::Error>| format!("{without:?}: {error}");
        without.run(&scene, &["--keep", "oci/create", "-p", "id=c1", "-p", "bundle=bundle"]).ended(0);
        assert_eq!(state().map_err(failed)?["status"], "created", "{without:?}");
        without.run(&scene, &["oci/start", "-p", "id=c1"]).ended(0);
        let state = state().map_err(failed)?;
        assert_eq!(state["status"], "running", "{without:?}");
        let proc = Path::new("/proc").join(state["pid"].to_string());
        for namespace in ["pid", "net", "ipc", "uts", "mnt"] {
            let of = |proc: &Path| fs::metadata(proc.join("ns").join(namespace)).map(|found| found.ino());
            assert_ne!(of(&proc)?, of(Path::new("/proc/self"))?, "{without:?}: {namespace}");
        }
        let lines = fs::read_to_string(proc.join("cgroup"))?;
        let version_1 = lines.lines().filter(|line| !line.starts_with("0::")).collect::<Vec<_>>();
        assert!(version_1.iter().all(|line| line.ends_with(&cgroup)), "{without:?}:\n{lines}");
        assert!(fs::write(proc.join("root/data/below/x"), "").is_err(), "{without:?}: /data/below is writable");
        // The engine's own descriptors stay out of it.
        let open = fs::read_dir(proc.join("fd"))?.count();
        assert_eq!(open, 3, "{without:?}");
        without.run(&scene, &["oci/delete", "-p", "id=c1", "-p", "force=true"]).ended(0);
        // Its parent here, the test, has not asked for its exit code: what has ended has no memory.
        assert_eq!(fs::read_to_string(proc.join("cmdline")).unwrap_or_default(), "", "{without:?}: it lives on");
        scene.nothing_left().map_err(|error| format!("{without:?}: {error}"))?;
    }
    Ok(())
}

pub fn what_has_no_older_way_is_refused_with_the_fact(lab: &Lab) -> TestResult {
    let (mut scene, bundle) = bundle(lab, "true")?;
    let run = ["oci/run", "-p", "id=c1", "-p", "bundle=bundle"];
    bundle.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "time" }));
        }
    })?;
    scene.begins_here()?;
    let told = Without::Facts("kernel.time_namespace".into()).run(&scene, &run).ended(125);
    assert!(!told.err.contains("hooks.run"), "what follows from it is reported too: {}", told.err);
    told.says(&["`create/init`", "kernel.time_namespace", "Linux 5.6"]);
    scene.nothing_left()?;
    bundle.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().and_then(Vec::pop);
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/open" {
                mount["options"] = json!(["bind", "idmap"]);
            }
        }
    })?;
    scene.begins_here()?;
    let told = Without::Facts("kernel.mount_setattr".into()).run(&scene, &run).ended(125);
    told.says(&["kernel.mount_setattr", "id-mapped", "Linux 5.12"]);
    Ok(scene.nothing_left()?)
}

//! What another user has put where runs are kept is neither read nor done: a journal says what is executed when its run is taken back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;

use crate::scene::{self, NOBODY, Scene, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        without_a_runtime_directory_nothing_below_tmp_is_taken,
        without_a_variable_the_users_own_directory_below_run_is_taken,
        a_root_of_another_user_is_refused,
        a_root_that_others_may_write_to_is_refused,
        a_run_of_another_user_is_refused_and_hides_no_other,
        a_file_of_another_user_is_refused_and_hides_no_other,
        a_root_that_others_may_look_into_is_taken,
        #[needs(Program("busybox"))]
        a_file_with_the_name_of_a_built_in_plan_is_not_taken_for_it,
        #[needs(Program("unshare"))]
        root_of_a_user_namespace_has_the_runtime_directory_of_its_maker,
    ];
    tests.into_iter().map(|test| test.within("state_root").needs(&[Root])).collect()
}

/// Who has planted something; the user who is to fall for it owns nothing yet.
const INTRUDER: u32 = 65533;

/// A run whose undo is executed as whoever takes it back.
const PLAN: &str = r#"
plan: planted
params: { id: { type: name }, out: { type: path } }
run: "${params.id}"
steps:
  bait:
    uses: command.run
    with:
      args: ["true"]
      undo: { args: [sh, -c, 'echo 1 > "$0/undone-by-$(id -u)"', "${params.out}"] }
  last: { uses: command.run, needs: [bait], with: { args: ["true"] } }
"#;

/// Two users and a place where each may write.
struct Planted<'a> {
    lab: &'a Lab,
    plan: PathBuf,
    open: PathBuf,
}

/// The ids of what [`Planted::runs`] makes: one that was kept, and one whose engine died.
const RUNS: [&str; 2] = ["kept", "cut"];

impl<'a> Planted<'a> {
    fn new(lab: &'a Lab) -> Result<Self, Box<dyn std::error::Error>> {
        let plan = lab.dir().join("planted.yaml");
        fs::write(&plan, PLAN)?;
        let open = lab.dir().join("open");
        fs::create_dir(&open)?;
        set_mode(&open, 0o1777)?;
        Ok(Self { lab, plan, open })
    }

    fn directory(&self, name: &str, owner: u32, mode: u32) -> Result<PathBuf, Box<dyn std::error::Error>> {
        let path = self.lab.dir().join(name);
        fs::create_dir(&path)?;
        chown(&path, Some(owner), Some(owner))?;
        set_mode(&path, mode)?;
        Ok(path)
    }

    fn run(&self, uid: u32, root: &Path, id: &str, more: &[&str]) -> Result<Told, Box<dyn std::error::Error>> {
        let mut command = Command::new(program::lifecycle()?);
        command.arg("--root").arg(root).arg("run").arg(&self.plan);
        command.args(["-p", &format!("id={id}"), "-p", &format!("out={}", self.open.display())]).args(more);
        Ok(scene::told(as_user(&mut command, uid).current_dir("/")))
    }

    /// Runs of that user, readable and writable by everybody as far as its maker can see to that, and put there.
    fn runs(&self, uid: u32, root: &Path) -> TestResult {
        let [kept, cut] = RUNS;
        let made = self.directory("made", uid, 0o700)?;
        self.run(uid, &made, kept, &["--keep"])?.ended(0);
        self.run(uid, &made, cut, &["--fail-at", "last:crash"])?.ended(137);
        for id in RUNS {
            let run = root.join(id);
            fs::rename(made.join(id), &run)?;
            fs::write(run.join("state.json"), "{}")?;
            set_mode(&run, 0o777)?;
            for file in ["journal", "state.json"] {
                chown(run.join(file), Some(uid), Some(uid))?;
                set_mode(&run.join(file), 0o666)?;
            }
        }
        Ok(fs::remove_dir(&made)?)
    }

    /// Everything that works on runs or looks at them, as that user; what each says.
    fn everything(&self, uid: u32, root: Option<&Path>) -> Result<Vec<(String, Told)>, Box<dyn std::error::Error>> {
        let mut told = Vec::new();
        let mut all: Vec<(bool, Vec<&str>)> = Vec::new();
        for id in RUNS {
            all.extend([(false, vec!["show", id]), (false, vec!["logs", id]), (false, vec!["undo", id])]);
            for verb in ["state", "start", "ps", "pause", "resume"] {
                all.push((true, vec![verb, id]));
            }
            all.extend([(true, vec!["exec", id, "true"]), (true, vec!["kill", id]), (true, vec!["delete", "-f", id])]);
        }
        let recover = ["recover", "audit"].map(|word| (false, vec![word]));
        for (oci, arguments) in all.into_iter().chain(recover) {
            let mut command = self.command(oci, root)?;
            command.args(&arguments);
            told.push((arguments.join(" "), scene::told(as_user(&mut command, uid))));
        }
        Ok(told)
    }

    fn command(&self, oci: bool, root: Option<&Path>) -> Result<Command, Box<dyn std::error::Error>> {
        let mut command = Command::new(if oci { program::lifecycle_oci()? } else { program::lifecycle()? });
        command.args(root.into_iter().flat_map(|root| [Path::new("--root"), root]));
        command.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", &self.open).current_dir("/");
        Ok(command)
    }

    /// Nothing of what was planted was done, nor touched.
    fn untouched(&self, root: &Path) -> TestResult {
        let marks: Vec<_> = fs::read_dir(&self.open)?.flatten().map(|entry| entry.file_name()).collect();
        assert!(!marks.iter().any(|name| name.to_string_lossy().starts_with("undone")), "it was done: {marks:?}");
        for id in RUNS {
            assert!(root.join(id).join("journal").exists(), "the journal of {id} is gone");
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn as_user(command: &mut Command, uid: u32) -> &mut Command {
    command.uid(uid).gid(uid)
}

pub fn without_a_runtime_directory_nothing_below_tmp_is_taken(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    // Where a run of this user would have been looked for.
    let root = planted.open.join(format!("lifecycle-{NOBODY}"));
    fs::create_dir(&root)?;
    chown(&root, Some(INTRUDER), Some(INTRUDER))?;
    planted.runs(INTRUDER, &root)?;
    set_mode(&root, 0o777)?;
    let told = planted.everything(NOBODY, None)?;
    planted.untouched(&root)?;
    for (what, told) in told {
        assert!(told.code > 0 && told.err.contains("XDG_RUNTIME_DIR"), "{what}: {told:?}");
        assert!(told.err.contains("--root"), "{what} does not say what to do: {}", told.err);
    }
    Ok(())
}

pub fn without_a_variable_the_users_own_directory_below_run_is_taken(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    let runtime = PathBuf::from(format!("/run/user/{NOBODY}"));
    fs::create_dir_all(&runtime)?;
    let list = || -> Result<Told, Box<dyn std::error::Error>> {
        let mut command = planted.command(false, None)?;
        Ok(scene::told(as_user(command.arg("run").arg("hello").args(["--keep", "--", "true"]), NOBODY)))
    };
    // Another's: as if it were not there.
    chown(&runtime, Some(INTRUDER), Some(INTRUDER))?;
    set_mode(&runtime, 0o777)?;
    list()?.ended_badly().says(&["XDG_RUNTIME_DIR"]);
    assert_eq!(fs::read_dir(&runtime)?.count(), 0);
    chown(&runtime, Some(NOBODY), Some(NOBODY))?;
    set_mode(&runtime, 0o700)?;
    list()?.ended(0);
    let root = runtime.join("lifecycle");
    assert_eq!(fs::metadata(&root)?.uid(), NOBODY);
    let mut command = planted.command(false, None)?;
    scene::told(as_user(command.args(["runs"]), NOBODY)).ended(0).prints(&["hello"]);
    Ok(())
}

/// Every answer is a refusal that names the path and says what to do.
fn all_refused(told: &[(String, Told)], words: &[&str]) {
    for (what, told) in told {
        assert!(told.code > 0, "{what} was done: {told:?}");
        for word in words {
            let flat = format!("{} {}", told.out, told.err.replace('│', " "));
            let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(word), "{what} does not say {word:?}: {told:?}");
        }
    }
}

pub fn a_root_of_another_user_is_refused(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    let root = planted.directory("theirs", INTRUDER, 0o755)?;
    planted.runs(INTRUDER, &root)?;
    for victim in [NOBODY, 0] {
        let told = planted.everything(victim, Some(&root))?;
        planted.untouched(&root)?;
        all_refused(&told, &["is owned by uid 65533", "--root"]);
    }
    // By another name it is the same.
    let link = planted.lab.dir().join("link");
    std::os::unix::fs::symlink(&root, &link)?;
    let told = planted.everything(0, Some(&link))?;
    planted.untouched(&root)?;
    all_refused(&told, &["is a symbolic link"]);
    // Nothing is made there, either.
    planted.run(0, &root, "mine", &["--keep"])?.ended(125).says(&["is owned by uid 65533"]);
    assert!(!root.join("mine").exists());
    Ok(())
}

pub fn a_root_that_others_may_write_to_is_refused(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    for (name, mode) in [("all", 0o777), ("sticky", 0o1777), ("group", 0o775)] {
        let root = planted.directory(name, NOBODY, 0o777)?;
        planted.runs(INTRUDER, &root)?;
        set_mode(&root, mode)?;
        let told = planted.everything(NOBODY, Some(&root))?;
        planted.untouched(&root)?;
        all_refused(&told, &["may write to it", "chmod go-w"]);
        planted.run(NOBODY, &root, "mine", &["--keep"])?.ended(125).says(&["may write to it"]);
        assert!(!root.join("mine").exists());
    }
    Ok(())
}

/// What lists runs shows the one that is ours, and says why it does not show the others.
fn lists_only(planted: &Planted, root: &Path, own: &str, why: &str) -> TestResult {
    let list = |oci, words: &[&str]| -> Result<Told, Box<dyn std::error::Error>> {
        let mut command = planted.command(oci, Some(root))?;
        Ok(scene::told(as_user(command.args(words), NOBODY)).ended(0))
    };
    let runs = list(false, &["runs"])?;
    assert!(runs.out.contains(own) && runs.out.contains(why), "{runs:?}");
    let listed = list(true, &["list", "--quiet"])?;
    assert_eq!(listed.out.trim(), "", "{listed:?}");
    assert!(RUNS.iter().all(|id| listed.err.contains(&format!("load container {id}"))), "{}", listed.err);
    listed.says(&[why]);
    Ok(())
}

pub fn a_run_of_another_user_is_refused_and_hides_no_other(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    let root = planted.directory("mine", NOBODY, 0o777)?;
    planted.runs(INTRUDER, &root)?;
    // He has noticed, but for what is in it.
    set_mode(&root, 0o700)?;
    planted.run(NOBODY, &root, "own", &["--keep"])?.ended(0);
    refused_but(&planted, &root, "own", "is owned by uid 65533")?;
    // Somebody's directory for what was done beside a run is no better than his run.
    let beside = root.join("own/beside");
    fs::create_dir(&beside)?;
    fs::rename(root.join(RUNS[1]), beside.join(RUNS[1]))?;
    chown(&beside, Some(INTRUDER), Some(INTRUDER))?;
    let mut command = planted.command(false, Some(&root))?;
    scene::told(as_user(command.args(["undo", "own"]), NOBODY)).ended_badly().says(&["is owned by uid 65533"]);
    fs::rename(beside.join(RUNS[1]), root.join(RUNS[1]))?;
    planted.untouched(&root)
}

pub fn a_file_of_another_user_is_refused_and_hides_no_other(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    let root = planted.directory("mine", NOBODY, 0o700)?;
    planted.runs(NOBODY, &root)?;
    planted.run(NOBODY, &root, "own", &["--keep"])?.ended(0);
    let files = || RUNS.iter().flat_map(|id| ["journal", "state.json"].map(|file| root.join(id).join(file)));
    for id in RUNS {
        set_mode(&root.join(id), 0o711)?;
    }
    // Others may write to them: `runs` leaves them so.
    refused_but(&planted, &root, "own", "may write to it")?;
    for file in files() {
        set_mode(&file, 0o644)?;
        chown(&file, Some(INTRUDER), Some(INTRUDER))?;
    }
    refused_but(&planted, &root, "own", "is owned by uid 65533")?;
    // Nor is a name followed that leads elsewhere, even to a file of our own.
    for file in files() {
        chown(&file, Some(NOBODY), Some(NOBODY))?;
        let elsewhere = planted.open.join(format!("{}-elsewhere", file.display().to_string().replace('/', "-")));
        fs::copy(&file, &elsewhere)?;
        chown(&elsewhere, Some(NOBODY), Some(NOBODY))?;
        set_mode(&elsewhere, 0o600)?;
        fs::remove_file(&file)?;
        std::os::unix::fs::symlink(&elsewhere, &file)?;
    }
    refused_but(&planted, &root, "own", "is a symbolic link")
}

/// What works on the planted runs is refused, and the one that is ours is there.
fn refused_but(planted: &Planted, root: &Path, own: &str, why: &str) -> TestResult {
    let told = planted.everything(NOBODY, Some(root))?;
    planted.untouched(root)?;
    lists_only(planted, root, own, why)?;
    // Audit tells what there is, and does nothing about it.
    let works: Vec<_> = told.into_iter().filter(|(what, _)| what != "audit").collect();
    all_refused(&works, &[why]);
    Ok(())
}

/// A root that was made by hand, or by an older build.
pub fn a_root_that_others_may_look_into_is_taken(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    for mode in [0o755, 0o711, 0o2755] {
        let root = planted.directory(&format!("mode-{mode:o}"), NOBODY, mode)?;
        planted.run(NOBODY, &root, "kept", &["--keep"])?.ended(0);
        set_mode(&root.join("kept"), 0o711)?;
        let mut command = planted.command(false, Some(&root))?;
        scene::told(as_user(command.args(["undo", "kept"]), NOBODY)).ended(0);
        assert!(planted.open.join(format!("undone-by-{NOBODY}")).exists());
        fs::remove_file(planted.open.join(format!("undone-by-{NOBODY}")))?;
    }
    Ok(())
}

/// As podman calls a runtime for an ordinary user: it is root of his user namespace by then.
pub fn root_of_a_user_namespace_has_the_runtime_directory_of_its_maker(lab: &Lab) -> TestResult {
    let planted = Planted::new(lab)?;
    let home = planted.directory("home", NOBODY, 0o700)?;
    let bundle = Bundle::create(planted.lab.dir().join("bundle"))?;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(program::lifecycle()?);
    command.arg("run").arg(&planted.plan).args(["--keep", "-p", "id=nested"]);
    command.arg("-p").arg(format!("out={}", planted.open.display()));
    command.env("XDG_RUNTIME_DIR", &home).env("USER", "nobody").current_dir(bundle.rootfs());
    scene::told(as_user(&mut command, NOBODY)).ended(0);
    assert!(home.join("lifecycle/nested/journal").exists());
    // He has it, inside and outside.
    let mut command = planted.command(false, None)?;
    scene::told(as_user(command.args(["undo", "nested"]).env("XDG_RUNTIME_DIR", &home), NOBODY)).ended(0);
    assert!(planted.open.join(format!("undone-by-{NOBODY}")).exists());
    Ok(())
}

/// As somebody plants it where others may come by.
pub fn a_file_with_the_name_of_a_built_in_plan_is_not_taken_for_it(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let planted = lab.dir().join("planted");
    for name in ["hello", "oci/run", "ci/service"] {
        let step = format!("uses: command.run, with: {{ args: [touch, \"{}\"] }}", planted.display());
        fs::create_dir_all(lab.dir().join(name).parent().ok_or("no directory")?)?;
        scene.write(name, &format!("plan: planted\nsteps:\n  one: {{ {step} }}\n"))?;
        let shown = scene.told(&["plan", name]);
        assert!(!shown.out.contains("planted"), "{name}: {}", shown.out);
        scene.told(&["run", &format!("./{name}")]).ended(0);
        assert!(planted.exists(), "a file is meant by ./{name}");
        fs::remove_file(&planted)?;
    }
    scene.told(&["run", "hello"]).ended(0);
    assert!(!planted.exists(), "the planted plan was run");
    Ok(())
}

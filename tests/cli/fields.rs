//! What the tests of config.json's fields have in common: a container with one thing changed, looked at from inside and from outside.

use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::scene::{Scene, Told};

/// A bundle as `runc spec` writes it, to be changed by a test.
pub struct Field<'a> {
    pub lab: &'a Lab,
    pub scene: Scene<'a>,
    pub bundle: Bundle,
    id: String,
}

impl<'a> Field<'a> {
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        scene.begins_here()?;
        Ok(Self { lab, scene, bundle, id: format!("{}-c1", lab.token()) })
    }

    /// Makes directories in the root file system: a mountpoint that is missing there would stay.
    pub fn directories(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = self.bundle.rootfs().join(name);
            fs::create_dir_all(&path).when(|| format!("making {}", path.display()))?;
        }
        self.scene.begins_here()
    }

    /// Makes a directory of the host beside the bundle.
    pub fn host(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.lab.dir().join(name);
        fs::create_dir_all(&path).when(|| format!("making {}", path.display()))?;
        self.scene.begins_here()?;
        Ok(path)
    }

    /// Changes the config.
    pub fn config(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.bundle.edit(change)?;
        self.scene.begins_here()
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) -> Result<()> {
        self.config(|config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(mount);
            }
        })
    }

    /// Takes mounts from the list until this many are left.
    pub fn mounts_are(&mut self, count: usize) -> Result<()> {
        self.config(|config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.truncate(count);
            }
        })
    }

    /// A user namespace whose root is `first` on the host.
    pub fn user_namespace(&mut self, first: u32) -> Result<()> {
        self.config(|config| {
            let map = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.push(json!({ "type": "user" }));
            }
        })
    }

    fn params(&self, plan: &str, more: &[&str]) -> Vec<String> {
        let fixed = ["run", plan, "-p", &format!("id={}", self.id)].map(String::from);
        fixed.into_iter().chain(more.iter().map(|&word| word.to_owned())).collect()
    }

    /// What the container's program prints, with nothing left behind.
    pub fn prints(&self, arguments: &[&str]) -> Result<String> {
        self.bundle.runs(arguments)?;
        let told = self.told();
        if told.code != 0 {
            return Err(Error::new("running the container", format!("{}: {}{}", told.code, told.out, told.err)));
        }
        Ok(told.out)
    }

    /// What a shell in the container prints.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.prints(&["sh", "-c", script])
    }

    /// Runs the container to its end.
    pub fn told(&self) -> Told {
        self.scene.told(&self.params("oci/run", &["-p", "bundle=bundle"]))
    }

    /// The same with more options.
    pub fn told_with(&self, more: &[&str]) -> Told {
        self.scene.told(&self.params("oci/run", &[&["-p", "bundle=bundle"], more].concat()))
    }

    /// What does that, to be run otherwise.
    pub fn command(&self, more: &[&str]) -> std::process::Command {
        self.scene.command(&self.params("oci/run", &[&["-p", "bundle=bundle"], more].concat()))
    }

    /// Nothing happens, and the message has these words.
    pub fn is_refused(&mut self, words: &[&str]) -> Result<()> {
        self.scene.begins_here()?;
        // While it is planned, or by a step.
        let told = self.told().ended_badly();
        assert!(matches!(told.code, 1 | 125), "{}: {}", told.code, told.err);
        told.says(words);
        self.scene.nothing_left()
    }

    /// The same, and a dry run, which touches nothing, refuses it already.
    pub fn cannot_be_planned(&mut self, words: &[&str]) -> Result<()> {
        let mut dry = self.params("oci/run", &["-p", "bundle=bundle"]);
        "plan".clone_into(&mut dry[0]);
        self.scene.told(&dry).ended(1).says(words);
        self.is_refused(words)
    }

    /// Makes the container without starting it, and lets somebody look at its first process.
    pub fn created(&self, look: impl FnOnce(i32) -> Result<()>) -> Result<()> {
        self.live(&["-p", "bundle=bundle", "--keep"], false, look)
    }

    /// The same with more parameters.
    pub fn created_with(&self, more: &[&str], look: impl FnOnce(i32) -> Result<()>) -> Result<()> {
        self.live(&[&["-p", "bundle=bundle", "--keep"], more].concat(), false, look)
    }

    /// Makes and starts the container, and lets somebody look at its program.
    pub fn running(&self, look: impl FnOnce(i32) -> Result<()>) -> Result<()> {
        self.bundle.runs(&["sleep", "60"])?;
        self.live(&["-p", "bundle=bundle", "--keep"], true, look)
    }

    /// Runs another process in the container, by a file as `exec --process` takes it.
    pub fn executes(&self, process: &Value) -> Result<Told> {
        let file = self.scene.write("process.json", &process.to_string())?;
        Ok(self.scene.told(&self.params("oci/exec", &["-p", &format!("process={}", file.display())])))
    }

    fn live(&self, create: &[&str], start: bool, look: impl FnOnce(i32) -> Result<()>) -> Result<()> {
        self.scene.told(&self.params("oci/create", create)).ended(0);
        if start {
            self.scene.told(&self.params("oci/start", &["--keep"])).ended(0);
        }
        let state = self.lab.state_root().join(&self.id).join("state.json");
        let text = fs::read_to_string(&state).when(|| format!("reading {}", state.display()))?;
        let state: Value = serde_json::from_str(&text).when(|| "parsing the state".into())?;
        let pid = state["pid"].as_i64().ok_or_else(|| Error::new("looking for the container's process", text))?;
        let seen = look(pid as i32);
        self.scene.told(&self.params("oci/delete", &["-p", "force=true"])).ended(0);
        seen
    }
}

/// A file about a process.
pub fn proc(pid: i32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).when(|| format!("reading {path}"))
}

/// The value of a line such as `CapEff:  00000000`, with single spaces.
pub fn line(text: &str, name: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name} in:\n{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One mount of a mountinfo file, proc_pid_mountinfo(5).
#[derive(Debug)]
pub struct Mounted {
    /// The mount's own attributes.
    pub attributes: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub propagation: Vec<String>,
    /// The file system's options.
    pub options: Vec<String>,
}

/// The topmost mount on a path.
pub fn mounted(mountinfo: &str, path: &str) -> Mounted {
    let words = |text: &str, separator: char| text.split(separator).map(str::to_owned).collect::<Vec<_>>();
    let mut found = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let fields = words(mount, ' ');
        (fields.get(4)? == path).then(|| Mounted {
            attributes: words(&fields[5], ','),
            propagation: fields[6..].to_vec(),
            options: words(file_system.rsplit(' ').next().unwrap_or_default(), ','),
        })
    });
    found.next_back().unwrap_or_else(|| panic!("nothing is mounted on {path}:\n{mountinfo}"))
}

impl Mounted {
    /// Whether the mount has this attribute.
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|has| has == attribute)
    }
}

/// Mounts a tmpfs on the host's side.
pub fn tmpfs(at: &Path, flags: MsFlags) -> Result<()> {
    let none: Option<&str> = None;
    fs::create_dir_all(at).when(|| format!("making {}", at.display()))?;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, none).when(|| format!("mounting {}", at.display()))
}

/// A field of /proc/PID/stat, numbered as in proc_pid_stat(5).
pub fn stat(text: &str, field: usize) -> i64 {
    let after = text.lines().next().and_then(|line| line.rsplit(')').next()).unwrap_or_default();
    let word = after.split_whitespace().nth(field - 3).unwrap_or_default();
    word.parse().unwrap_or_else(|error| panic!("field {field} is {word:?} ({error}): {text}"))
}

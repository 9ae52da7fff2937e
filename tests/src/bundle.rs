//! OCI bundles: a directory with `config.json` and a root file system of one static busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Error, Result, While, program};

/// A bundle on disk.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
}

/// Commands that the root file system offers, each a link to busybox.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cp", "cut", "date", "dd", "echo", "env", "false", "find", "grep", "head", "hostname", "httpd",
    "id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nc", "ping", "printf", "ps", "pwd", "readlink",
    "rm", "rmdir", "sed", "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty",
    "umount", "uname", "wc", "wget", "which",
];

impl Bundle {
    /// Makes `dir` with a root file system and what `runc spec` would write, without a terminal.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let rootfs = dir.join("rootfs");
        for sub in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
            let path = rootfs.join(sub);
            fs::create_dir_all(&path).when(|| format!("making {}", path.display()))?;
        }
        let busybox = program::find("busybox")
            .ok_or_else(|| Error::new("making a root file system", "no busybox; the package busybox-static has it"))?;
        let inside = rootfs.join("bin/busybox");
        fs::copy(&busybox, &inside).when(|| format!("copying {}", busybox.display()))?;
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).when(|| format!("linking {applet}"))?;
        }
        for (file, text) in [("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")] {
            fs::write(rootfs.join(file), text).when(|| format!("writing {file}"))?;
        }
        let bundle = Self { dir };
        let mut config = spec();
        config["process"]["terminal"] = json!(false);
        bundle.write(&config)?;
        Ok(bundle)
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Changes `config.json`.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let file = self.dir.join("config.json");
        let text = fs::read_to_string(&file).when(|| format!("reading {}", file.display()))?;
        let mut config = serde_json::from_str(&text).when(|| format!("parsing {}", file.display()))?;
        change(&mut config);
        self.write(&config)
    }

    /// Sets the command.
    pub fn runs(&self, arguments: &[&str]) -> Result<()> {
        self.edit(|config| config["process"]["args"] = json!(arguments))
    }

    /// Sets the cgroup, which for a test in a lab must hold the lab's token.
    pub fn in_cgroup(&self, path: &str) -> Result<()> {
        self.edit(|config| config["linux"]["cgroupsPath"] = json!(path))
    }

    fn write(&self, config: &Value) -> Result<()> {
        let file = self.dir.join("config.json");
        let mut config = config.clone();
        // Where none is inheritable, none can be ambient: runc's own config is worth a warning, which tests do not expect.
        if let Some(sets) =
            config.pointer_mut("/process/capabilities").filter(|sets| sets.is_object() && sets["inheritable"].is_null())
        {
            sets["ambient"] = json!([]);
        }
        if let Ok(field) = std::env::var(DROPPED) {
            drop_field(&mut config, &field.split('.').collect::<Vec<_>>());
        }
        fs::write(&file, format!("{config:#}")).when(|| format!("writing {}", file.display()))
    }
}

/// A field that no `config.json` of a test has, such as `process.user.umask`: a program that ignores it would see the same, so each test of it
/// has to fail. `./dev mutate` sets it to one field after the other.
const DROPPED: &str = "LIFECYCLE_TEST_DROPS";

/// Takes a field out of a value. Every entry of a list is looked into, and every member of a mapping: for `*`, and where it has no such field,
/// since the names in a path leave out the keys of maps.
fn drop_field(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Array(entries), _) => entries.iter_mut().for_each(|entry| drop_field(entry, path)),
        (Value::Object(members), ["*", rest @ ..]) => members.values_mut().for_each(|member| drop_field(member, rest)),
        (Value::Object(members), [name, rest @ ..]) => match members.get_mut(*name) {
            Some(_) if rest.is_empty() => drop(members.remove(*name)),
            Some(member) => drop_field(member, rest),
            None => members.values_mut().for_each(|member| drop_field(member, path)),
        },
        _ => {}
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({ "destination": destination, "type": kind, "source": source });
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

/// What `runc spec` writes (runc 1.1). A test holds it against the real one where runc is installed.
pub fn spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "ambient": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" },
                { "type": "network" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// What `runc spec --rootless` writes for the user and group that is us.
pub fn rootless_spec() -> Value {
    let mut config = spec();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    config["mounts"][2] =
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    config["mounts"][5] = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    linux["namespaces"] =
        json!([{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "user" }]);
    if let Some(linux) = linux.as_object_mut() {
        // An ordinary user has no cgroup to set limits in.
        linux.shift_remove("resources");
    }
    config
}

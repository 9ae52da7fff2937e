//! `sysctl.write`: kernel parameters of the container's own namespaces.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::sysctl::WriteSysctl;

/// Writes kernel parameters that belong to a namespace of the container (`net.*`, `fs.mqueue.*`, System V IPC, the domain name). Others, and
/// those of a namespace that the container shares with the host, are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Values by name, such as `net.ipv4.ip_forward`.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Write;

impl Step for Write {
    const KIND: &'static str = "sysctl.write";
    const CHANGES: &'static str = "Kernel parameters of the site's namespaces.";
    const REVERSED_BY: &'static str = "Goes with the namespaces.";
    const PLACE: Place = Place::Inside;
    // /proc is the container's own by then, and rootfs.protect makes /proc/sys read-only after it.
    const AFTER: After = &["net.loopback", "rootfs.pivot"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container whose users may ping.",
        plan: "plan: example/sysctl
steps:
  init: { uses: process.clone, with: { new: [network, ipc], stdio: log } }
  sysctl:
    uses: sysctl.write
    site: \"${init}\"
    with: { sysctl: { net.ipv4.ping_group_range: 0 1000, kernel.shm_rmid_forced: \"1\" } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/cat, /proc/sys/net/ipv4/ping_group_range] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        for (name, value) in input.sysctl {
            let wrong = |message: String| PlanError::new(format!("sysctl.{name}"), message);
            let path = path(&name).ok_or_else(|| wrong(format!("{name:?} is not the name of a kernel parameter")))?;
            let Some(namespace) = namespace(&path) else {
                return Err(wrong(format!("{name} belongs to no namespace: it would change for the host"))
                    .help(if path == "kernel/hostname" { "use hostname" } else { "set it on the host instead" }));
            };
            let unsafe_in = |c: char| {
                c.is_control() && c != '\t' || namespace == "uts" && !(c.is_alphanumeric() || "-._".contains(c))
            };
            if let Some(bad) = value.chars().find(|c| unsafe_in(*c)) {
                return Err(wrong(format!("the value {value:?} holds {bad:?}, which no value of {name} can")));
            }
            cx.effect(WriteSysctl { path, value, namespace: namespace.to_owned() });
        }
        Ok(Output {})
    }
}

/// The path below /proc/sys. Names are written with dots, and with slashes where a part has a dot of its own, as sysctl(8) reads them.
fn path(name: &str) -> Option<String> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let path: String = if slashes { name.to_owned() } else { name.chars().map(swap).collect() };
    let legal = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    (path.contains('/') && path.split('/').all(legal)).then_some(path)
}

/// The namespace that the parameter belongs to, as in /proc/PID/ns.
fn namespace(path: &str) -> Option<&'static str> {
    const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    match path.split_once('/')? {
        ("net", _) => Some("net"),
        ("fs", rest) if rest.starts_with("mqueue/") => Some("ipc"),
        ("kernel", "domainname") => Some("uts"),
        ("user", name) if name.starts_with("max_") => Some("user"),
        ("kernel", name) if IPC.contains(&name) => Some("ipc"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sysctl_reads_them() {
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        for bad in ["", "net", "net..x", "net/../kernel/core_pattern", "/etc/passwd", "net.//./x", "net.x\n"] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_parameters_of_namespaces_are_taken() {
        for (name, want) in [
            ("net/ipv4/ip_forward", Some("net")),
            ("kernel/shmmax", Some("ipc")),
            ("fs/mqueue/msg_max", Some("ipc")),
            ("kernel/domainname", Some("uts")),
            ("kernel/core_pattern", None),
            ("kernel/hostname", None),
            ("fs/file-max", None),
            ("vm/swappiness", None),
        ] {
            assert_eq!(namespace(name), want, "{name}");
        }
    }
}

//! Which systemd would make the caller's scopes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dbus::Address;
use crate::systemd::Manager;

/// systemd as the caller can use it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    /// It is this system's first process: sd_booted(3).
    pub running: bool,
    /// It is an ordinary user's own instance.
    pub user: bool,
    /// Where it listens; `None` where the caller can reach none.
    pub address: Option<Address>,
    /// Its version, such as 252.
    pub version: u32,
    /// The cgroup that it manages, below the top of each hierarchy, without a slash at its end.
    pub control_group: String,
}

/// In a user namespace root is an ordinary user of the host.
fn is_root() -> bool {
    rustix::process::geteuid().is_root() && !super::is_nested()
}

/// Straight to systemd first: a bus is one more program that has to run.
fn addresses(root: bool) -> Vec<Address> {
    let direct = |socket: PathBuf| Address { socket, bus: false };
    let bus = |socket: PathBuf| Address { socket, bus: true };
    if root {
        return vec![direct("/run/systemd/private".into()), bus("/run/dbus/system_bus_socket".into())];
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let mut all: Vec<Address> = runtime.iter().map(|dir| direct(dir.join("systemd/private"))).collect();
    all.extend(bus_path(&named).map(bus));
    all.extend(runtime.iter().map(|dir| bus(dir.join("bus"))));
    all
}

/// The path in a D-Bus address such as `unix:path=/run/user/1000/bus,guid=…`.
fn bus_path(address: &str) -> Option<PathBuf> {
    let unix = address.split(';').find_map(|one| one.strip_prefix("unix:"))?;
    unix.split(',').find_map(|pair| pair.strip_prefix("path=")).map(PathBuf::from)
}

/// sd_booted(3).
pub(super) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

pub(super) fn systemd() -> Value {
    let root = is_root();
    let mut found = Systemd { running: is_running(), user: !root, ..Systemd::default() };
    if !found.running {
        return json!(found);
    }
    // Of root's systemd it is known where it listens; a user's may listen at any of these places, or not run.
    let mut known = addresses(root).into_iter().filter(|address| root && !address.bus);
    let at_once = |address: Address| Manager::at_once(&address).ok().and_then(ask).map(|answer| (address, answer));
    let waiting = |address: Address| Manager::open(&address).ok().and_then(ask).map(|answer| (address, answer));
    let answer = addresses(root).into_iter().find_map(at_once).or_else(|| known.find_map(waiting));
    if let Some((address, (version, control_group))) = answer {
        found = Systemd { address: Some(address), version, control_group, ..found };
    }
    json!(found)
}

fn ask(mut manager: Manager) -> Option<(u32, String)> {
    let version = manager.property("Version").ok()?;
    let group = manager.property("ControlGroup").ok()?;
    Some((version_of(version.as_str()?)?, group.as_str()?.trim_end_matches('/').to_owned()))
}

/// `252.39-1~deb12u1`, `v245`, `255 (255.4-1)`.
fn version_of(text: &str) -> Option<u32> {
    let text = text.trim_start_matches('v');
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_it_begins_with() {
        assert_eq!(["252.39-1~deb12u1", "v245", "255"].map(version_of), [Some(252), Some(245), Some(255)]);
        assert_eq!(version_of("unknown"), None);
    }

    #[test]
    fn the_bus_is_found_in_its_address() {
        assert_eq!(bus_path("unix:path=/run/user/7/bus,guid=ab"), Some("/run/user/7/bus".into()));
        assert_eq!(bus_path("tcp:host=x;unix:guid=ab,path=/bus"), Some("/bus".into()));
        assert_eq!(bus_path(""), None);
    }
}

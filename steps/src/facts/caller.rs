//! Who calls: ids, capabilities, limits, working directory.

use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A range of ids that the caller may map into a user namespace (subuid(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// A resource limit of the caller; `None` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What the kernel enforces.
    pub soft: Option<u64>,
    /// What `soft` may be raised to.
    pub hard: Option<u64>,
}

/// Names such as `CAP_KILL`, in the kernel's order.
pub(super) fn effective_capabilities() -> Value {
    let Ok(sets) = rustix::thread::capabilities(None) else { return json!([]) };
    sets.effective.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// The ranges that the file gives to the caller, by name or by number.
pub(super) fn subordinate_ids(file: &str) -> Value {
    let uid = rustix::process::getuid().as_raw();
    let name = user_name(uid);
    let text = std::fs::read_to_string(file).unwrap_or_default();
    json!(ranges(&text, name.as_deref(), uid))
}

/// Reads subuid(5): `name-or-number:start:count`. Lines of any other form grant nothing.
pub(crate) fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let is_caller = |owner: &str| Some(owner) == name || owner.parse() == Ok(uid);
    let range = |line: &str| {
        let [owner, start, count] = line.trim().split(':').collect::<Vec<_>>().try_into().ok()?;
        let range = IdRange { start: start.parse().ok()?, count: count.parse().ok()? };
        (is_caller(owner) && range.count > 0).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// The name of a user of the host, from /etc/passwd alone: what the C library would ask besides, by nsswitch.conf(5), it loads into the program, and
/// a static one crashes.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read("/etc/passwd").ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Whether the caller's capabilities are those of a user namespace that somebody made, and hold for nothing outside of it. The machine's own maps
/// every id to itself, user_namespaces(7).
pub fn is_nested() -> bool {
    nests(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn nests(map: &str) -> bool {
    !map.is_empty() && map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Where what can be computed again is kept: /var/cache for root; for others as the XDG Base Directory Specification says. Null: nowhere.
pub(super) fn cache() -> Value {
    let ours = |base: PathBuf| json!(base.join("lifecycle"));
    if rustix::process::geteuid().is_root() {
        return ours("/var/cache".into());
    }
    // "If an implementation encounters a relative path … it should … ignore it."
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    base.map_or(Value::Null, ours)
}

pub(super) fn working_directory() -> Value {
    std::env::current_dir().map_or(Value::Null, |path| json!(path))
}

/// Whether the caller is a person at a terminal: what is typed comes from one, and what is shown goes to one.
pub(super) fn terminal() -> Value {
    use rustix::termios::isatty;
    json!(isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout()))
}

/// By the names of getrlimit(2), without `RLIMIT_`.
pub(super) fn limits() -> Value {
    let all = [
        ("AS", Resource::As),
        ("CORE", Resource::Core),
        ("CPU", Resource::Cpu),
        ("DATA", Resource::Data),
        ("FSIZE", Resource::Fsize),
        ("LOCKS", Resource::Locks),
        ("MEMLOCK", Resource::Memlock),
        ("MSGQUEUE", Resource::Msgqueue),
        ("NICE", Resource::Nice),
        ("NOFILE", Resource::Nofile),
        ("NPROC", Resource::Nproc),
        ("RSS", Resource::Rss),
        ("RTPRIO", Resource::Rtprio),
        ("RTTIME", Resource::Rttime),
        ("SIGPENDING", Resource::Sigpending),
        ("STACK", Resource::Stack),
    ];
    let limit = |resource| {
        let limit = getrlimit(resource);
        json!(Limit { soft: limit.current, hard: limit.maximum })
    };
    Value::Object(all.into_iter().map(|(name, resource)| (name.to_owned(), limit(resource))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_callers_own_ranges_count() {
        let text = "alice:100000:65536\n1000:300000:10\nbob:1:1\nalice:bad:1\nalice:5\nalice:7:0\n";
        let alice = [IdRange { start: 100_000, count: 65536 }, IdRange { start: 300_000, count: 10 }];
        assert_eq!(ranges(text, Some("alice"), 1000), alice);
        assert_eq!(ranges(text, None, 1001), []);
    }

    #[test]
    fn a_user_namespace_shows_in_its_map() {
        assert!(!nests("         0          0 4294967295\n"));
        assert!(nests("         0      65534          1\n"));
        assert!(nests("         0          0 65536\n"));
        // Without user namespaces in the kernel there is no such file.
        assert!(!nests(""));
    }

    #[test]
    fn root_has_a_name_capabilities_and_limits() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        let limit: Limit = serde_json::from_value(limits()["NOFILE"].clone()).expect("a limit");
        assert!(limit.soft <= limit.hard);
        if rustix::process::geteuid().is_root() {
            let capabilities = effective_capabilities();
            assert!(capabilities.as_array().is_some_and(|all| all.contains(&json!("CAP_KILL"))), "{capabilities}");
        }
    }
}

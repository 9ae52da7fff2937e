//! Readers of one text each.

use lifecycle_engine::site::Report;
use lifecycle_steps::dbus::{self, Message};
use lifecycle_steps::mounts::table;
use lifecycle_steps::outside;
use lifecycle_steps::state::Stored;

/// What a process in a container tells the engine, line by line.
pub fn report(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(report) = serde_json::from_slice::<Report>(line) {
            let again = serde_json::to_vec(&report).expect("a report is JSON");
            serde_json::from_slice::<Report>(&again).expect("a report that reads again");
        }
    }
}

/// A container's passwd, and the host's subuid and subgid.
pub fn passwd(bytes: &[u8]) {
    for uid in [0, 1000, u32::MAX] {
        let home = outside::home(bytes, uid);
        assert!(home.starts_with('/') && !home.contains(char::is_control), "{home:?}");
    }
    let text = String::from_utf8_lossy(bytes);
    for range in outside::subordinate_ids(&text, Some("alice"), 1000) {
        assert!(range.count > 0);
    }
}

/// mountinfo with the text of /proc/self/cgroup after an empty line.
pub fn mountinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mounts = table::parse(&text);
    assert!(mounts.len() <= text.lines().count());
    let (mounts, own) = text.split_once("\n\n").unwrap_or((&text, ""));
    let layout = outside::cgroup_layout(mounts, "cpu\t1\t1\t1\nmemory\t2\t1\t1\n");
    for hierarchy in &layout.v1 {
        assert!(!hierarchy.controllers.is_empty());
    }
    for (mount, own) in outside::own_cgroups(mounts, own) {
        let names: Vec<_> = own.split('/').skip(1).collect();
        assert!(own.starts_with('/') && !names.contains(&".."), "{own} at {}", mount.display());
    }
}

/// /proc/PID/stat and /proc/PID/cgroup.
pub fn proc(bytes: &[u8]) {
    let _ = outside::start_time(bytes);
    if let Some(path) = outside::cgroup(bytes, "pids") {
        assert!(!path.as_os_str().as_encoded_bytes().contains(&b'\n'));
    }
}

/// Messages of a bus, one after the other; and the text of a property, as an annotation has it.
pub fn dbus(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(length)) = Message::length(rest) {
        let Some((message, more)) = rest.split_at_checked(length) else { break };
        if let Ok(message) = Message::decode(message) {
            let again = Message::decode(&message.encode()).expect("a message that reads again");
            // Not by `==`: a number that is none is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("{message:?}"));
        }
        rest = more;
    }
    if let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| dbus::parse(text).ok()) {
        let shown = dbus::print(&value);
        assert_eq!(dbus::parse(&shown).map(|again| format!("{again:?}")).ok(), Some(format!("{value:?}")), "{shown}");
    }
}

/// An answer of criu's.
pub fn criu(bytes: &[u8]) {
    outside::criu_answer(bytes);
}

/// A container's messages to the service manager: nothing of them speaks for its supervisor, and however many there are, little is kept.
pub fn notify(bytes: &[u8]) {
    let passed = outside::notify_words(bytes);
    assert!(passed.len() <= 4, "{passed:?}");
    for words in passed {
        let ours = words == "READY=1" || words == "MAINPID=1";
        assert!(ours || words.starts_with("STATUS="), "{words:?}");
        assert!(!words.contains('\n'), "{words:?}");
    }
}

/// A container's state.json: whatever it says, the process that it names is none that somebody else has started.
pub fn state(bytes: &[u8]) {
    if let Ok(stored) = Stored::read(bytes) {
        let process = &stored.lifecycle.process;
        assert!(!matches!(process.watch(), Ok(Some(_))), "{process:?}");
        serde_json::to_string(&stored.annotations).expect("annotations are JSON");
    }
}

//! A program's environment, environ(7): put together in one way, wherever that is done.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::process::getuid;

/// Where a program is looked for when the environment has no PATH.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the container's /etc/passwd is read: it is the enemy's, and may be endless (CVE-2025-4437).
const PASSWD: u64 = 1 << 20;

/// Of a variable that is given more than once the last entry alone: programs differ in which of two they take.
pub(crate) fn last_of_each<T>(mut entries: Vec<T>, text: impl Fn(&T) -> &str) -> Vec<T> {
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> = entries.iter().rev().map(|entry| seen.insert(name(text(entry)).to_owned())).collect();
    entries.retain(|_| keep.pop().unwrap_or(true));
    entries
}

/// The environment of a container's process: each variable once, and HOME from the container's own /etc/passwd where it is not given. An empty
/// HOME is none: engines pass it on and leave the rest to the runtime.
///
/// To be called in the container's root, as the process's user.
pub(crate) fn of_process(entries: Vec<String>) -> Vec<String> {
    let mut env = last_of_each(entries, String::as_str);
    if value_of(&env, "HOME").is_none_or(str::is_empty) {
        env.retain(|entry| name(entry) != "HOME");
        env.push(format!("HOME={}", own_home()));
    }
    env
}

/// The name in `NAME=value`.
pub(crate) fn name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// Where the environment has programs looked for.
pub(crate) fn path_of(env: &[String]) -> &str {
    value_of(env, "PATH").unwrap_or(USUAL_PATH)
}

/// What the variable is set to: the last entry counts.
fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|e| e.split_once('=').filter(|(n, _)| *n == name).map(|(_, value)| value))
}

/// The home directory of the process's user by the container's own /etc/passwd; `/` where that has none.
fn own_home() -> String {
    // It may be a FIFO, too, that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = open("/etc/passwd", flags, Mode::empty()).map(std::fs::File::from) else { return "/".into() };
    if !fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile) {
        return "/".into();
    }
    home(file.take(PASSWD), getuid().as_raw())
}

/// A user's home directory by a passwd file, whose text is anybody's.
pub fn home(passwd: impl Read, uid: u32) -> String {
    let uid = uid.to_string();
    let lines = BufReader::new(passwd).lines().map_while(Result::ok);
    let mut homes = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, ..] if *id == uid && home.starts_with('/') => Some((*home).to_owned()),
            _ => None,
        }
    });
    // CVE-2022-4318: what becomes part of an environment must not be able to become a line of a file.
    homes.find(|home| !home.chars().any(char::is_control)).unwrap_or_else(|| "/".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_variable_given_twice_the_last_one_counts_where_it_stands() {
        let env = |entries: &[&str]| -> Vec<String> { entries.iter().map(|entry| (*entry).to_owned()).collect() };
        let given = env(&["A=1", "PATH=/a", "B=", "A=2", "AB=3", "PATH=/b=c", "A=2"]);
        assert_eq!(path_of(&given), "/b=c");
        assert_eq!(last_of_each(given, String::as_str), env(&["B=", "AB=3", "PATH=/b=c", "A=2"]));
        assert_eq!(last_of_each(env(&[]), String::as_str), env(&[]));
    }

    #[test]
    fn an_empty_home_is_none() {
        for given in [&[][..], &["HOME="], &["HOME=/old", "HOME="]] {
            let env = of_process(given.iter().map(|entry| (*entry).to_owned()).collect());
            assert!(matches!(&env[..], [home] if home.starts_with("HOME=/") && home != "HOME=/old"), "{env:?}");
        }
        assert_eq!(of_process(vec!["HOME=".into(), "HOME=/own".into()]), ["HOME=/own"]);
    }
}

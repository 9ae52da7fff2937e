//! What is read from outside, tried with bytes that nobody meant: by a fuzzer (`./dev fuzz`), and by the tests from the corpus in `fuzz/corpus`.
//!
//! A body takes any bytes. What it has to show, it asserts; whatever it reads besides is fixed, and it changes nothing on the machine
//! but a directory of its own.

mod parsers;
mod plans;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::program::source;

/// What reads something from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its fuzz target and of its directory in the corpus.
    pub name: &'static str,
    /// Panics where what has to hold does not.
    pub body: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "config", body: plans::config },
    Target { name: "process", body: plans::process },
    Target { name: "descriptors", body: plans::descriptors },
    Target { name: "journal", body: plans::journal },
    Target { name: "report", body: parsers::report },
    Target { name: "passwd", body: parsers::passwd },
    Target { name: "mountinfo", body: parsers::mountinfo },
    Target { name: "proc", body: parsers::proc },
    Target { name: "dbus", body: parsers::dbus },
    Target { name: "criu", body: parsers::criu },
    Target { name: "notify", body: parsers::notify },
    Target { name: "state", body: parsers::state },
];

/// The body of the target of that name.
pub fn body(name: &str) -> fn(&[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).body
}

/// Where a target's inputs are kept: examples, and whatever was found.
pub fn corpus(target: Target) -> PathBuf {
    source().join("fuzz/corpus").join(target.name)
}

/// Changes to the bytes as a fuzzer makes them: the same ones for the same number.
pub fn mutated(bytes: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut random = Random(number);
    if let (true, Ok(mut json)) = (random.below(2) == 0, serde_json::from_slice::<Value>(bytes)) {
        for _ in 0..=random.below(4) {
            random.change_json(&mut json);
        }
        return json.to_string().into_bytes();
    }
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        random.change(&mut bytes, other);
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

/// What parsers stumble over.
const WORDS: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"4294967295",
    b"18446744073709551615",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"..\"",
    b"/../",
    b"/../../../etc/x",
    b"\n",
    b"\\",
    b"\xff",
    b"\0",
    b"\xff\xff\xff\xff",
];

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than this; 0 where that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let most = (bytes.len() - start).min(64);
        start..start + self.below(most + 1)
    }

    /// Changes one value somewhere in it, and leaves the rest as it is: what checks the form alone refuses nothing of it.
    fn change_json(&mut self, json: &mut Value) {
        let deeper = self.below(8) != 0;
        match json {
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.below(items.len());
                self.change_json(&mut items[at]);
            }
            Value::Object(members) if deeper && !members.is_empty() => {
                let at = self.below(members.len());
                if let Some((_, value)) = members.iter_mut().nth(at) {
                    self.change_json(value);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let again = items[self.below(items.len())].clone();
                items.push(again);
            }
            Value::Object(members) if !members.is_empty() => {
                let at = self.below(members.len());
                let Some((key, value)) = members.iter().nth(at).map(|(key, value)| (key.clone(), value.clone())) else {
                    return;
                };
                if self.below(2) == 0 {
                    members.remove(&key);
                } else {
                    members.insert(self.text(&key), value);
                }
            }
            Value::String(text) => *text = self.text(text),
            _ => *json = self.number(),
        }
    }

    fn number(&mut self) -> Value {
        let few = [json!(0), json!(-1), json!(u32::MAX), json!(u64::MAX), json!(i64::MIN), json!(1.5), json!(true)];
        few[self.below(few.len())].clone()
    }

    fn text(&mut self, text: &str) -> String {
        let few = ["", "/", "..", "/..", "../../../etc/x", "/etc/x", "a/../../b", "\n", "\0", "=", ":", "%", "ä"];
        let one = few[self.below(few.len())];
        match self.below(3) {
            0 => one.to_owned(),
            1 => format!("{text}{one}"),
            _ => format!("{one}{text}"),
        }
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let range = self.range(bytes);
        match self.below(6) {
            0 => drop(bytes.splice(range, [])),
            1 => {
                let copy = bytes[range].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, copy);
            }
            2 => {
                let part = self.range(other);
                bytes.splice(range, other[part].iter().copied());
            }
            3 => drop(bytes.splice(range, WORDS[self.below(WORDS.len())].iter().copied())),
            4 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            _ => bytes.truncate(range.start),
        }
    }
}

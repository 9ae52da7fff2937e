//! Processes that are alive. A zombie holds nothing, so it counts as gone.

use std::collections::HashMap;
use std::fs;

use rustix::process::{WaitOptions, wait};

use super::Things;
use crate::{Result, While};

/// Which processes are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Processes {
    /// All that this `/proc` shows. For a test that has a PID namespace of its own.
    #[default]
    All,
    /// A process and what descends from it. What it lost as an orphan is found only if it is a subreaper.
    DescendantsOf(i32),
    /// None at all.
    None,
}

/// What `/proc/PID/stat` says, as far as we need it.
struct Stat {
    comm: String,
    state: char,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command is in parentheses and may hold any byte, parentheses too.
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let mut rest = text.get(close + 2..)?.split(' ');
    Some(Stat {
        comm: text[open + 1..close].to_owned(),
        state: rest.next()?.chars().next()?,
        parent: rest.next()?.parse().ok()?,
    })
}

impl Stat {
    fn alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

impl Processes {
    /// The pids, in order.
    pub fn list(self) -> Result<Vec<i32>> {
        if self == Self::None {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir("/proc").when(|| "listing /proc".into())?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let stats: HashMap<i32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let mut chosen: Vec<i32> = stats
            .iter()
            .filter(|(pid, stat)| stat.alive() && self.includes(**pid, &stats))
            .map(|(pid, _)| *pid)
            .collect();
        chosen.sort_unstable();
        Ok(chosen)
    }

    fn includes(self, pid: i32, stats: &HashMap<i32, Stat>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::DescendantsOf(top) => {
                let ancestors = std::iter::successors(Some(pid), |pid| stats.get(pid).map(|stat| stat.parent));
                ancestors.take_while(|pid| *pid > 0).any(|pid| pid == top)
            }
        }
    }
}

/// The processes, by pid, with the command line that each was started with.
pub(super) fn look(pids: &[i32]) -> Things {
    let mut things = Things::new();
    for pid in pids {
        let Some(stat) = stat(*pid).filter(Stat::alive) else { continue };
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).trim_end_matches('\0').replace('\0', " ");
        things.insert(format!("{pid:>7}"), format!("{} [{arguments}]", stat.comm));
    }
    things
}

/// Collects the zombies among our children.
///
/// Must not be called while somebody waits for a child by its pid: its status would be lost.
pub(super) fn reap() {
    // An error says that there are no children at all.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_own_descendant_and_its_parents() {
        let me = std::process::id().cast_signed();
        assert!(Processes::DescendantsOf(me).list().unwrap().contains(&me));
        let parent = stat(me).unwrap().parent;
        if parent != 0 {
            assert!(Processes::DescendantsOf(parent).list().unwrap().contains(&me));
        }
        assert!(!Processes::None.list().unwrap().contains(&me));
    }
}

//! What two lists have in common: lines of texts, effects of a step.

use super::model::Effect;
use super::paint::{Paint, Style};

/// How many unchanged lines are shown around a change.
const AROUND: usize = 3;

/// Two texts compared line by line, as `diff -u` shows them; `None` if they are the same.
pub fn lines(old: &str, new: &str, color: bool) -> Option<String> {
    if old == new {
        return None;
    }
    let paint = Paint { on: color };
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut all: Vec<(char, &str)> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (p, q) in common(&a, &b).into_iter().chain([(a.len(), b.len())]) {
        all.extend(a[i..p].iter().map(|line| ('-', *line)));
        all.extend(b[j..q].iter().map(|line| ('+', *line)));
        all.extend(a.get(p).map(|line| (' ', *line)));
        (i, j) = (p + 1, q + 1);
    }
    let changed: Vec<usize> = all.iter().enumerate().filter(|(_, (sign, _))| *sign != ' ').map(|(k, _)| k).collect();
    let near = |k: usize| {
        let at = changed.partition_point(|&c| c < k);
        changed.get(at).is_some_and(|c| c - k <= AROUND)
            || at.checked_sub(1).is_some_and(|at| k - changed[at] <= AROUND)
    };
    let mut out = String::new();
    let mut left_out = false;
    for (k, (sign, line)) in all.iter().enumerate() {
        if near(k) {
            let style = match sign {
                '-' => Style::Red,
                '+' => Style::Green,
                _ => Style::Plain,
            };
            out.push_str(paint.style(style, &format!("{sign} {line}")).trim_end());
            out.push('\n');
            left_out = false;
        } else if !left_out {
            out.push_str(&paint.style(Style::Dim, "  …"));
            out.push('\n');
            left_out = true;
        }
    }
    // Texts that differ only in how they end.
    Some(if changed.is_empty() { "  the last line's end differs\n".to_owned() } else { out })
}

/// Pairs the effects of one step: equal ones by the longest common subsequence, and between those the ones of one kind in order.
pub(super) fn pair<'a>(old: &'a [Effect], new: &'a [Effect]) -> Vec<(Option<&'a Effect>, Option<&'a Effect>)> {
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (a, b) in common(old, new) {
        between(&old[i..a], &new[j..b], &mut pairs);
        pairs.push((Some(&old[a]), Some(&new[b])));
        (i, j) = (a + 1, b + 1);
    }
    between(&old[i..], &new[j..], &mut pairs);
    pairs
}

fn between<'a>(old: &'a [Effect], new: &'a [Effect], pairs: &mut Vec<(Option<&'a Effect>, Option<&'a Effect>)>) {
    let mut used = vec![false; new.len()];
    for a in old {
        let twin = new.iter().zip(&used).position(|(b, used)| !used && b.kind == a.kind && b.inside == a.inside);
        if let Some(at) = twin {
            used[at] = true;
        }
        pairs.push((Some(a), twin.and_then(|at| new.get(at))));
    }
    pairs.extend(new.iter().zip(used).filter(|(_, used)| !used).map(|(b, _)| (None, Some(b))));
}

/// Beyond this many pairs the table of the longest common subsequence is not worth its memory; common ends are still found.
const TABLE: usize = 4_000_000;

/// The indices of a longest common subsequence.
fn common<T: PartialEq>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..], &new[head..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - tail], &b[..b.len() - tail]);
    let mut found: Vec<(usize, usize)> = (0..head).map(|i| (i, i)).collect();
    if a.len().saturating_mul(b.len()) <= TABLE {
        found.extend(longest(a, b).into_iter().map(|(i, j)| (i + head, j + head)));
    }
    found.extend((0..tail).rev().map(|k| (old.len() - 1 - k, new.len() - 1 - k)));
    found
}

fn longest<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let wide = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * wide];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i * wide + j] = if a[i] == b[j] {
                table[(i + 1) * wide + j + 1] + 1
            } else {
                table[(i + 1) * wide + j].max(table[i * wide + j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if table[(i + 1) * wide + j] >= table[i * wide + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

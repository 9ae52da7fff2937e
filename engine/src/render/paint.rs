//! Text for a terminal: styles, widths, wrapping, and the cleaning of what others wrote.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a piece of text looks where there is colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// What the eye looks for.
    Bold,
    /// What it may skip.
    Dim,
    /// A kind.
    Cyan,
    /// Good, or taken back by its inverse.
    Green,
    /// Scoped.
    Blue,
    /// Foreign.
    Magenta,
    /// Kept, or a warning.
    Yellow,
    /// One-way, or failed.
    Red,
}

/// Puts colour into text, or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint {
    /// Colour is wanted.
    pub on: bool,
}

impl Paint {
    /// The text in that style. It is cleaned: see [`clean`].
    pub fn style(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Cyan => "36",
            Style::Green => "32",
            Style::Blue => "34",
            Style::Magenta => "35",
            Style::Yellow => "33",
            Style::Red => "1;31",
        };
        let text = clean(text);
        if self.on && !code.is_empty() && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }
}

/// The text without anything that could move a terminal's cursor, change its colours or turn its direction: names and paths come from
/// configurations that others wrote.
pub fn clean(text: &str) -> String {
    shown(text, &[])
}

/// The same of a line that a program printed: its tabs stay.
pub fn line(text: &str) -> String {
    shown(text, &['\t'])
}

/// The same of several lines: their ends stay, too.
pub fn lines(text: &str) -> String {
    shown(text, &['\t', '\n'])
}

fn shown(text: &str, stay: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if stay.contains(&c) || !is_hostile(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    out
}

/// A message of at most about so many bytes. Of a longer one the middle is left out: what stands first says what it is about, what stands last
/// what to do. Of a list it is told how many more there are.
pub fn brief(text: impl Into<String>, most: usize) -> String {
    let text = text.into();
    if text.len() <= most {
        return text;
    }
    let between = |at: &usize| text.is_char_boundary(*at);
    let first = (0..=most * 2 / 3).rev().find(between).unwrap_or(0);
    let last = (text.len() - most / 4..text.len()).find(between).unwrap_or(text.len());
    let first = text[..first].rfind(", ").filter(|at| *at > first / 2).unwrap_or(first);
    let left_out = &text[first..last];
    let left_out = match left_out.matches(", ").count() {
        0 | 1 => count(left_out.len(), "byte"),
        items => items.to_string(),
    };
    format!("{} … {left_out} more … {}", &text[..first], &text[last..])
}

/// What does something to a terminal, or to whoever reads it, instead of being a sign.
pub fn is_hostile(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The columns that the text takes, once cleaned.
pub fn width(text: &str) -> usize {
    clean(text).width()
}

/// The text on lines of at most `room` columns, broken at spaces; a longer word is broken after a separator, or where it must be.
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(8);
    let text = clean(text);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            let line = lines.last().map_or(0, |l| l.width());
            let gap = usize::from(line > 0);
            if line + gap + word.width() <= room {
                push(&mut lines, gap, word);
                break;
            }
            // A long word starts on the line at hand if a fair part of it fits there.
            let left = room.saturating_sub(line + gap);
            if word.width() > room && left >= room / 3 {
                let (head, tail) = word.split_at(cut(word, left));
                push(&mut lines, gap, head);
                word = tail;
            }
            lines.push(String::new());
        }
    }
    lines
}

fn push(lines: &mut [String], gap: usize, word: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(if gap > 0 { " " } else { "" });
        line.push_str(word);
    }
}

/// Where to break a word so that its head fits: after the last separator if there is one in the second half, else at the edge. At least one
/// character, so that it ends.
fn cut(word: &str, room: usize) -> usize {
    let mut used = 0;
    let mut edge = 0;
    let mut separator = 0;
    for (at, c) in word.char_indices() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        edge = at + c.len_utf8();
        if matches!(c, '/' | ',' | ':' | '=' | ';' | '|' | '-') && used > room / 2 {
            separator = edge;
        }
    }
    match (separator, edge) {
        (0, 0) => word.chars().next().map_or(0, char::len_utf8),
        (0, edge) => edge,
        (separator, _) => separator,
    }
}

/// The text and spaces up to that many columns.
pub fn pad(text: &str, column: usize) -> String {
    format!("{text}{}", " ".repeat(column.saturating_sub(width(text))))
}

/// `1 step`, `2 steps`.
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// The items in a sentence: `a, b and c`.
pub fn sentence(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A span of microseconds as a person says it: `310 µs`, `4.2 ms`, `1.25 s`, `3 min 5 s`.
pub fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        100_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => format!("{} min {} s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_fit_and_lose_nothing_but_spaces() {
        let text = "bind /var/lib/containers/storage/overlay/0123456789abcdef/merged/rootfs on /run/x, recursive";
        let lines = wrap(text, 30);
        assert!(lines.iter().all(|l| l.width() <= 30), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        assert_eq!(lines[0], "bind /var/lib/containers/");
    }

    #[test]
    fn a_long_message_keeps_its_ends_and_says_how_much_is_between() {
        assert_eq!(brief("short", 10), "short");
        let list: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
        let told = brief(format!("it has {}: remove some", list.join(", ")), 100);
        assert!(told.len() < 120 && told.starts_with("it has 0, 1, 2") && told.ends_with(": remove some"), "{told}");
        assert!(told.contains(" … 49"), "{told}");
        let told = brief("ä".repeat(5000), 100);
        assert!(told.len() < 130 && told.contains(" bytes more … ä"), "{told}");
    }

    #[test]
    fn a_terminal_is_not_at_the_mercy_of_a_name() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\n");
        assert_eq!(Paint { on: true }.style(Style::Green, "\x1b"), "\x1b[32m\\u{1b}\x1b[0m");
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        let told: Vec<String> = [7, 4_270, 310_000, 1_250_000, 185_000_000].map(span).into();
        assert_eq!(told, ["7 µs", "4.2 ms", "310 ms", "1.25 s", "3 min 5 s"]);
    }
}

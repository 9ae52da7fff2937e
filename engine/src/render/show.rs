//! What a run did: its steps with times and outcomes, its critical path, and each step's share of the time.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paint::{Paint, Style, count, pad, sentence, span, width};

/// A step of a run, as its journal or its events tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRun {
    /// The step's address.
    pub address: String,
    /// The kind's name.
    pub kind: String,
    /// How far it got.
    pub state: State,
    /// When it began, in microseconds since the epoch.
    pub start: Option<u64>,
    /// When it ended, in microseconds since the epoch.
    pub end: Option<u64>,
    /// When its undo began and ended, in microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<(u64, Option<u64>)>,
    /// The step that makes the process in which it happened.
    pub site: Option<String>,
    /// The addresses of the steps that it waited for.
    pub after: Vec<String>,
    /// How many effects it has.
    pub effects: u32,
    /// What went wrong, on one line, or another remark.
    pub note: Option<String>,
}

/// How far a step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for others.
    Waiting,
    /// It is being done.
    Running,
    /// It has happened.
    Done,
    /// Its `if` was false.
    Skipped,
    /// It happens when another run releases it.
    Armed,
    /// It failed.
    Failed,
    /// It was stopped; what it did is not known.
    Cancelled,
    /// It is being taken back.
    Undoing,
    /// It was taken back.
    Undone,
    /// It stays on purpose.
    Kept,
    /// It could not be taken back.
    Stuck,
    /// It could not be taken back, and was given up.
    GivenUp,
}

impl State {
    /// The word, its sign and colour.
    pub fn look(self) -> (&'static str, &'static str, Style) {
        match self {
            Self::Waiting => ("waiting", "○", Style::Dim),
            Self::Running => ("running", "▸", Style::Cyan),
            Self::Done => ("done", "✓", Style::Green),
            Self::Skipped => ("skipped", "–", Style::Dim),
            Self::Armed => ("armed", "◇", Style::Yellow),
            Self::Failed => ("failed", "✗", Style::Red),
            Self::Cancelled => ("cancelled", "✗", Style::Yellow),
            Self::Undoing => ("undoing", "◂", Style::Cyan),
            Self::Undone => ("undone", "↶", Style::Blue),
            Self::Kept => ("kept", "•", Style::Yellow),
            Self::GivenUp => ("given up", "!", Style::Yellow),
            Self::Stuck => ("stuck", "!", Style::Red),
        }
    }
}

/// What is to be shown of a run besides its steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHead {
    /// Its id.
    pub id: String,
    /// The plan's name.
    pub plan: String,
    /// The run's state in a word or two.
    pub state: String,
    /// The time for steps that have not ended: now, in microseconds since the epoch.
    pub now: u64,
}

/// The time that the steps took together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The first start.
    pub start: u64,
    /// The last end, or now.
    pub end: u64,
    /// The steps of the critical path, first one first: each began when the one before it had ended, and the last one ended last.
    pub critical: Vec<usize>,
}

impl Times {
    /// Reads the steps. `None` if none has begun.
    pub fn of(steps: &[StepRun], now: u64) -> Option<Self> {
        let end = |s: &StepRun| s.start.map(|start| s.end.unwrap_or(now).max(start));
        let start = steps.iter().filter_map(|s| s.start).min()?;
        let index: HashMap<&str, usize> = steps.iter().enumerate().map(|(i, s)| (s.address.as_str(), i)).collect();
        let (mut at, last) =
            (0..steps.len()).filter_map(|i| Some((i, end(&steps[i])?))).max_by_key(|&(i, e)| (e, i))?;
        let mut critical = vec![at];
        // A damaged journal may claim a cycle; no path is longer than there are steps.
        for _ in 0..steps.len() {
            let mut before: Vec<usize> =
                steps[at].after.iter().filter_map(|a| index.get(a.as_str()).copied()).collect();
            // A site has one thread: its step also waited for the one before it there.
            before.extend(previous(steps, at));
            let began = steps[at].start;
            let latest =
                before.into_iter().filter(|&b| b != at && end(&steps[b]) <= began).max_by_key(|&b| (end(&steps[b]), b));
            match latest {
                Some(b) if steps[b].start.is_some() && !critical.contains(&b) => {
                    critical.push(b);
                    at = b;
                }
                _ => break,
            }
        }
        critical.reverse();
        Some(Self { start, end: last, critical })
    }

    /// Microseconds in all.
    pub fn total(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

fn previous(steps: &[StepRun], at: usize) -> Option<usize> {
    let site = steps[at].site.as_ref()?;
    (0..steps.len())
        .filter(|&i| steps[i].site.as_ref() == Some(site) && steps[i].end.is_some() && steps[i].end <= steps[at].start)
        .max_by_key(|&i| (steps[i].end, i))
}

fn took(step: &StepRun, now: u64) -> Option<u64> {
    step.start.map(|start| step.end.unwrap_or(now).saturating_sub(start))
}

/// The table for a terminal.
pub fn text(head: &RunHead, steps: &[StepRun], color: bool, wide: usize) -> String {
    let paint = Paint { on: color };
    let times = Times::of(steps, head.now);
    let mut out = format!(
        "{}  {}  {}\n",
        paint.style(Style::Bold, &head.id),
        paint.style(Style::Cyan, &head.plan),
        paint.style(Style::Plain, &head.state)
    );
    let column = steps.iter().map(|s| width(&label(s))).max().unwrap_or(0).clamp(4, 30);
    let kinds = steps.iter().map(|s| width(&s.kind)).max().unwrap_or(0).clamp(4, 20);
    // Sign, two columns, state, begin, time, share.
    let bar = wide.saturating_sub(2 + column + 2 + kinds + 2 + 9 + 2 + 9 + 2 + 9 + 2).clamp(0, 24);
    out.push('\n');
    let header =
        format!("  {}  {}  {:<9}  {:>9}  {:>9}  ", pad("step", column), pad("kind", kinds), "state", "began", "took");
    out.push_str(&paint.style(Style::Dim, header.trim_end()));
    out.push('\n');
    for (i, step) in steps.iter().enumerate() {
        let (word, sign, style) = step.state.look();
        let began = times
            .as_ref()
            .zip(step.start)
            .map_or_else(String::new, |(t, s)| format!("+{}", span(s.saturating_sub(t.start))));
        let time = took(step, head.now).map_or_else(String::new, span);
        let critical = times.as_ref().is_some_and(|t| t.critical.contains(&i));
        let name = pad(&label(step), column);
        let row = [
            paint.style(style, sign),
            " ".into(),
            paint.style(if critical { Style::Bold } else { Style::Plain }, &name),
            "  ".into(),
            paint.style(Style::Cyan, &pad(&step.kind, kinds)),
            "  ".into(),
            paint.style(style, &pad(word, 9)),
            paint.style(Style::Dim, &format!("  {began:>9}")),
            format!("  {time:>9}  "),
            drawn(step, times.as_ref(), head.now, bar, critical, paint),
        ];
        out.push_str(row.concat().trim_end());
        out.push('\n');
        if let Some(note) = &step.note {
            let style = if step.state == State::Done { Style::Dim } else { Style::Red };
            push(&mut out, &format!("    {}", paint.style(style, note)));
        }
    }
    if let Some(times) = times {
        out.push_str(&path(steps, &times, head.now, paint));
    }
    out
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

fn label(step: &StepRun) -> String {
    // Indented: it happened inside.
    if step.site.is_some() { format!("│ {}", step.address) } else { step.address.clone() }
}

/// A bar that shows when the step was at work within the whole.
fn drawn(step: &StepRun, times: Option<&Times>, now: u64, wide: usize, critical: bool, paint: Paint) -> String {
    let (Some(times), Some(start), true) = (times, step.start, wide >= 6) else { return String::new() };
    let total = times.total().max(1);
    let cell = |at: u64| ((at.saturating_sub(times.start)) as u128 * wide as u128 / u128::from(total)) as usize;
    let from = cell(start).min(wide - 1);
    let to = cell(step.end.unwrap_or(now)).clamp(from + 1, wide);
    let style = if critical { Style::Yellow } else { Style::Blue };
    format!("{}{}", " ".repeat(from), paint.style(style, &if critical { "█" } else { "▒" }.repeat(to - from)))
}

fn path(steps: &[StepRun], times: &Times, now: u64, paint: Paint) -> String {
    let total = times.total();
    let mut out = format!("\n{}\n", paint.style(Style::Bold, &format!("Critical path, {} in all:", span(total))));
    let rows: Vec<(usize, u64)> = times.critical.iter().filter_map(|&i| Some((i, took(&steps[i], now)?))).collect();
    let column = rows.iter().map(|(i, _)| width(&steps[*i].address)).max().unwrap_or(0).max("between these".len());
    let inside: u64 = rows.iter().map(|(_, time)| time).sum();
    for (i, time) in rows {
        let name = paint.style(Style::Plain, &pad(&steps[i].address, column));
        push(&mut out, &format!("  {name}  {:>9}  {:>5}", span(time), share(time, total)));
    }
    let rest = total.saturating_sub(inside);
    if rest > 0 {
        out.push_str(&paint.style(
            Style::Dim,
            &format!("  {}  {:>9}  {:>5}", pad("between these", column), span(rest), share(rest, total)),
        ));
        out.push('\n');
    }
    let mut states: BTreeMap<State, usize> = BTreeMap::new();
    for step in steps {
        *states.entry(step.state).or_default() += 1;
    }
    let words: Vec<String> = states.iter().map(|(state, n)| format!("{n} {}", state.look().0)).collect();
    push(&mut out, "");
    push(&mut out, &format!("{}: {}.", count(steps.len(), "step"), sentence(&words)));
    out
}

/// In percent, to a tenth.
fn share(part: u64, total: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(total.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// The same as JSON.
pub fn json(head: &RunHead, steps: &[StepRun]) -> Value {
    let times = Times::of(steps, head.now);
    let critical: Vec<&str> = times.iter().flat_map(|t| &t.critical).map(|&i| steps[i].address.as_str()).collect();
    let total = times.as_ref().map_or(0, Times::total);
    json!({ "lifecycle_show": 1, "run": head, "steps": steps, "total_us": total, "critical_path": critical })
}

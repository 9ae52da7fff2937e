//! The dry run as a picture for a browser: a lane for the host and one for each site, time going down. Hovering over a box tells its effects.

use std::fmt::Write;

mod layout;

use layout::{HIGH, Layout, Line, TITLE, WIDE};

use super::model::{DryRun, Step, Why};
use super::paint::{clean, count, width};
use super::text::{WAITS, mark};
use super::view::View;
use crate::effect::Class;
use crate::step::Nature;

/// The height of the head, above the lanes.
const HEAD: f64 = 74.0;

const STYLE: &str = "
text { font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 12px; fill: #1f2933 }
.h1 { font-size: 18px; font-weight: 600 } .dim { fill: #61707f } .name { font-size: 13px; font-weight: 600 }
.small { font-size: 11px } .pill { font-size: 10px; font-weight: 600; fill: #fff }
.box { fill: #fff; stroke: #9aa7b4; stroke-width: 1 } .armed { stroke-dasharray: 5 3 } .skipped { opacity: .45 }
.lane { fill: #f4f6f8; stroke: #dfe5ea } .site { fill: #eaf3fb; stroke: #bcd7ee } .frame { fill: #fbfaf6; stroke: #d9d2bd }
.line { fill: none; stroke-width: 1.4 } .data { stroke: #2f6fb2 } .order { stroke: #8796a5 } .site-line { stroke: #14866d; stroke-width: 2.2 }
";

/// The picture.
pub fn print(run: &DryRun) -> String {
    let view = View::of(run);
    let layout = Layout::of(&view, HEAD);
    let mut page = Page { view: &view, layout: &layout, out: String::new() };
    let about: usize = width(&run.about).max(width(&run.plan));
    let wide = layout.wide.max(about as f64 * 6.8 + 40.0).max(760.0);
    let high = layout.high + 104.0;
    page.put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{high:.0}\" viewBox=\"0 0 {wide:.0} {high:.0}\" role=\"img\">"
    ));
    page.put(&format!("<title>{}</title>", escape(&run.plan)));
    page.put(&format!("<style>{STYLE}</style>"));
    page.put(&arrows());
    page.put(&format!("<rect width=\"{wide:.0}\" height=\"{high:.0}\" fill=\"#fff\"/>"));
    page.head();
    page.lanes();
    layout.lines.iter().for_each(|line| page.line(line));
    view.order.iter().for_each(|&i| page.step(i));
    page.legend(layout.high + 18.0);
    page.put("</svg>");
    page.out
}

fn arrows() -> String {
    let kinds = [Why::Data, Why::Order, Why::Site].map(|why| {
        let (class, color) = kind(why);
        format!(
            "<marker id=\"{class}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"{color}\"/></marker>"
        )
    });
    format!("<defs>{}</defs>", kinds.concat())
}

/// The class in the style sheet, and the colour again for the arrow, which cannot inherit it.
fn kind(why: Why) -> (&'static str, &'static str) {
    match why {
        Why::Data => ("data", "#2f6fb2"),
        Why::Order => ("order", "#8796a5"),
        Why::Site => ("site-line", "#14866d"),
    }
}

fn color(class: Class) -> &'static str {
    match class {
        Class::Reversible => "#2e9e5b",
        Class::Scoped => "#4a90c4",
        Class::Foreign => "#9b51b6",
        Class::Kept => "#b7860b",
        Class::Commit => "#c93535",
    }
}

fn nature(step: &Step) -> (&'static str, &'static str) {
    match step.nature {
        _ if commits(step) => ("commit point", "#c93535"),
        Nature::Pure => ("only reads", "#b8c2cc"),
        Nature::Reversible | Nature::Commit => ("can be taken back", "#2e9e5b"),
        Nature::Waits => ("waits", "#e0a020"),
    }
}

fn commits(step: &Step) -> bool {
    step.nature == Nature::Commit || step.effects.iter().any(|e| e.class == Class::Commit)
}

/// Text for XML: control characters, which XML 1.0 cannot hold, are spelled out.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// As much of the text as fits, by an estimate of its letters' width.
fn fit(text: &str, room: f64, letter: f64) -> String {
    let most = (room / letter).max(2.0) as usize;
    let text = clean(text);
    if width(&text) <= most {
        return text;
    }
    let mut cut = String::new();
    for c in text.chars() {
        if width(&cut) + 2 > most {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

struct Page<'a> {
    view: &'a View<'a>,
    layout: &'a Layout,
    out: String,
}

impl Page<'_> {
    fn put(&mut self, xml: &str) {
        self.out.push_str(xml);
        self.out.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        self.put(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    fn rect(&mut self, (x, y): (f64, f64), (wide, high): (f64, f64), rest: &str) {
        self.put(&format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" {rest}/>"));
    }

    fn head(&mut self) {
        let run = self.view.run;
        let sum = &run.summary;
        self.text(14.0, 28.0, "h1", &run.plan);
        self.text(14.0, 47.0, "", &run.about);
        let mut facts = vec![count(sum.steps, "step"), count(sum.effects, "effect")];
        for (n, what) in [(sum.armed, "armed"), (sum.skipped, "skipped"), (sum.kept, "kept"), (sum.commit, "one-way")] {
            if n > 0 {
                facts.push(format!("{n} {what}"));
            }
        }
        self.text(14.0, 64.0, "dim", &facts.join("  ·  "));
    }

    fn lanes(&mut self) {
        let layout = self.layout;
        let low = layout.high;
        for frame in &layout.frames {
            let y = HEAD + TITLE * frame.depth as f64;
            let end = low + 6.0 - 3.0 * frame.depth as f64;
            self.rect((frame.x, y), (frame.wide, end - y), "rx=\"8\" class=\"frame\"");
            let scope = self.view.scope(frame.scope);
            let label = fit(&format!("{}   plan {}", scope.address, scope.plan), frame.wide - 24.0, 7.4);
            self.text(frame.x + 12.0, y + 19.0, "name", &label);
        }
        let y = HEAD + TITLE * layout.depth as f64;
        for lane in &layout.lanes {
            let (class, label) = match lane.site {
                None => ("lane", "host".to_owned()),
                Some(maker) => ("site", format!("inside ‹{}›", self.view.step(maker).address)),
            };
            self.rect((lane.x, y), (lane.wide, low - y), &format!("rx=\"6\" class=\"{class}\""));
            let label = fit(&label, lane.wide - 20.0, 7.0);
            self.text(lane.x + 10.0, y + 18.0, "dim", &label);
        }
    }

    fn line(&mut self, line: &Line) {
        let (class, _) = kind(line.why);
        let skipped = self.view.step(line.from).skipped || self.view.step(line.to).skipped;
        let faded = if skipped { " skipped" } else { "" };
        let path = rounded(&line.points);
        self.put(&format!("<path d=\"{path}\" class=\"line {class}{faded}\" marker-end=\"url(#{class})\"/>"));
    }

    fn step(&mut self, i: usize) {
        let step = self.view.step(i);
        let (x, y) = self.layout.boxes[i];
        let skipped = if step.skipped { " class=\"skipped\"" } else { "" };
        self.put(&format!("<g{skipped}>"));
        self.put(&format!("<title>{}</title>", self.told(i)));
        let armed = if step.armed { " armed" } else { "" };
        self.rect((x, y), (WIDE, HIGH), &format!("rx=\"5\" class=\"box{armed}\""));
        let (_, fill) = nature(step);
        self.rect((x, y), (5.0, HIGH), &format!("rx=\"2\" fill=\"{fill}\""));
        let left = self.pills(step, x + WIDE - 6.0, y + 7.0);
        let scope = self.layout.lanes.iter().find(|l| l.site == self.view.site[i] && l.x <= x && x < l.x + l.wide);
        let name = self.view.short(i, scope.map_or(0, |l| l.scope));
        self.text(x + 13.0, y + 19.0, "name", &fit(name, left - x - 16.0, 7.9));
        let effects = match step.effects.len() {
            _ if step.skipped => "skipped".to_owned(),
            0 => String::new(),
            n => count(n, "effect"),
        };
        let right = x + WIDE - 8.0;
        let label = escape(&effects);
        self.put(&format!(
            "<text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\" class=\"small dim\">{label}</text>",
            y + 36.0
        ));
        self.text(x + 13.0, y + 36.0, "small dim", &fit(&step.kind, WIDE - 26.0 - effects.len() as f64 * 6.4, 6.4));
        self.put("</g>");
    }

    /// Small labels at the upper right; gives their left end.
    fn pills(&mut self, step: &Step, right: f64, y: f64) -> f64 {
        let of = |class| step.effects.iter().filter(|e| e.class == class).count();
        let main = self.view.run.main.contains(&step.address);
        let pills = [
            (commits(step), "one-way".to_owned(), color(Class::Commit)),
            (main, "main".to_owned(), "#44515e"),
            (step.condition.is_some(), "if".to_owned(), "#e0a020"),
            (step.armed && !commits(step), "armed".to_owned(), "#7a8794"),
            (of(Class::Foreign) > 0, "foreign".to_owned(), color(Class::Foreign)),
            (of(Class::Kept) > 0, format!("{} kept", of(Class::Kept)), color(Class::Kept)),
        ];
        let mut right = right;
        for (_, text, fill) in pills.into_iter().filter(|(shown, ..)| *shown) {
            let wide = text.len() as f64 * 6.7 + 12.0;
            right -= wide;
            self.rect((right, y), (wide, 15.0), &format!("rx=\"7\" fill=\"{fill}\""));
            self.text(right + 6.0, y + 11.0, "pill", &text);
            right -= 3.0;
        }
        right
    }

    fn told(&self, i: usize) -> String {
        let step = self.view.step(i);
        let mut text = format!("{}  {}\n{}", escape(&step.address), escape(&step.kind), escape(&step.place));
        if let Some(condition) = &step.condition {
            let _ = write!(text, "\nonly if {}", escape(condition));
        }
        for effect in &step.effects {
            let (sign, _) = if step.nature == Nature::Waits { WAITS } else { mark(effect.class) };
            let does: Vec<String> = effect.does.lines().map(escape).collect();
            let _ = write!(text, "\n{sign} {}", does.join("\n    "));
        }
        text
    }

    fn legend(&mut self, top: f64) {
        let mut x = 14.0;
        let boxes = [
            ("can be taken back", "#2e9e5b", ""),
            ("only reads", "#b8c2cc", ""),
            ("waits", "#e0a020", ""),
            ("commit point", "#c93535", ""),
            ("armed: happens once released", "#fff", " armed"),
        ];
        for (text, fill, class) in boxes {
            self.rect((x, top), (20.0, 14.0), &format!("rx=\"3\" class=\"box{class}\""));
            self.rect((x, top), (5.0, 14.0), &format!("rx=\"2\" fill=\"{fill}\""));
            self.text(x + 27.0, top + 11.0, "small", text);
            x += 27.0 + text.len() as f64 * 6.2 + 18.0;
        }
        let mut x = 14.0;
        let y = top + 26.0;
        for (why, text) in [
            (Why::Data, "uses what it made or found out"),
            (Why::Order, "comes after it"),
            (Why::Site, "happens in the process that it makes"),
        ] {
            let (class, _) = kind(why);
            let middle = y + 7.0;
            self.put(&format!(
                "<path d=\"M{x:.1} {middle:.1}h22\" class=\"line {class}\" marker-end=\"url(#{class})\"/>"
            ));
            self.text(x + 29.0, y + 11.0, "small", text);
            x += 29.0 + text.len() as f64 * 6.2 + 18.0;
        }
        self.text(
            14.0,
            top + 64.0,
            "small dim",
            "Time goes down; steps side by side may run at the same time. Hover over a step to see its effects.",
        );
    }
}

/// The corners joined by straight lines, each corner rounded.
fn rounded(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let Some(&(x, y)) = points.first() else { return path };
    // Writing to a String cannot fail, here and below.
    let _ = write!(path, "M{x:.1} {y:.1}");
    for k in 1..points.len().saturating_sub(1) {
        let (before, corner, after) = (points[k - 1], points[k], points[k + 1]);
        let radius = |a: (f64, f64), b: (f64, f64)| f64::midpoint((a.0 - b.0).abs(), (a.1 - b.1).abs());
        let r = radius(before, corner).min(radius(corner, after)).min(6.0);
        let (ax, ay) = toward(corner, before, r);
        let (bx, by) = toward(corner, after, r);
        let _ = write!(path, " L{ax:.1} {ay:.1} Q{:.1} {:.1} {bx:.1} {by:.1}", corner.0, corner.1);
    }
    if let Some(&(x, y)) = points.last() {
        let _ = write!(path, " L{x:.1} {y:.1}");
    }
    path
}

/// The point at that distance from `from` on the way to `to`, which is straight across or straight down.
fn toward(from: (f64, f64), to: (f64, f64), distance: f64) -> (f64, f64) {
    let step = |a: f64, b: f64| if (b - a).abs() < f64::EPSILON { 0.0 } else { (b - a).signum() * distance };
    (from.0 + step(from.0, to.0), from.1 + step(from.1, to.1))
}

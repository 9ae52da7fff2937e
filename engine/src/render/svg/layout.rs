//! Where everything goes in the picture.
//!
//! Time goes down: a step stands in the first row below all that it waits for. Each site has a lane of its own, and so has the host, once for each
//! nested plan. Lines run only between the boxes, in channels, and those from one step share their way.

use std::collections::{BTreeMap, HashSet};

use crate::render::model::Why;
use crate::render::view::View;

/// A box's width.
pub const WIDE: f64 = 200.0;
/// A box's height.
pub const HIGH: f64 = 46.0;
/// Space between a lane's border and its boxes.
const PAD: f64 = 16.0;
/// Space between lanes.
const GAP: f64 = 14.0;
/// Space between lines that run side by side.
const TRACK: f64 = 9.0;
/// Space between two rows without lines.
const ROW: f64 = 24.0;
/// How far from a box's middle lines leave and arrive, so that the two are told apart.
const PORT: f64 = 28.0;
/// The height of a group's or a lane's title.
pub const TITLE: f64 = 28.0;

/// A column of boxes that happen in one place.
pub struct Lane {
    /// The scope that it is drawn in.
    pub scope: usize,
    /// The step that makes its site; `None` is the host.
    pub site: Option<usize>,
    /// Columns.
    columns: std::ops::Range<usize>,
    /// Left edge.
    pub x: f64,
    /// Width.
    pub wide: f64,
}

/// The frame around a nested plan.
pub struct Frame {
    /// The scope.
    pub scope: usize,
    /// How many frames are around it.
    pub depth: usize,
    /// Left edge.
    pub x: f64,
    /// Width.
    pub wide: f64,
}

/// A line.
pub struct Line {
    /// The step that is waited for.
    pub from: usize,
    /// The step that waits.
    pub to: usize,
    /// Why.
    pub why: Why,
    /// Its corners.
    pub points: Vec<(f64, f64)>,
}

/// See the module.
pub struct Layout {
    /// From left to right.
    pub lanes: Vec<Lane>,
    /// Outer ones first.
    pub frames: Vec<Frame>,
    /// By step: the upper left corner.
    pub boxes: Vec<(f64, f64)>,
    /// The lines.
    pub lines: Vec<Line>,
    /// How deep frames are nested.
    pub depth: usize,
    /// Width of the whole.
    pub wide: f64,
    /// Lower end of the whole.
    pub high: f64,
}

/// A line's way, before it has coordinates.
enum Way {
    /// Straight down.
    Straight,
    /// Across below the upper box, then down.
    AcrossDown,
    /// Down, then across above the lower box.
    DownAcross,
    /// Across, down between two columns, across.
    Around { channel: usize },
}

/// Places by grid.
struct Grid {
    row: Vec<usize>,
    column: Vec<usize>,
    rows: usize,
    taken: HashSet<(usize, usize)>,
}

impl Layout {
    /// Places everything below `top`.
    pub fn of(view: &View, top: f64) -> Self {
        let mut lanes = lanes(view);
        let grid = Grid::of(view, &mut lanes);
        let ways = ways(view, &grid);
        let columns = lanes.last().map_or(0, |l| l.columns.end);
        let upright = upright(&ways, &grid, columns);
        let (x, frames, wide) = across(view, &mut lanes, &upright);
        let depth = frames.iter().map(|f| f.depth + 1).max().unwrap_or(0);
        let level = level(&ways, &grid, &x, &upright);
        let (y, high) = down(&level, grid.rows, top + TITLE * (depth + 1) as f64);
        let lines = ways.iter().map(|w| line(w, &grid, &x, &y, &upright, &level)).collect();
        let boxes = (0..view.run.steps.len()).map(|i| (x[grid.column[i]], y[grid.row[i]])).collect();
        Self { lanes, frames, boxes, lines, depth, wide, high }
    }
}

/// The lanes of a scope: the host, its sites, then those of the scopes in it.
fn lanes(view: &View) -> Vec<Lane> {
    let mut found: Vec<(usize, Option<usize>)> = Vec::new();
    for &i in &view.order {
        let lane = place(view, i);
        if !found.contains(&lane) {
            found.push(lane);
        }
    }
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..view.run.scopes.len())
        .for_each(|s| view.parent[s].into_iter().for_each(|p| children.entry(p).or_default().push(s)));
    let mut lanes = Vec::new();
    let mut todo = vec![0];
    while let Some(scope) = todo.pop() {
        let mut own: Vec<Option<usize>> = found.iter().filter(|(s, _)| *s == scope).map(|(_, site)| *site).collect();
        own.sort_by_key(|site| site.map(|maker| view.order.iter().position(|&i| i == maker)));
        lanes.extend(own.into_iter().map(|site| Lane { scope, site, columns: 0..0, x: 0.0, wide: 0.0 }));
        todo.extend(children.get(&scope).into_iter().flatten().rev());
    }
    lanes
}

/// A site belongs to the plan that makes it, whoever works in it.
fn place(view: &View, i: usize) -> (usize, Option<usize>) {
    view.site[i].map_or((view.scope[i], None), |maker| (view.scope[maker], Some(maker)))
}

impl Grid {
    fn of(view: &View, lanes: &mut [Lane]) -> Self {
        let n = view.run.steps.len();
        let mut row = vec![0; n];
        for &i in &view.order {
            row[i] = view.after[i].iter().map(|&(a, _)| row[a] + 1).max().unwrap_or(0);
        }
        let mut column = vec![0; n];
        let mut taken = HashSet::new();
        let mut first = 0;
        for lane in lanes {
            let mut members: Vec<usize> =
                view.order.iter().copied().filter(|&i| place(view, i) == (lane.scope, lane.site)).collect();
            members.sort_by_key(|&i| row[i]);
            let mut end = first + 1;
            for i in members {
                // Below what it waits for, if that is in this lane; else in the first free column.
                let above = view.after[i]
                    .iter()
                    .rev()
                    .map(|&(a, _)| column[a])
                    .find(|c| (first..end).contains(c) && row[i] > 0);
                let above =
                    above.filter(|_| view.after[i].iter().any(|&(a, _)| place(view, a) == (lane.scope, lane.site)));
                let mut at = above.filter(|&c| !taken.contains(&(c, row[i]))).unwrap_or(first);
                while taken.contains(&(at, row[i])) {
                    at += 1;
                }
                taken.insert((at, row[i]));
                column[i] = at;
                end = end.max(at + 1);
            }
            lane.columns = first..end;
            first = end;
        }
        let rows = row.iter().max().map_or(0, |r| r + 1);
        Self { row, column, rows, taken }
    }

    /// No box in that column strictly between the rows.
    fn free(&self, column: usize, above: usize, below: usize) -> bool {
        (above + 1..below).all(|row| !self.taken.contains(&(column, row)))
    }
}

struct Routed {
    from: usize,
    to: usize,
    why: Why,
    way: Way,
}

fn ways(view: &View, grid: &Grid) -> Vec<Routed> {
    let mut ways = Vec::new();
    for &to in &view.order {
        for &(from, why) in &view.after[to] {
            let (above, below) = (grid.row[from], grid.row[to]);
            let (left, right) = (grid.column[from], grid.column[to]);
            let way = if left == right && grid.free(left, above, below) {
                Way::Straight
            } else if grid.free(left, above, below) && left != right {
                Way::DownAcross
            } else if grid.free(right, above, below) && left != right {
                Way::AcrossDown
            } else {
                Way::Around { channel: if right < left { left } else { left + 1 } }
            };
            let way = if below == above + 1 && left != right { Way::AcrossDown } else { way };
            ways.push(Routed { from, to, why, way });
        }
    }
    ways
}

/// Lines that run side by side in one channel: which track each has.
#[derive(Default)]
struct Tracks {
    /// By channel: how many there are.
    count: Vec<usize>,
    /// By channel and source.
    of: BTreeMap<(usize, usize), usize>,
}

impl Tracks {
    /// Gives each source's stretch in each channel the first track where it touches no other.
    fn of(channels: usize, stretches: BTreeMap<(usize, usize), (f64, f64)>) -> Self {
        let mut by_channel: BTreeMap<usize, Vec<(f64, f64, usize)>> = BTreeMap::new();
        for ((channel, source), (from, to)) in stretches {
            by_channel.entry(channel).or_default().push((from, to, source));
        }
        let mut tracks = Self { count: vec![0; channels + 1], of: BTreeMap::new() };
        for (channel, mut all) in by_channel {
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
            let mut ends: Vec<f64> = Vec::new();
            for (from, to, source) in all {
                let free = ends.iter().position(|end| *end < from).unwrap_or(ends.len());
                if free == ends.len() {
                    ends.push(to);
                } else {
                    ends[free] = to;
                }
                tracks.of.insert((channel, source), free);
            }
            if let Some(count) = tracks.count.get_mut(channel) {
                *count = ends.len();
            }
        }
        tracks
    }

    fn get(&self, channel: usize, source: usize) -> f64 {
        self.of.get(&(channel, source)).copied().unwrap_or(0) as f64
    }
}

fn widen(stretches: &mut BTreeMap<(usize, usize), (f64, f64)>, key: (usize, usize), a: f64, b: f64) {
    let stretch = stretches.entry(key).or_insert((f64::MAX, f64::MIN));
    *stretch = (stretch.0.min(a).min(b), stretch.1.max(a).max(b));
}

/// Channel `c` is at the left of column `c`.
fn upright(ways: &[Routed], grid: &Grid, columns: usize) -> Tracks {
    let mut stretches = BTreeMap::new();
    for w in ways {
        if let Way::Around { channel } = w.way {
            widen(&mut stretches, (channel, w.from), grid.row[w.from] as f64 + 1.0, grid.row[w.to] as f64);
        }
    }
    Tracks::of(columns, stretches)
}

/// Left edges of the columns, the frames, and the width of the whole; places the lanes too.
fn across(view: &View, lanes: &mut [Lane], upright: &Tracks) -> (Vec<f64>, Vec<Frame>, f64) {
    let path = |scope: usize| -> Vec<usize> {
        let mut path: Vec<usize> =
            std::iter::successors(Some(scope), |&s| view.parent[s]).filter(|&s| view.parent[s].is_some()).collect();
        path.reverse();
        path
    };
    let mut x = GAP;
    let (mut columns, mut frames, mut open): (Vec<f64>, Vec<Frame>, Vec<usize>) = (Vec::new(), Vec::new(), Vec::new());
    for lane in lanes {
        let path = path(lane.scope);
        let common = open.iter().zip(&path).take_while(|(frame, scope)| frames[**frame].scope == **scope).count();
        close(&mut open, &mut frames, common, &mut x);
        for (depth, &scope) in path.iter().enumerate().skip(common) {
            open.push(frames.len());
            frames.push(Frame { scope, depth, x, wide: 0.0 });
            x += GAP;
        }
        lane.x = x;
        x += PAD;
        for column in lane.columns.clone() {
            // The channel at the right of the column before it has its tracks there.
            columns.push(x);
            let tracks = upright.count.get(column + 1).copied().unwrap_or(0);
            x += WIDE + PAD + tracks as f64 * TRACK;
        }
        lane.wide = x - lane.x;
        x += GAP;
    }
    close(&mut open, &mut frames, 0, &mut x);
    (columns, frames, x)
}

fn close(open: &mut Vec<usize>, frames: &mut [Frame], keep: usize, x: &mut f64) {
    while open.len() > keep {
        if let Some(frame) = open.pop() {
            frames[frame].wide = *x - frames[frame].x;
            *x += GAP;
        }
    }
}

fn leave(w: &Routed, grid: &Grid, x: &[f64]) -> f64 {
    x[grid.column[w.from]] + WIDE / 2.0 + PORT
}

fn arrive(w: &Routed, grid: &Grid, x: &[f64]) -> f64 {
    x[grid.column[w.to]] + WIDE / 2.0 - PORT
}

fn between(channel: usize, source: usize, x: &[f64], upright: &Tracks) -> f64 {
    let right_of = channel.checked_sub(1).and_then(|c| x.get(c));
    right_of.map_or(GAP, |left| left + WIDE + PAD / 2.0 + upright.get(channel, source) * TRACK)
}

/// Channel `r` is above row `r`.
fn level(ways: &[Routed], grid: &Grid, x: &[f64], upright: &Tracks) -> Tracks {
    let mut stretches = BTreeMap::new();
    for w in ways {
        let (out, into) = (leave(w, grid, x), arrive(w, grid, x));
        let (first, last) = (grid.row[w.from] + 1, grid.row[w.to]);
        match w.way {
            Way::Straight => {}
            Way::AcrossDown => widen(&mut stretches, (first, w.from), out, into),
            Way::DownAcross => widen(&mut stretches, (last, w.from), out, into),
            Way::Around { channel } => {
                let turn = between(channel, w.from, x, upright);
                widen(&mut stretches, (first, w.from), out, turn);
                widen(&mut stretches, (last, w.from), turn, into);
            }
        }
    }
    Tracks::of(grid.rows, stretches)
}

/// Upper edges of the rows, and the lower end of the last.
fn down(level: &Tracks, rows: usize, top: f64) -> (Vec<f64>, f64) {
    let mut y = top;
    let mut edges = Vec::with_capacity(rows);
    for row in 0..rows {
        let tracks = level.count.get(row).copied().unwrap_or(0).saturating_sub(1);
        y += if row == 0 { PAD } else { ROW + tracks as f64 * TRACK };
        edges.push(y);
        y += HIGH;
    }
    (edges, y + PAD)
}

fn line(routed: &Routed, grid: &Grid, x: &[f64], y: &[f64], upright: &Tracks, level: &Tracks) -> Line {
    let (out, into) = (leave(routed, grid, x), arrive(routed, grid, x));
    let (start, end) = (y[grid.row[routed.from]] + HIGH, y[grid.row[routed.to]]);
    // The tracks of channel `r` start below row `r - 1`.
    let track = |row: usize| y[row - 1] + HIGH + ROW / 2.0 + level.get(row, routed.from) * TRACK;
    let (first, last) = (grid.row[routed.from] + 1, grid.row[routed.to]);
    let points = match routed.way {
        Way::Straight => {
            let middle = x[grid.column[routed.from]] + WIDE / 2.0;
            vec![(middle, start), (middle, end)]
        }
        Way::AcrossDown => vec![(out, start), (out, track(first)), (into, track(first)), (into, end)],
        Way::DownAcross => vec![(out, start), (out, track(last)), (into, track(last)), (into, end)],
        Way::Around { channel } => {
            let turn = between(channel, routed.from, x, upright);
            let (upper, lower) = (track(first), track(last));
            vec![(out, start), (out, upper), (turn, upper), (turn, lower), (into, lower), (into, end)]
        }
    };
    Line { from: routed.from, to: routed.to, why: routed.why, points }
}

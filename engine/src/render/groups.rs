//! The steps as nested groups, for formats that draw them so: a group for each nested plan, and in it one for each site.

use std::collections::BTreeMap;

use super::view::View;

/// What a format has to write, from the outside in.
pub enum Item {
    /// A nested plan begins: an index into the scopes.
    Plan(usize),
    /// A site begins: the step that makes it.
    Site(usize),
    /// A step.
    Step(usize),
    /// What began last ends.
    End,
}

/// All steps, each in its group.
pub fn items(view: &View) -> Vec<Item> {
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..view.run.scopes.len())
        .for_each(|s| view.parent[s].into_iter().for_each(|p| children.entry(p).or_default().push(s)));
    let mut hosts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    // A site belongs to the plan that makes it, whoever works in it.
    let mut sites: BTreeMap<usize, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for &i in &view.order {
        match view.site[i] {
            None => hosts.entry(view.scope[i]).or_default().push(i),
            Some(maker) => sites.entry(view.scope[maker]).or_default().entry(maker).or_default().push(i),
        }
    }
    let mut items = Vec::new();
    let mut todo = vec![(0, true)];
    while let Some((scope, begins)) = todo.pop() {
        if !begins {
            items.push(Item::End);
            continue;
        }
        if view.parent[scope].is_some() {
            items.push(Item::Plan(scope));
            todo.push((scope, false));
        }
        items.extend(hosts.get(&scope).into_iter().flatten().map(|&i| Item::Step(i)));
        for (&maker, steps) in sites.get(&scope).into_iter().flatten() {
            items.push(Item::Site(maker));
            items.extend(steps.iter().map(|&i| Item::Step(i)));
            items.push(Item::End);
        }
        todo.extend(children.get(&scope).into_iter().flatten().rev().map(|&child| (child, true)));
    }
    items
}

use crate::program::{NodeId, Program};

/// Who waits for whom, in two flat arrays: a hundred thousand steps are nothing unusual.
pub(super) struct Dependents {
    starts: Vec<u32>,
    nodes: Vec<NodeId>,
}

impl Dependents {
    pub fn of(program: &Program) -> Self {
        let mut starts = vec![0u32; program.nodes.len() + 1];
        for before in program.nodes.iter().flat_map(|n| n.after.iter()) {
            starts[*before as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        let mut nodes = vec![0; starts.last().copied().unwrap_or(0) as usize];
        for (n, node) in (0..).zip(&program.nodes) {
            for before in &node.after {
                let slot = &mut next[*before as usize];
                nodes[*slot as usize] = n;
                *slot += 1;
            }
        }
        Self { starts, nodes }
    }

    pub fn of_node(&self, n: NodeId) -> &[NodeId] {
        &self.nodes[self.starts[n as usize] as usize..self.starts[n as usize + 1] as usize]
    }
}

//! The order of groups: what is needed first, cycles together.

/// Strongly connected components of the graph `needs`, each after those it needs. Within the constraints the order of
/// the numbers is kept. (Tarjan's algorithm, without recursion.)
pub(crate) fn components(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let n = needs.len();
    let mut index = vec![UNSEEN; n];
    let mut low = vec![0; n];
    let mut on_stack = vec![false; n];
    let mut stack = Vec::new();
    let mut result = Vec::new();
    let mut next = 0;
    // Nodes being visited with the position of the next edge.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for root in 0..n {
        if index[root] != UNSEEN {
            continue;
        }
        path.push((root, 0));
        while let Some((node, edge)) = path.pop() {
            if edge == 0 {
                index[node] = next;
                low[node] = next;
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            } else {
                let child = needs[node][edge - 1];
                if on_stack[child] {
                    low[node] = low[node].min(low[child]);
                }
            }
            if let Some(&child) = needs[node].get(edge) {
                path.push((node, edge + 1));
                if index[child] == UNSEEN {
                    path.push((child, 0));
                } else if on_stack[child] {
                    low[node] = low[node].min(index[child]);
                }
                continue;
            }
            if low[node] == index[node] {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                component.sort_unstable();
                result.push(component);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::components;

    #[test]
    fn needed_groups_come_first_and_cycles_stay_together() {
        assert_eq!(
            components(&[vec![2], vec![], vec![1]]),
            vec![vec![1], vec![2], vec![0]]
        );
        assert_eq!(
            components(&[vec![1], vec![2], vec![0], vec![0]]),
            vec![vec![0, 1, 2], vec![3]]
        );
        assert_eq!(components(&[vec![], vec![]]), vec![vec![0], vec![1]]);
        // Two cycles that share a node, and one that hangs on them.
        assert_eq!(
            components(&[vec![1, 2], vec![0], vec![0, 3], vec![], vec![2]]),
            vec![vec![3], vec![0, 1, 2], vec![4]]
        );
    }

    #[test]
    fn long_chains_do_not_exhaust_the_stack() {
        let needs: Vec<_> = (0..100_000)
            .map(|i| if i == 99_999 { vec![] } else { vec![i + 1] })
            .collect();
        assert_eq!(components(&needs).len(), 100_000);
    }
}

//! The cheapest way to give rows to columns, each at most once: matching predictions to true boxes.
//!
//! Algorithm: shortest augmenting paths with dual prices (Jonker and Volgenant, Computing 38, 1987), in the rectangular
//! form of Crouse (IEEE Trans. Aerosp. Electron. Syst. 52, 2016), which `scipy.optimize.linear_sum_assignment` uses as
//! well. Costs are summed in f64. Time grows with the smaller side squared times the larger.

/// Pairs of row and column of least total cost, by row; as many as the smaller side has.
///
/// A cost that is not finite is worse than all others together: such a pair is taken only where nothing else is left.
///
/// # Panics
/// When `costs` does not hold `rows * cols` values.
pub fn cheapest_assignment(costs: &[f64], rows: usize, cols: usize) -> Vec<(usize, usize)> {
    assert_eq!(costs.len(), rows * cols, "a cost for each of {rows} rows and {cols} columns");
    let largest =
        costs.iter().filter(|cost| cost.is_finite()).fold(0.0f64, |largest, cost| largest.max(cost.abs()));
    let forbidden = (largest + 1.0) * 4.0 * (rows.min(cols) + 1) as f64;
    let finite = |cost: f64| if cost.is_finite() { cost } else { forbidden };
    let mut pairs = if rows <= cols {
        assign_all_rows(rows, cols, |row, col| finite(costs[row * cols + col]))
    } else {
        let mut pairs = assign_all_rows(cols, rows, |row, col| finite(costs[col * cols + row]));
        pairs.iter_mut().for_each(|(row, col)| std::mem::swap(row, col));
        pairs
    };
    pairs.sort_unstable();
    pairs
}

/// A column for every row; there are at least as many columns.
fn assign_all_rows(rows: usize, cols: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize)> {
    let (mut row_price, mut col_price) = (vec![0.0f64; rows], vec![0.0f64; cols]);
    let mut row_of: Vec<Option<usize>> = vec![None; cols];
    let mut col_of = vec![0usize; rows];
    for start in 0..rows {
        // Dijkstra from a row without a column to the nearest column without a row, over costs less prices.
        let mut distance = vec![f64::INFINITY; cols];
        let mut from = vec![start; cols];
        let mut done = vec![false; cols];
        let mut visited = Vec::new(); // columns with a row, in the order they were reached
        let (mut row, mut reached) = (start, 0.0f64);
        let last = loop {
            let mut next: Option<usize> = None;
            for col in (0..cols).filter(|&col| !done[col]) {
                let through = reached + cost(row, col) - row_price[row] - col_price[col];
                if through < distance[col] {
                    distance[col] = through;
                    from[col] = row;
                }
                // Of equals, a column without a row ends the search.
                let better = next.is_none_or(|next: usize| {
                    distance[col] < distance[next]
                        || (distance[col] == distance[next]
                            && row_of[col].is_none()
                            && row_of[next].is_some())
                });
                if better {
                    next = Some(col);
                }
            }
            let col = next.expect("there is a column for every row");
            (reached, done[col]) = (distance[col], true);
            match row_of[col] {
                Some(owner) => {
                    visited.push(col);
                    row = owner;
                }
                None => break col,
            }
        };
        row_price[start] += reached;
        for col in visited {
            row_price[row_of[col].expect("a visited column has a row")] += reached - distance[col];
            col_price[col] -= reached - distance[col];
        }
        // Along the path, every row takes the column it was left by.
        let mut col = last;
        loop {
            let row = from[col];
            row_of[col] = Some(row);
            let left = std::mem::replace(&mut col_of[row], col);
            if row == start {
                break;
            }
            col = left;
        }
    }
    col_of.into_iter().enumerate().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(costs: &[f64], cols: usize, pairs: &[(usize, usize)]) -> f64 {
        pairs.iter().map(|&(row, col)| costs[row * cols + col]).sum()
    }

    /// The least total over all ways, row by row.
    fn least(costs: &[f64], rows: usize, cols: usize, row: usize, taken: &mut Vec<bool>, left: usize) -> f64 {
        if left == 0 {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        if rows - row > left {
            best = least(costs, rows, cols, row + 1, taken, left); // this row gets none
        }
        for col in 0..cols {
            if !taken[col] {
                taken[col] = true;
                best = best.min(costs[row * cols + col] + least(costs, rows, cols, row + 1, taken, left - 1));
                taken[col] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_other_way_is_cheaper(rows in 1usize..6, cols in 1usize..6, whole: bool, values in prop::collection::vec(-5.0f64..5.0, 36)) {
            let costs: Vec<f64> =
                values[..rows * cols].iter().map(|v| if whole { v.round() } else { *v }).collect();
            let pairs = cheapest_assignment(&costs, rows, cols);
            let count = rows.min(cols);
            prop_assert_eq!(pairs.len(), count);
            let distinct = |side: fn(&(usize, usize)) -> usize| {
                pairs.iter().map(side).collect::<std::collections::BTreeSet<_>>().len()
            };
            prop_assert_eq!((distinct(|p| p.0), distinct(|p| p.1)), (count, count));
            let best = least(&costs, rows, cols, 0, &mut vec![false; cols], count);
            prop_assert!((total(&costs, cols, &pairs) - best).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_to_assign() {
        assert_eq!(cheapest_assignment(&[], 0, 5), []);
        assert_eq!(cheapest_assignment(&[], 5, 0), []);
    }

    #[test]
    fn costs_that_are_no_numbers_are_avoided() {
        let nan = f64::NAN;
        assert_eq!(cheapest_assignment(&[nan, 1.0, 2.0, 900.0], 2, 2), [(0, 1), (1, 0)]);
        assert_eq!(cheapest_assignment(&[nan, f64::INFINITY, nan, nan], 2, 2).len(), 2);
        let costs = [1.0, nan, 0.0, nan, nan, nan];
        assert_eq!(cheapest_assignment(&costs, 3, 2).len(), 2);
    }
}

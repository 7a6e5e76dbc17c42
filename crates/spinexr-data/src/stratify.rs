//! Iterative stratification of multi-label data: Sechidis, Tsoumakas and Vlahavas, "On the stratification of
//! multi-label data", ECML PKDD 2011, algorithm 1, for groups of films that must stay together.
//!
//! Deviations: a group counts for each label with its number of films, where the paper has single examples; groups
//! of one label are taken largest first, so that the small ones even out what the large ones leave; and what the
//! paper draws at random is drawn from the seed and the group's name, so that neither the order of input nor the
//! number of other groups matters.

use sha2::{Digest, Sha256};

/// Films that must not be parted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// A name of its own.
    pub name: String,
    /// Number of films.
    pub films: usize,
    /// Number of its films that have each label; as long as that of all other groups.
    pub with_label: Vec<usize>,
}

/// The part of each group, as an index into `shares`, so that films and films of each label are shared out as
/// `shares` ask (positive; they need not add up to 1).
pub fn stratify(groups: &[Group], shares: &[f64], seed: u64) -> Vec<usize> {
    let labels = groups.iter().map(|g| g.with_label.len()).max().unwrap_or(0);
    let whole: f64 = shares.iter().sum();
    let films: usize = groups.iter().map(|g| g.films).sum();
    let mut left_of: Vec<usize> = (0..labels).map(|l| groups.iter().map(|g| g.with_label[l]).sum()).collect();
    // What each part still lacks: films in all, and films of each label.
    let mut lacks: Vec<f64> = shares.iter().map(|share| films as f64 * share / whole).collect();
    let mut lacks_of: Vec<Vec<f64>> =
        shares.iter().map(|share| left_of.iter().map(|&n| n as f64 * share / whole).collect()).collect();

    let mut order: Vec<(std::cmp::Reverse<usize>, [u8; 32], usize)> = groups
        .iter()
        .enumerate()
        .map(|(i, group)| (std::cmp::Reverse(group.films), group_key(seed, &group.name), i))
        .collect();
    order.sort_unstable();
    let mut parts: Vec<Option<usize>> = vec![None; groups.len()];
    loop {
        // The label that is rarest among what is left; of groups without a label, all at the end.
        let rarest = (0..labels).filter(|&l| left_of[l] > 0).min_by_key(|&l| (left_of[l], l));
        let mut any = false;
        for &(_, key, i) in &order {
            let group = &groups[i];
            if parts[i].is_some() || rarest.is_some_and(|l| group.with_label[l] == 0) {
                continue;
            }
            any = true;
            let wish = |part: usize| (rarest.map_or(0.0, |l| lacks_of[part][l]), lacks[part]);
            let tie = |part: usize| key[part % key.len()];
            let part = (0..shares.len())
                .max_by(|&a, &b| {
                    let ((la, fa), (lb, fb)) = (wish(a), wish(b));
                    la.total_cmp(&lb).then(fa.total_cmp(&fb)).then(tie(a).cmp(&tie(b))).then(b.cmp(&a))
                })
                .expect("there is at least one part");
            parts[i] = Some(part);
            lacks[part] -= group.films as f64;
            for l in 0..labels {
                lacks_of[part][l] -= group.with_label[l] as f64;
                left_of[l] -= group.with_label[l];
            }
        }
        if rarest.is_none() || !any {
            return parts.into_iter().map(|part| part.expect("the last round takes what is left")).collect();
        }
    }
}

fn group_key(seed: u64, name: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(name: usize, films: usize, with_label: &[usize]) -> Group {
        Group { name: format!("g{name}"), films, with_label: with_label.to_vec() }
    }

    /// Films of each label in each part.
    fn counts(groups: &[Group], parts: &[usize], n: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; groups[0].with_label.len()]; n];
        for (group, &part) in groups.iter().zip(parts) {
            for (count, with) in counts[part].iter_mut().zip(&group.with_label) {
                *count += with;
            }
        }
        counts
    }

    #[test]
    fn a_rare_label_is_on_every_side() {
        // 200 groups, label 0 on all, label 1 on every tenth, label 2 on four.
        let groups: Vec<Group> =
            (0..200).map(|i| group(i, 1, &[1, usize::from(i % 10 == 0), usize::from(i % 50 == 3)])).collect();
        let parts = stratify(&groups, &[0.5, 0.25, 0.25], 7);
        assert_eq!(counts(&groups, &parts, 3), [[100, 10, 2], [50, 5, 1], [50, 5, 1]]);
    }

    #[test]
    fn folds_are_even_for_labels_that_occur_together() {
        let groups: Vec<Group> = (0..240)
            .map(|i| {
                let films = 1 + i % 3;
                let has = |m: usize| if i % m == 0 { films } else { 0 };
                group(i, films, &[has(2), has(3), has(8), films - has(2)])
            })
            .collect();
        let parts = stratify(&groups, &[1.0; 5], 0);
        let counts = counts(&groups, &parts, 5);
        for label in 0..4 {
            let of: Vec<usize> = counts.iter().map(|c| c[label]).collect();
            let (min, max) = (of.iter().min().unwrap(), of.iter().max().unwrap());
            assert!(max - min <= 3, "label {label}: {of:?}");
        }
    }

    proptest! {
        #[test]
        fn neither_the_order_of_groups_nor_a_seed_of_old_matters(seed in 0u64..50, shift in 0usize..40) {
            let groups: Vec<Group> =
                (0..40).map(|i| group(i, 1 + i % 4, &[i % 2, i % 5 % 2, usize::from(i == 7)])).collect();
            let mut turned = groups.clone();
            turned.rotate_left(shift);
            let mut again = stratify(&turned, &[0.7, 0.3], seed);
            again.rotate_right(shift);
            prop_assert_eq!(stratify(&groups, &[0.7, 0.3], seed), again);
        }
    }

    #[test]
    fn seeds_differ_and_groups_without_a_label_are_shared_out_too() {
        let groups: Vec<Group> = (0..60).map(|i| group(i, 1, &[0])).collect();
        let parts = stratify(&groups, &[0.5, 0.5], 1);
        assert_eq!(parts.iter().filter(|&&p| p == 0).count(), 30);
        assert_ne!(parts, stratify(&groups, &[0.5, 0.5], 2));
        assert_eq!(stratify(&[], &[1.0], 0), Vec::<usize>::new());
    }
}

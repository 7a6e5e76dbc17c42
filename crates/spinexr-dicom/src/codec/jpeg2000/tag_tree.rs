//! Tag trees: numbers of the code blocks of a precinct, coded from the least of all down to each (ITU-T T.800 B.10.2).

use super::packet_bits::PacketBits;

/// What is known of a node: a number it is not below, and whether it is that number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node {
    low: u16,
    known: bool,
}

/// Nodes of a tree over `across` x `down` leaves.
pub(super) fn nodes(across: u32, down: u32) -> usize {
    let (mut width, mut height, mut total) = (across as usize, down as usize, 0);
    loop {
        total += width * height;
        if width * height <= 1 {
            return total;
        }
        (width, height) = (width.div_ceil(2), height.div_ceil(2));
    }
}

/// Reads on until the number of leaf (`x`, `y`) is known or not below `threshold`: the number, if it is below that.
pub(super) fn read(
    nodes: &mut [Node],
    (across, down): (u32, u32),
    (x, y): (u32, u32),
    threshold: u16,
    bits: &mut PacketBits,
) -> Result<Option<u16>, String> {
    // From the root, which comes last, to the leaf.
    let levels = u32::BITS - (across.max(down) - 1).leading_zeros();
    let mut end = nodes.len();
    let mut low = 0;
    for level in (0..=levels).rev() {
        let (width, height) = (across.div_ceil(1 << level), down.div_ceil(1 << level));
        end -= width as usize * height as usize;
        let node = &mut nodes[end + (y >> level) as usize * width as usize + (x >> level) as usize];
        node.low = node.low.max(low);
        while !node.known && node.low < threshold {
            if bits.bit()? == 1 {
                node.known = true;
            } else {
                node.low += 1;
            }
        }
        low = node.low;
    }
    Ok((low < threshold).then_some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes `values` up to each leaf's threshold in turn, and compares what is read.
    #[test]
    fn what_is_coded_is_read() {
        let (across, down) = (5u32, 3u32);
        let values: Vec<u16> = vec![3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9];
        // The tree of least values, level by level.
        let mut levels = vec![(across, down, values.clone())];
        while levels.last().unwrap().2.len() > 1 {
            let (w, h, below) = levels.last().unwrap();
            let (w2, h2) = (w.div_ceil(2), h.div_ceil(2));
            let mut least = vec![u16::MAX; (w2 * h2) as usize];
            for y in 0..*h {
                for x in 0..*w {
                    let at = (y / 2 * w2 + x / 2) as usize;
                    least[at] = least[at].min(below[(y * w + x) as usize]);
                }
            }
            levels.push((w2, h2, least));
        }
        assert_eq!(nodes(across, down), levels.iter().map(|level| level.2.len()).sum::<usize>());
        // The encoder of the definition.
        let mut coded = vec![];
        let mut state: Vec<Vec<(u16, bool)>> = levels.iter().map(|l| vec![(0, false); l.2.len()]).collect();
        let mut steps = vec![];
        for threshold in [1u16, 2, 5, 6, 10] {
            for y in 0..down {
                for x in 0..across {
                    let mut low = 0;
                    for level in (0..levels.len()).rev() {
                        let at = ((y >> level) * levels[level].0 + (x >> level)) as usize;
                        let node = &mut state[level][at];
                        node.0 = node.0.max(low);
                        while !node.1 && node.0 < threshold {
                            if levels[level].2[at] > node.0 {
                                coded.push(0u8);
                                node.0 += 1;
                            } else {
                                coded.push(1);
                                node.1 = true;
                            }
                        }
                        low = node.0;
                    }
                    steps.push((x, y, threshold));
                }
            }
        }
        let mut bytes = vec![];
        let mut pending: Vec<u8> = vec![];
        for bit in coded {
            if pending.is_empty() && bytes.last() == Some(&0xFF) {
                pending.push(0);
            }
            pending.push(bit);
            if pending.len() == 8 {
                bytes.push(pending.drain(..).fold(0, |byte, bit| byte << 1 | bit));
            }
        }
        pending.resize(8, 0);
        bytes.push(pending.iter().fold(0, |byte, bit| byte << 1 | bit));
        let mut tree = vec![Node::default(); nodes(across, down)];
        let mut bits = PacketBits::new(&bytes, 0);
        for (x, y, threshold) in steps {
            let value = values[(y * across + x) as usize];
            let read = read(&mut tree, (across, down), (x, y), threshold, &mut bits).unwrap();
            assert_eq!(read, (value < threshold).then_some(value), "({x}, {y}) below {threshold}");
        }
    }

    #[test]
    fn a_tree_of_one_leaf_is_its_root() {
        assert_eq!(nodes(1, 1), 1);
        let mut tree = [Node::default()];
        let mut bits = PacketBits::new(&[0b0010_0000], 0);
        assert_eq!(read(&mut tree, (1, 1), (0, 0), 9, &mut bits), Ok(Some(2)));
    }
}

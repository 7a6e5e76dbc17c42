//! Contexts of significance and signs, as tables over a sample's neighbourhood (ITU-T T.800 D.3).

use super::mq::SIGNS;

/// Contexts of significance by neighbourhood (T.800 table D.1): of bands low across, high across, high in both.
pub(super) static SIGNIFICANCE: [[u8; 512]; 3] =
    [significance(false, false), significance(true, false), significance(false, true)];

const fn significance(high_across: bool, high_high: bool) -> [u8; 512] {
    let mut table = [0; 512];
    let mut around = 0;
    while around < 512 {
        let bit = [
            around & 1,
            around >> 1 & 1,
            around >> 2 & 1,
            around >> 3 & 1,
            around >> 5 & 1,
            around >> 6 & 1,
            around >> 7 & 1,
            around >> 8 & 1,
        ];
        let diagonal = bit[0] + bit[2] + bit[5] + bit[7];
        let (mut across, mut down) = (bit[3] + bit[4], bit[1] + bit[6]);
        if high_across {
            (across, down) = (down, across);
        }
        table[around] = if high_high {
            match (diagonal, across + down) {
                (0, straight) => {
                    if straight > 2 {
                        2
                    } else {
                        straight as u8
                    }
                }
                (1, straight) => {
                    if straight > 2 {
                        5
                    } else {
                        3 + straight as u8
                    }
                }
                (2, 0) => 6,
                (2, _) => 7,
                _ => 8,
            }
        } else {
            match (across, down, diagonal) {
                (2, _, _) => 8,
                (1, 0, 0) => 5,
                (1, 0, _) => 6,
                (1, _, _) => 7,
                (_, 2, _) => 4,
                (_, 1, _) => 3,
                (_, _, 0) => 0,
                (_, _, 1) => 1,
                _ => 2,
            }
        };
        around += 1;
    }
    table
}

/// Context of a sign, and in bit 7 whether it is flipped, by significance (odd bits) and sign (even bits) of the
/// neighbours above, to the left, to the right and below (T.800 tables D.2 and D.3).
pub(super) static SIGN: [u8; 256] = {
    let mut table = [0; 256];
    let mut around = 0;
    while around < 256 {
        let mut contribution = [0i32; 4];
        let mut i = 0;
        while i < 4 {
            if around >> (2 * i + 1) & 1 == 1 {
                contribution[i] = if around >> (2 * i) & 1 == 1 { -1 } else { 1 };
            }
            i += 1;
        }
        let across = (contribution[1] + contribution[2]).signum();
        let down = (contribution[0] + contribution[3]).signum();
        let flipped = across < 0 || (across == 0 && down < 0);
        let (across, down) = if flipped { (-across, -down) } else { (across, down) };
        let context = SIGNS as i32 + if across == 0 { down } else { 3 + down };
        table[around] = context as u8 | (flipped as u8) << 7;
        around += 1;
    }
    table
};

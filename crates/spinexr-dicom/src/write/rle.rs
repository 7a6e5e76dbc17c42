//! RLE Lossless (PS3.5 annex G) of one 16-bit grey frame.

/// Header of 64 bytes, then the high bytes and the low bytes of all pixels, each row packed for itself.
pub(super) fn encode(pixels: &[u16], width: usize) -> Vec<u8> {
    let mut out = vec![0u8; 64];
    let mut offsets = [0u32; 2];
    let mut plane = vec![0u8; width];
    for (offset, shift) in offsets.iter_mut().zip([8, 0]) {
        *offset = u32::try_from(out.len()).expect("at most 65535 x 65535 packed bytes fit into 32 bits");
        for row in pixels.chunks(width) {
            for (byte, value) in plane.iter_mut().zip(row) {
                *byte = (value >> shift) as u8;
            }
            pack(&plane, &mut out);
        }
        if !out.len().is_multiple_of(2) {
            out.push(0);
        }
    }
    out[..4].copy_from_slice(&2u32.to_le_bytes());
    out[4..8].copy_from_slice(&offsets[0].to_le_bytes());
    out[8..12].copy_from_slice(&offsets[1].to_le_bytes());
    out
}

/// PackBits: a count below 128 heralds `count + 1` literal bytes, one above 128 a byte repeated `257 - count` times.
fn pack(row: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let mut literal_start = 0;
    while at < row.len() {
        let run = row[at..].iter().take(128).take_while(|&&b| b == row[at]).count();
        // A run of two costs as much as a literal and would cut the literal around it.
        if run >= 3 {
            pack_literals(&row[literal_start..at], out);
            out.extend_from_slice(&[(257 - run) as u8, row[at]]);
            at += run;
            literal_start = at;
        } else {
            at += run;
        }
    }
    pack_literals(&row[literal_start..], out);
}

fn pack_literals(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(128) {
        out.push((chunk.len() - 1) as u8);
        out.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_literals() {
        let mut out = Vec::new();
        pack(&[7, 7, 7, 7, 1, 2, 2, 3], &mut out);
        assert_eq!(out, [253, 7, 3, 1, 2, 2, 3]);
    }

    #[test]
    fn a_long_run_is_cut_at_128() {
        let mut out = Vec::new();
        pack(&[0; 130], &mut out);
        assert_eq!(out, [129, 0, 1, 0, 0]);
    }
}

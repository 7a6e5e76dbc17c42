//! JPEG lossless (ITU-T T.81 annex H, transfer syntaxes …4.57 and .70) with one grey component, 2 to 16 bits.
//!
//! Our own decoder beside `jpeg-decoder`'s, which takes more than twice as long: this is the coding of most archives of
//! radiographs. A stream that ends before its last sample is an error.

use super::jpeg_entropy::{Bits, Huffman, HuffmanTables, segment};

/// Decodes one grey frame of `height` x `width` samples of `precision` bits, row-major.
///
/// The caller has compared size, precision and number of components with the frame header.
pub(super) fn decode(stream: &[u8], height: usize, width: usize, precision: u32) -> Result<Vec<u16>, String> {
    let mut tables = HuffmanTables::default();
    let (mut restart_interval, mut identifier, mut at) = (0usize, None, 2);
    loop {
        let (marker, segment, next) = segment(stream, at)?;
        at = next;
        match marker {
            0xC3 => match *segment {
                [_, _, _, _, _, 1, of_frame, ..] => identifier = Some(of_frame),
                _ => return Err("expected a frame header with one component".into()),
            },
            0xC4 => tables.read(segment)?,
            0xDD => {
                let &[high, low] = segment else { return Err("restart interval of a wrong length".into()) };
                restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            0xDA => {
                let &[1, component, selectors, predictor, _, approximation] = segment else {
                    return Err("expected the header of a scan with one component".into());
                };
                if identifier != Some(component) {
                    return Err("the scan names a component that the frame does not have".into());
                }
                if restart_interval % width != 0 {
                    return Err(format!(
                        "a restart interval of {restart_interval} samples, expected whole rows of {width}"
                    ));
                }
                let point_transform = u32::from(approximation & 15);
                if point_transform >= precision {
                    return Err(format!("a point transform by {point_transform} of {precision} bits"));
                }
                let scan = Scan {
                    table: tables.dc(selectors >> 4)?,
                    width,
                    rows_between_restarts: restart_interval / width,
                    start: 1 << (precision - point_transform - 1),
                };
                let mut samples = vec![0; height * width];
                let bits = Bits::new(&stream[at..]);
                // T.81 table H.1; a is the sample to the left, b the one above, c the one above the left.
                match predictor {
                    1 => scan.decode(bits, &mut samples, |a, _, _| a),
                    2 => scan.decode(bits, &mut samples, |_, b, _| b),
                    3 => scan.decode(bits, &mut samples, |_, _, c| c),
                    4 => scan.decode(bits, &mut samples, |a, b, c| a + b - c),
                    5 => scan.decode(bits, &mut samples, |a, b, c| a + ((b - c) >> 1)),
                    6 => scan.decode(bits, &mut samples, |a, b, c| b + ((a - c) >> 1)),
                    7 => scan.decode(bits, &mut samples, |a, b, _| (a + b) >> 1),
                    _ => Err(format!("predictor {predictor}, expected 1 to 7")),
                }?;
                if point_transform > 0 {
                    samples.iter_mut().for_each(|sample| *sample <<= point_transform);
                }
                return Ok(samples);
            }
            0xC0..=0xCF => return Err(format!("coding process of marker FF{marker:02X} is not supported")),
            0xD9 => return Err("the JPEG ends before its scan".into()),
            _ => {}
        }
    }
}

struct Scan<'a> {
    table: &'a Huffman,
    width: usize,
    /// 0 without restart markers.
    rows_between_restarts: usize,
    /// What the first sample is predicted as.
    start: i32,
}

impl Scan<'_> {
    fn decode(
        &self,
        mut bits: Bits<'_>,
        samples: &mut [u16],
        predict: impl Fn(i32, i32, i32) -> i32,
    ) -> Result<(), String> {
        let mut above: &[u16] = &[];
        for (y, row) in samples.chunks_exact_mut(self.width).enumerate() {
            let restarts = self.rows_between_restarts > 0 && y % self.rows_between_restarts == 0;
            if restarts && y > 0 {
                bits.restart()?;
            }
            if restarts || y == 0 {
                // The first row after a start goes by the sample to the left alone.
                let mut left = self.start;
                for sample in row.iter_mut() {
                    *sample = sum(left, self.table.difference(&mut bits)?);
                    left = i32::from(*sample);
                }
            } else {
                let (mut left, mut above_left) = (i32::from(above[0]), i32::from(above[0]));
                // The first column goes by the sample above alone.
                row[0] = sum(left, self.table.difference(&mut bits)?);
                left = i32::from(row[0]);
                for (sample, &above) in row[1..].iter_mut().zip(&above[1..]) {
                    let above = i32::from(above);
                    *sample = sum(predict(left, above, above_left), self.table.difference(&mut bits)?);
                    (left, above_left) = (i32::from(*sample), above);
                }
            }
            above = row;
        }
        Ok(())
    }
}

/// Modulo 2^16 (T.81 H.2.1).
fn sum(prediction: i32, difference: i32) -> u16 {
    (prediction + difference) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A Huffman table of 17 codes of 5 bits: category n is code n.
    fn table() -> Vec<u8> {
        let mut segment = vec![0xFF, 0xC4, 0, 3 + 16 + 17, 0x00, 0, 0, 0, 0, 17];
        segment.extend([0; 11]);
        segment.extend(0..17u8);
        segment
    }

    /// The encoder of the definition: any predictor, point transform and restart interval.
    fn encode(
        pixels: &[u16],
        width: usize,
        precision: u8,
        predictor: u8,
        shift: u8,
        restart_rows: usize,
    ) -> Vec<u8> {
        let height = pixels.len() / width;
        let mut out = vec![0xFF, 0xD8, 0xFF, 0xC3, 0, 11, precision];
        out.extend((height as u16).to_be_bytes());
        out.extend((width as u16).to_be_bytes());
        out.extend([1, 1, 0x11, 0]);
        out.extend(table());
        out.extend([0xFF, 0xDD, 0, 4]);
        out.extend(((restart_rows * width) as u16).to_be_bytes());
        out.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, predictor, 0, shift]);
        let at = |y: usize, x: usize| i32::from(pixels[y * width + x] >> shift);
        let mut bits: Vec<bool> = Vec::new();
        let flush = |bits: &mut Vec<bool>, out: &mut Vec<u8>| {
            while !bits.len().is_multiple_of(8) {
                bits.push(true);
            }
            for byte in bits.chunks(8) {
                let byte = byte.iter().fold(0u8, |byte, &bit| byte << 1 | u8::from(bit));
                out.push(byte);
                if byte == 0xFF {
                    out.push(0);
                }
            }
            bits.clear();
        };
        for y in 0..height {
            let first_row = y == 0 || (restart_rows > 0 && y % restart_rows == 0);
            if first_row && y > 0 {
                flush(&mut bits, &mut out);
                out.extend([0xFF, 0xD0 + ((y / restart_rows - 1) % 8) as u8]);
            }
            for x in 0..width {
                let prediction = match (first_row, x) {
                    (true, 0) => 1 << (precision - shift - 1),
                    (true, _) => at(y, x - 1),
                    (false, 0) => at(y - 1, 0),
                    _ => {
                        let (a, b, c) = (at(y, x - 1), at(y - 1, x), at(y - 1, x - 1));
                        match predictor {
                            1 => a,
                            2 => b,
                            3 => c,
                            4 => a + b - c,
                            5 => a + ((b - c) >> 1),
                            6 => b + ((a - c) >> 1),
                            _ => (a + b) >> 1,
                        }
                    }
                };
                let difference = (at(y, x) - prediction) as i16;
                let magnitude = i32::from(difference).unsigned_abs();
                let category = 32 - magnitude.leading_zeros();
                bits.extend((0..5).rev().map(|bit| category >> bit & 1 == 1));
                if category < 16 {
                    let value = if difference < 0 {
                        i32::from(difference) + (1 << category) - 1
                    } else {
                        difference.into()
                    };
                    bits.extend((0..category).rev().map(|bit| value >> bit & 1 == 1));
                }
            }
        }
        flush(&mut bits, &mut out);
        out.extend([0xFF, 0xD9]);
        out
    }

    proptest! {
        #[test]
        fn every_predictor_transform_and_interval_comes_back(
            width in 1usize..9,
            height in 1usize..9,
            precision in 2u8..=16,
            predictor in 1u8..=7,
            shift in 0u8..3,
            restart_rows in 0usize..4,
            seed in any::<u32>(),
        ) {
            let shift = shift.min(precision - 1);
            let mut state = seed;
            let pixels: Vec<u16> = (0..width * height)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ((state >> 16) as u16 & (u16::MAX >> (16 - precision))) >> shift << shift
                })
                .collect();
            let stream = encode(&pixels, width, precision, predictor, shift, restart_rows);
            prop_assert_eq!(decode(&stream, height, width, precision.into()), Ok(pixels));
            // Every cut is an error, or loses nothing but the end marker and padding.
            for cut in 0..stream.len() - 4 {
                prop_assert!(decode(&stream[..cut], height, width, precision.into()).is_err(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let pixels: Vec<u16> = (0..12).collect();
        let good = encode(&pixels, 4, 8, 1, 0, 0);
        let error = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut stream = good.clone();
            change(&mut stream);
            decode(&stream, 3, 4, 8).unwrap_err()
        };
        let scan = good.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        assert!(error(&|s| s[scan + 7] = 8).contains("predictor 8"));
        assert!(error(&|s| s[scan + 9] = 8).contains("point transform"));
        assert!(error(&|s| s[scan + 6] = 0x30).contains("missing"));
        assert!(error(&|s| s[scan + 5] = 9).contains("component"));
        assert!(error(&|s| s[scan - 1] = 3).contains("whole rows"));
    }
}

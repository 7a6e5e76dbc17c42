//! Grey-value operations of AutoAugment, on films of 16-bit grey.
//!
//! Reference: Pillow's `ImageOps` and `ImageEnhance`, which the published policies are built from. They work on
//! eight-bit colours; here a level of theirs is 257 grey values, and a film has one channel, so `Color` (towards
//! the picture without colour) changes nothing and is not here.

/// One level of an eight-bit picture in grey values of `0..=65535`.
pub(crate) const LEVEL: f64 = 257.0;

/// Pillow's `blend`: from `other` (factor 0) over the picture (1) and beyond, saturating.
fn blend(other: f64, value: u16, factor: f64) -> u16 {
    // The cast saturates.
    (other + factor * (f64::from(value) - other) + 0.5) as u16
}

/// Times `factor`: towards black below 1.
pub(crate) fn brightness(pixels: &mut [u16], factor: f64) {
    pixels.iter_mut().for_each(|v| *v = blend(0.0, *v, factor));
}

/// Towards the mean grey below 1, away from it above.
pub(crate) fn contrast(pixels: &mut [u16], factor: f64) {
    let sum: u64 = pixels.iter().map(|&v| u64::from(v)).sum();
    let mean = sum as f64 / pixels.len().max(1) as f64;
    pixels.iter_mut().for_each(|v| *v = blend(mean, *v, factor));
}

/// Towards a smoothed picture below 1, away from it above. Smoothed: 3 × 3, the middle weighing 5 of 13, the
/// outermost pixels left as they are.
pub(crate) fn sharpness(pixels: &mut [u16], width: usize, factor: f64) {
    let height = pixels.len() / width.max(1);
    if width < 3 || height < 3 {
        return;
    }
    let source = pixels.to_vec();
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let row = |y: usize| {
                let at = y * width + x;
                u32::from(source[at - 1]) + u32::from(source[at]) + u32::from(source[at + 1])
            };
            let at = y * width + x;
            let sum = row(y - 1) + row(y) + row(y + 1) + 4 * u32::from(source[at]);
            pixels[at] = blend(f64::from(sum) / 13.0, source[at], factor);
        }
    }
}

/// Stretches the greys that are there over the whole range.
pub(crate) fn auto_contrast(pixels: &mut [u16]) {
    let (Some(&low), Some(&high)) = (pixels.iter().min(), pixels.iter().max()) else { return };
    if low == high {
        return;
    }
    let scale = 65535.0 / f64::from(high - low);
    pixels.iter_mut().for_each(|v| *v = (f64::from(*v - low) * scale + 0.5) as u16);
}

/// Spreads the greys so that each range of them holds as many pixels. Pillow's rule for 256 levels; between two
/// levels the film's finer greys are interpolated.
pub(crate) fn equalise(pixels: &mut [u16]) {
    let mut counts = [0usize; 256];
    pixels.iter().for_each(|v| counts[usize::from(v >> 8)] += 1);
    let last = counts.iter().rev().find(|c| **c > 0).copied().unwrap_or(0);
    let step = (pixels.len() - last) / 255;
    if step == 0 {
        return;
    }
    let mut below = step / 2;
    let mut table = [0f64; 257];
    for (level, count) in counts.iter().enumerate() {
        table[level] = (below / step).min(255) as f64 * LEVEL;
        below += count;
    }
    table[256] = 65535.0;
    for v in pixels.iter_mut() {
        let (level, part) = (usize::from(*v >> 8), f64::from(*v & 0xFF) / 256.0);
        *v = (table[level] + (table[level + 1] - table[level]).max(0.0) * part + 0.5) as u16;
    }
}

/// Inverts greys from `threshold` (levels of 256) on.
pub(crate) fn solarise(pixels: &mut [u16], threshold: f64) {
    let from = threshold * LEVEL;
    pixels.iter_mut().filter(|v| f64::from(**v) >= from).for_each(|v| *v = 65535 - *v);
}

/// Adds `levels` (of 256) to greys below the middle.
pub(crate) fn solarise_add(pixels: &mut [u16], levels: f64) {
    let added = (levels * LEVEL) as u16;
    pixels.iter_mut().filter(|v| f64::from(**v) < 128.0 * LEVEL).for_each(|v| *v = v.saturating_add(added));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Vec<u16> {
        (0..=255u16).map(|v| v * 257).collect()
    }

    #[test]
    fn enhancers_move_towards_and_away_from_their_other_picture() {
        let mut dark = vec![1000, 40_000];
        brightness(&mut dark, 0.5);
        assert_eq!(dark, [500, 20_000]);
        let mut flat = vec![10_000, 20_000];
        contrast(&mut flat, 0.0);
        assert_eq!(flat, [15_000, 15_000]);
        let mut wide = vec![10_000, 20_000];
        contrast(&mut wide, 2.0);
        assert_eq!(wide, [5_000, 25_000]);
        let mut point = vec![0u16; 25];
        point[12] = 13_000;
        let mut sharp = point.clone();
        sharpness(&mut point, 5, 0.0);
        assert_eq!((point[12], point[11], point[6], point[0]), (5_000, 1_000, 1_000, 0));
        sharpness(&mut sharp, 5, 2.0);
        assert_eq!((sharp[12], sharp[11]), (21_000, 0));
    }

    #[test]
    fn auto_contrast_uses_the_whole_range_and_leaves_a_flat_film() {
        let mut film = vec![10_000, 15_000, 20_000];
        auto_contrast(&mut film);
        assert_eq!(film, [0, 32_768, 65_535]);
        let mut flat = vec![7; 4];
        auto_contrast(&mut flat);
        assert_eq!(flat, [7; 4]);
    }

    #[test]
    fn equalise_evens_out_the_levels() {
        // Each level once is even already; a quadratic ramp comes near it.
        let mut even: Vec<u16> = ramp().into_iter().flat_map(|v| [v; 4]).collect();
        let before = even.clone();
        equalise(&mut even);
        assert!(even.iter().zip(&before).all(|(a, b)| a.abs_diff(*b) <= 2 * 257), "{even:?}");
        let mut curved: Vec<u16> = (0..4096u64).map(|i| (i * i * 65535 / (4095 * 4095)) as u16).collect();
        equalise(&mut curved);
        for (i, v) in curved.iter().enumerate() {
            let expected = i as f64 * 65535.0 / 4095.0;
            assert!((f64::from(*v) - expected).abs() < 0.07 * 65535.0, "{i}: {v} for {expected}");
        }
        assert!(curved.windows(2).all(|w| w[0] <= w[1]), "the order of greys stays");
    }

    #[test]
    fn solarise_inverts_above_and_solarise_add_lifts_below() {
        let mut film = vec![100 * 257, 200 * 257];
        solarise(&mut film, 128.0);
        assert_eq!(film, [100 * 257, 55 * 257]);
        let mut film = ramp();
        solarise(&mut film, 256.0);
        assert_eq!(film, ramp());
        let mut film = vec![100 * 257, 127 * 257, 200 * 257];
        solarise_add(&mut film, 110.0);
        assert_eq!(film, [210 * 257, 237 * 257, 200 * 257]);
    }
}

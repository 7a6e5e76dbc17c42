//! Against a direct sum in f64, over random shapes, on every instruction set of this CPU.

use super::*;

/// Same seed, same numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn shape(n: usize, groups: usize, i: usize, o: usize, input: [usize; 2], k: [[usize; 2]; 4]) -> ConvShape {
    let [kernel, stride, padding, dilation] = k;
    let output = core::array::from_fn(|d| {
        (input[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) / stride[d] + 1
    });
    ConvShape { n, groups, i, o, input, output, kernel, stride, padding, dilation }
}

/// Call `visit(x index, weight index, y index)` for every product of the convolution.
fn products(s: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let ([h, w], [oh, ow], [kh, kw]) = (s.input, s.output, s.kernel);
    for n in 0..s.n {
        for g in 0..s.groups {
            for o in 0..s.o {
                for (r, c) in (0..oh).flat_map(|r| (0..ow).map(move |c| (r, c))) {
                    for i in 0..s.i {
                        for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                            let y = (r * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.padding[0]);
                            let x = (c * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.padding[1]);
                            if y < h && x < w {
                                visit(
                                    ((n * s.groups + g) * s.i + i) * h * w + y * w + x,
                                    (((g * s.o + o) * s.i + i) * kh + ky) * kw + kx,
                                    ((n * s.groups + g) * s.o + o) * oh * ow + r * ow + c,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[track_caller]
fn assert_close(what: &str, s: &ConvShape, isa: Isa, got: &[f32], expected: &[f64], terms: usize) {
    let tolerance = 4e-7 * (terms as f64).sqrt().max(1.0) * 8.0;
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(got) - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what} [{index}] = {got}, expected {expected}; {s:?} on {isa:?}"
        );
    }
}

fn run(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    // NaN marks what a kernel should have written and did not.
    let mut out = vec![MaybeUninit::new(f32::NAN); len];
    write(&mut out);
    // SAFETY: every value was set to NaN first.
    out.into_iter().map(|value| unsafe { value.assume_init() }).collect()
}

fn check(s: &ConvShape, random: &mut Random) {
    let x = random.values(s.n * s.groups * s.i * s.input[0] * s.input[1]);
    let weight = random.values(s.groups * s.o * s.i * s.kernel_taps());
    let bias = random.values(s.groups * s.o);
    let pixels = s.output[0] * s.output[1];
    let dy = random.values(s.n * s.groups * s.o * pixels);

    let mut y = vec![0.0f64; dy.len()];
    for (at, value) in y.iter_mut().enumerate() {
        *value = f64::from(bias[at / pixels % (s.groups * s.o)]);
    }
    let (mut dx, mut dw) = (vec![0.0f64; x.len()], vec![0.0f64; weight.len()]);
    products(s, |ix, iw, iy| {
        y[iy] += f64::from(x[ix]) * f64::from(weight[iw]);
        dx[ix] += f64::from(dy[iy]) * f64::from(weight[iw]);
        dw[iw] += f64::from(dy[iy]) * f64::from(x[ix]);
    });

    let films = |data| Films { data, stride: data.len() / s.n };
    for isa in Isa::available() {
        let got = run(y.len(), |out| forward(isa, s, films(&x), &weight, Some(&bias), out));
        assert_close("y", s, isa, &got, &y, s.i * s.kernel_taps());

        let got = run(x.len(), |out| input_grad(isa, s, films(&dy), &weight, out));
        assert_close("dx", s, isa, &got, &dx, s.o * s.kernel_taps());

        let mut got = vec![f32::NAN; dw.len()];
        weight_grad(isa, s, films(&x), films(&dy), &mut got);
        assert_close("dw", s, isa, &got, &dw, s.n * pixels);
    }

    let mut db = vec![0.0; bias.len()];
    bias_grad(s.n, pixels, films(&dy), &mut db);
    for (o, got) in db.iter().enumerate() {
        let expected: f64 = (0..s.n)
            .flat_map(|n| &dy[(n * bias.len() + o) * pixels..][..pixels])
            .map(|&v| f64::from(v))
            .sum();
        assert!((f64::from(*got) - expected).abs() < 1e-4 * expected.abs().max(1.0), "db[{o}] for {s:?}");
    }
}

#[test]
fn random_shapes_agree_with_the_direct_sum() {
    let mut random = Random(1);
    let mut done = 0;
    while done < 150 {
        let mut pick = |from: usize, n: usize| from + random.below(n);
        let kernel = [pick(1, 4), pick(1, 4)];
        let stride = [pick(1, 3), pick(1, 3)];
        let padding = [pick(0, 4), pick(0, 4)];
        let dilation = [pick(1, 2), pick(1, 2)];
        let input = [pick(1, 19), pick(1, 40)];
        if (0..2).any(|d| input[d] + 2 * padding[d] < dilation[d] * (kernel[d] - 1) + 1) {
            continue;
        }
        let (n, groups, i, o) = (pick(1, 3), pick(1, 3), pick(1, 9), pick(1, 15));
        check(&shape(n, groups, i, o, input, [kernel, stride, padding, dilation]), &mut random);
        done += 1;
    }
}

#[test]
fn known_layers_agree_with_the_direct_sum() {
    let mut random = Random(2);
    let one = [1, 1];
    for s in [
        shape(2, 1, 70, 13, [9, 11], [one, one, [0, 0], one]), // pointwise, tail of positions
        shape(1, 1, 3, 20, [41, 37], [[7, 7], [2, 2], [3, 3], one]), // stem
        shape(2, 1, 16, 24, [13, 8], [one, [2, 2], [0, 0], one]), // projection shortcut
        shape(3, 12, 1, 1, [10, 9], [[3, 3], one, one, one]),  // depthwise
        shape(1, 1, 1, 1, [5, 5], [one, one, [2, 2], one]),    // padding around a pointwise kernel
        shape(1, 1, 2, 3, [4, 300], [[3, 3], one, one, one]),
    ] {
        check(&s, &mut random);
    }
}

#[test]
fn winograd_and_products_agree_with_the_direct_sum() {
    let mut random = Random(6);
    let one = [1, 1];
    for round in 0..40 {
        let mut pick = |from: usize, n: usize| from + random.below(n);
        let (n, i, o) = (pick(1, 3), pick(8, 25), pick(8, 25));
        let (input, padding) = ([pick(5, 30), pick(5, 40)], [pick(0, 4), pick(0, 4)]);
        let s = shape(n, 1, i, o, input, [[3, 3], one, padding, one]);
        if round == 0 {
            let s = shape(n, 1, i, o, [9, 17], [[3, 3], one, one, one]);
            assert!(s.winograd_forward().is_some() && s.winograd_input_grad().is_some());
        }
        check(&s, &mut random);
    }
    // More tiles than a chunk holds, so that a weight gradient is the sum of several.
    check(&shape(2, 1, 9, 10, [70, 90], [[3, 3], one, one, one]), &mut random);
    for (n, groups, i, o, input) in [(5, 1, 200, 9, [3, 5]), (2, 3, 10, 140, [7, 7]), (1, 1, 1, 1, [1, 1])] {
        check(&shape(n, groups, i, o, input, [one, one, [0, 0], one]), &mut random);
    }
}

#[test]
fn many_channels_are_cut_into_blocks() {
    let mut random = Random(3);
    let one = [1, 1];
    for (i, o, input, k) in [
        (300, 40, [6, 30], [[3, 3], one, one, one]),
        (700, 9, [5, 50], [one, one, [0, 0], one]),
        (130, 7, [12, 200], [[3, 3], one, one, one]),
    ] {
        let s = shape(1, 1, i, o, input, k);
        let shifts = s.flattened().forward();
        let tiling = shifts.tiling(i, SOURCE_BUDGET, o, TARGET_BUDGET, 2);
        assert!(tiling.channel_block < i || shifts.tiles(&tiling).len() > 1, "{tiling:?} cuts nothing");
        check(&s, &mut random);
    }
}

#[test]
fn a_slice_of_channels_is_read_in_place() {
    let mut random = Random(4);
    let one = [1, 1];
    let s = shape(3, 1, 5, 4, [8, 9], [[3, 3], one, one, one]);
    // The five channels are channels 2..7 of an eight-channel tensor.
    let wide = random.values(3 * 8 * 72);
    let weight = random.values(4 * 5 * 9);
    let narrow: Vec<f32> = (0..3).flat_map(|n| wide[n * 576 + 144..][..360].to_vec()).collect();
    let convolve = |data, stride| {
        run(3 * 4 * 72, |out| forward(Isa::best(), &s, Films { data, stride }, &weight, None, out))
    };
    assert_eq!(convolve(&wide[144..], 576), convolve(&narrow, 360));
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let mut random = Random(5);
    let one = [1, 1];
    for k in [[[3, 3], [1, 2], one, one], [[3, 3], one, one, one], [one, one, [0, 0], one]] {
        threads_agree(&shape(3, 1, 20, 24, [40, 33], k), &mut random);
    }
}

fn threads_agree(s: &ConvShape, random: &mut Random) {
    let x = random.values(3 * 20 * 40 * 33);
    let weight = random.values(24 * 20 * s.kernel_taps());
    let dy = random.values(3 * 24 * s.output[0] * s.output[1]);
    let films = |data| Films { data, stride: data.len() / 3 };
    let passes = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let isa = Isa::best();
            let y = run(dy.len(), |out| forward(isa, s, films(&x), &weight, None, out));
            let dx = run(x.len(), |out| input_grad(isa, s, films(&dy), &weight, out));
            let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; 24]);
            weight_grad(isa, s, films(&x), films(&dy), &mut dw);
            bias_grad(3, s.output[0] * s.output[1], films(&dy), &mut db);
            [y, dx, dw, db].map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        })
    };
    let alone = passes(1);
    assert_eq!(alone, passes(2));
    assert_eq!(alone, passes(5));
}

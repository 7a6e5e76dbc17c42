//! Films a second on one thread.

use divan::Bencher;
use spinexr_synth::plan::Study;
use spinexr_synth::{Film, render_film};

fn main() {
    divan::main();
}

// One film of every region and view comes up in eight studies.
fn films(height_px: u32) -> impl FnMut() -> spinexr_synth::FilmSpec {
    let mut next = 0u64;
    move || {
        next += 1;
        let study = Study::draw(1, next % 8, true);
        study.film(next as usize % study.views.len(), height_px)
    }
}

#[divan::bench(args = [2455, 768, 384], sample_count = 16, sample_size = 1)]
fn render(bencher: Bencher, height_px: u32) {
    bencher.with_inputs(films(height_px)).bench_local_values(|spec| -> Film { render_film(&spec) });
}

#[divan::bench(args = [2455, 768])]
fn layout(bencher: Bencher, height_px: u32) {
    bencher.with_inputs(films(height_px)).bench_local_values(|spec| spinexr_synth::film::lay_out(&spec));
}

//! Sixteen small films with a bright square on the abnormal ones, prepared in a temporary folder.

use image::{GrayImage, Luma};
use spinexr_core::progress::silent;
use spinexr_core::{Annotation, BoxXyxy, FilmAnnotation, Finding, Split};
use spinexr_data::{Dataset, Film, HoldOut, SplitDataset};
use spinexr_train::{Experiment, TrainData, TrainError};
use std::path::Path;

/// An experiment on the films under `dir`, small enough for a test.
pub fn experiment(architecture: &str, dir: &Path, sets: &[&str]) -> Experiment {
    let text = format!(
        r#"
name = "tiny"
protocol = "improved"
seed = 7

[data]
dir = "nowhere"
cache_dir = {cache:?}
validation_fraction = 0.25
split_seed = 0
policy = "standard"
train_on = "all"

[model]
architecture = "{architecture}"
in_channels = 1
input = {{ height_px = 64, width_px = 48, fit = "letterbox" }}
normalisation = {{ mean = [0.5], std = [0.25] }}

[optimiser]
lr = 2e-3
weight_decay = 0.01
weight_decay_norms = 0.0
weight_decay_biases = 0.0
rule = {{ adamw = {{ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }} }}

[schedule]
total_steps = 12
warmup_steps = 3
warmup_start = 0.1
decay = {{ cosine = {{ final_factor = 0.1 }} }}

[training]
batch_size = 4
accumulation = 1
clip = {{ global_norm = 5.0 }}
ema = {{ decay = 0.9, ramp_steps = 5.0 }}
eval_every = 4
checkpoint_every = 5

[augment]
flip = 0.5
brightness = 0.1
"#,
        cache = dir.join("prepared"),
    );
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Experiment::parse(&text, Path::new("tiny.toml"), &sets).unwrap()
}

/// Draws and prepares the films of `experiment` under `dir`.
pub fn films(dir: &Path, experiment: &Experiment) -> TrainData {
    prepare(experiment, draw(dir)).unwrap()
}

/// Draws the films under `dir`: twelve to train on, four to validate on.
pub fn draw(dir: &Path) -> Dataset {
    let mut dataset = Dataset::default();
    for i in 0..16u32 {
        let abnormal = i % 2 == 0;
        let (x, y) = (8 + 5 * (i % 7), 10 + 7 * (i % 5));
        let film = GrayImage::from_fn(72, 96, |px, py| {
            let inside = abnormal && (x..x + 24).contains(&px) && (y..y + 30).contains(&py);
            Luma([if inside { 230 } else { (40 + (px * 3 + py * 5 + i * 11) % 60) as u8 }])
        });
        let path = dir.join(format!("film{i:02}.png"));
        film.save(&path).unwrap();
        let xyxy = BoxXyxy::new(x as f32, y as f32, (x + 24) as f32, (y + 30) as f32);
        let annotation = FilmAnnotation {
            image_id: format!("film{i:02}"),
            study_id: format!("study{}", i / 2),
            series_id: String::new(),
            abnormal,
            boxes: if abnormal {
                vec![Annotation { label: Finding::SurgicalImplant.label(), xyxy }]
            } else {
                vec![]
            },
        };
        let split = if i < 12 { Split::Train } else { Split::Validation };
        dataset.films.push(Film { path, annotation, split });
    }
    dataset
}

/// Prepares films for `experiment`.
pub fn prepare(experiment: &Experiment, dataset: Dataset) -> Result<TrainData, TrainError> {
    let data = &experiment.data;
    let hold_out = HoldOut::of(&dataset, data.validation_fraction, data.split_seed);
    let split = SplitDataset { dataset, hold_out };
    let splits = [Split::Train, Split::Validation];
    let inputs = [(data.policy, experiment.model.input)];
    let ready = split.prepare(&splits, &data.cache_dir, &inputs, 1, &silent)?;
    TrainData::open(experiment, &ready)
}

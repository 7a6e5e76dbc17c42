//! A small release of DICOM films, from its annotation files to batches, and a preparation that is killed.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong here is a failed test")]

use spinexr_core::progress::silent;
use spinexr_core::{BoxXyxy, Split};
use spinexr_data::{
    AugmentConfig, Cache, Dataset, Fit, FixedBatches, InputSize, Loader, LoaderConfig, Sampler,
    SamplerConfig, Share, SplitDataset, cache, prepare_film, split, vindr,
};
use spinexr_dicom::{DxFilm, DxSyntax, Limits, Policy, ReadOptions, read_film, write_dx};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const SQUARE: InputSize = InputSize { height_px: 32, width_px: 32, fit: Fit::Stretch };
const TALL: InputSize = InputSize { height_px: 48, width_px: 32, fit: Fit::Letterbox };

/// Writes 12 films of six studies to train on and four of two to test on.
fn write_release(dir: &Path) {
    let header = "study_id,series_id,image_id,rad_id,lesion_type,xmin,ymin,xmax,ymax\n";
    std::fs::create_dir_all(dir.join("annotations")).unwrap();
    for (part, studies) in [("train", 6usize), ("test", 2)] {
        let mut rows = header.to_owned();
        let images = dir.join(format!("{part}_images"));
        std::fs::create_dir_all(&images).unwrap();
        for i in 0..2 * studies {
            let id = format!("{part}{i:02}");
            let marks = if i % 4 < 2 { "No finding,,,," } else { "Osteophytes,10.5,20,39.5,400" };
            rows.push_str(&format!("{part}-s{},e{i},{id},rad1,{marks}\n", i / 2));
            write_dx(&images.join(format!("{id}.dicom")), &film(i)).unwrap();
        }
        std::fs::write(dir.join(format!("annotations/{part}.csv")), rows).unwrap();
    }
}

/// A film of 90 × 60 px, each in another transfer syntax or polarity.
fn film(i: usize) -> DxFilm {
    let pixels =
        (0..90u32 * 60).map(|p| ((p % 60 * 50 + p / 60 * 7 + i as u32 * 91) % 4096) as u16).collect();
    let syntaxes = [
        DxSyntax::ExplicitLe,
        DxSyntax::ImplicitLe,
        DxSyntax::Deflated,
        DxSyntax::RleLossless,
        DxSyntax::JpegLossless,
    ];
    DxFilm {
        monochrome1: i % 3 == 1,
        windows: vec![(2048.0, 4096.0)],
        window_center_raw: (i == 4).then(|| "2048,".to_owned()),
        transfer_syntax: syntaxes[i % syntaxes.len()],
        ..DxFilm::new(90, 60, pixels)
    }
}

fn options(policy: Policy) -> ReadOptions {
    ReadOptions { policy, ..ReadOptions::default() }
}

fn assert_holds(cache: &Cache, data: &Dataset, policy: Policy) {
    for film in &data.films {
        let expected = prepare_film(&read_film(&film.path, &options(policy)).unwrap(), &cache.input());
        assert_eq!(cache.get(&film.annotation.image_id).unwrap(), expected);
    }
}

#[test]
fn a_broken_film_is_left_out_and_moves_no_study() {
    let dir = tempfile::tempdir().unwrap();
    write_release(dir.path());
    let inputs = [(Policy::Vindr, SQUARE), (Policy::Standard, TALL)];
    let ready = || {
        let split = SplitDataset::read(dir.path(), None, 0.34, 5).unwrap();
        let splits = [Split::Train, Split::Validation];
        split.prepare(&splits, &dir.path().join("cache"), &inputs, 2, &silent).unwrap()
    };
    let sound = ready();
    assert!(sound.left_out.is_empty(), "{:?}", sound.left_out);
    assert_eq!((sound.dataset.of(Split::Train).count(), sound.dataset.of(Split::Validation).count()), (8, 4));
    assert_eq!(sound.dataset.of(Split::Test).count(), 0, "nobody asked for them");
    assert_eq!(sound.dataset.read.clipped_boxes, 6);
    let boxes = || sound.dataset.films.iter().flat_map(|f| &f.annotation.boxes);
    assert!(boxes().count() == 6 && boxes().all(|b| b.xyxy.y2 == 90.0), "a film is 90 px high");
    for (policy, input) in inputs {
        let cache = Cache::open(&dir.path().join("cache"), &input, policy).unwrap();
        assert_holds(&cache, &sound.dataset, policy);
    }

    let broken = sound.dataset.films[2].clone();
    std::fs::write(&broken.path, b"no film").unwrap();
    let rest = ready();
    let [failure] = rest.left_out.as_slice() else { panic!("one film is broken: {:?}", rest.left_out) };
    assert_eq!((&failure.image_id, &failure.path), (&broken.annotation.image_id, &broken.path));
    assert!(failure.error.contains(broken.path.to_str().unwrap()), "{}", failure.error);
    let expected: Vec<_> = sound.dataset.films.into_iter().filter(|f| f.path != broken.path).collect();
    assert_eq!(rest.dataset.films, expected);
    assert_eq!(rest.hold_out, sound.hold_out);

    // Another process takes what this one has prepared, and leaves out the same film.
    let split = SplitDataset::read(dir.path(), None, 0.34, 5).unwrap();
    let splits = [Split::Train, Split::Validation];
    let other = split.prepared(&splits, &dir.path().join("cache"), &inputs).unwrap();
    assert_eq!((other.dataset.films, other.hold_out), (rest.dataset.films, rest.hold_out));
    assert_eq!(other.left_out.len(), 1);
    assert_eq!(other.left_out[0].image_id, broken.annotation.image_id);
}

#[test]
fn from_release_to_batches() {
    let dir = tempfile::tempdir().unwrap();
    write_release(dir.path());
    let mut data = vindr::read(dir.path()).unwrap();
    assert_eq!((data.films.len(), data.of(Split::Test).count()), (16, 4));
    let unread = vindr::clip_to_films(&mut data, &vindr::VindrOptions::new(), &Limits::default(), 2);
    assert!(unread.is_empty(), "{unread:?}");
    assert_eq!(data.read.clipped_boxes, 8);
    split::hold_out_validation(&mut data, 0.34, 5).unwrap();
    split::check_leakage(&data).unwrap();
    assert_eq!(data.of(Split::Validation).count(), 4);

    let store = dir.path().join("cache");
    for policy in [Policy::Vindr, Policy::Standard] {
        let outcome = cache::prepare(&data, &store, &[SQUARE, TALL], &options(policy), 2, &silent).unwrap();
        assert_eq!((outcome.prepared, outcome.failures.len()), (16, 0), "{:?}", outcome.failures);
        for input in [SQUARE, TALL] {
            assert_holds(&Cache::open(&store, &input, policy).unwrap(), &data, policy);
        }
    }
    let cache = Arc::new(Cache::open(&store, &TALL, Policy::Standard).unwrap());
    let films = data.annotations(Split::Train);
    let mut loader = Loader::new(LoaderConfig {
        cache: Arc::clone(&cache),
        sampler: Sampler::new(&SamplerConfig::shuffled(), &films).unwrap(),
        films,
        classes: data.classes.clone(),
        augment: Some(AugmentConfig::mild()),
        batch_size: 4,
        seed: 3,
        first_step: 0,
        share: Share::ALL,
        threads: 2,
        prefetch: 2,
    })
    .unwrap();
    let mut drawn: Vec<String> = (0..2).flat_map(|_| loader.next().unwrap().image_ids).collect();
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 8, "two batches of four are the eight training films, once each");

    let test = data.annotations(Split::Test);
    let batch = FixedBatches::new(cache, test, &data.classes, 8, 1, 1).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.abnormal, [false, false, true, true]);
    let input_box = batch.boxes[2][0].xyxy;
    let film_box = batch.maps[2].to_film(&input_box);
    assert!(film_box.iou(&BoxXyxy::new(10.5, 20.0, 39.5, 90.0)) > 0.999, "{film_box:?}");
}

/// The other half of `killed_in_the_middle`: run by it as a process of its own, and only then at work.
#[test]
fn prepare_as_a_child() {
    let Ok(dir) = std::env::var("SPINEXR_TEST_PREPARE") else { return };
    let dir = Path::new(&dir);
    let data = vindr::read(dir).unwrap();
    let tell = |p: spinexr_core::progress::Progress| println!("\nprepared {}", p.done);
    cache::prepare(&data, &dir.join("cache"), &[SQUARE], &options(Policy::Vindr), 2, &tell).unwrap();
}

#[test]
fn killed_in_the_middle_and_taken_up_again() {
    for kill_after in [0, 1, 5, 11] {
        let dir = tempfile::tempdir().unwrap();
        write_release(dir.path());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "prepare_as_a_child", "--nocapture"])
            .env("SPINEXR_TEST_PREPARE", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = format!("prepared {kill_after}");
        assert!(lines.map(Result::unwrap).any(|line| line == wanted), "the child never came to {wanted:?}");
        child.kill().unwrap(); // SIGKILL where there are signals
        child.wait().unwrap();

        let data = vindr::read(dir.path()).unwrap();
        let store = dir.path().join("cache");
        let outcome = cache::prepare(&data, &store, &[SQUARE], &options(Policy::Vindr), 2, &silent).unwrap();
        assert_eq!(outcome.prepared + outcome.reused, 16);
        assert!(outcome.reused >= kill_after, "{outcome:?} after {kill_after}");
        let resumed = Cache::open(&store, &SQUARE, Policy::Vindr).unwrap();
        assert_holds(&resumed, &data, Policy::Vindr);

        let whole = dir.path().join("uninterrupted");
        cache::prepare(&data, &whole, &[SQUARE], &options(Policy::Vindr), 1, &silent).unwrap();
        let films: Vec<_> = data.films.iter().map(|f| f.annotation.clone()).collect();
        let uninterrupted = Cache::open(&whole, &SQUARE, Policy::Vindr).unwrap();
        assert_eq!(resumed.data_hash(&films).unwrap(), uninterrupted.data_hash(&films).unwrap());
    }
}

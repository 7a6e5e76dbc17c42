use super::*;
use crate::cache::prepare;
use crate::resize::{Fit, InputSize};
use crate::test_films::dataset;
use crate::{FixedBatches, SamplerConfig};
use spinexr_core::ClassList;
use spinexr_core::progress::silent;
use spinexr_dicom::{Policy, ReadOptions};

const INPUT: InputSize = InputSize { height_px: 30, width_px: 24, fit: Fit::Letterbox };

fn cache(n: usize) -> (Arc<Cache>, Vec<FilmAnnotation>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), n);
    let options = ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() };
    prepare(&data, &dir.path().join("cache"), &[INPUT], &options, 2, &silent).unwrap();
    let cache = Cache::open(&dir.path().join("cache"), &INPUT, Policy::Vindr).unwrap();
    (Arc::new(cache), data.films.into_iter().map(|f| f.annotation).collect(), dir)
}

fn config(cache: &Arc<Cache>, films: &[FilmAnnotation], first_step: u64, threads: usize) -> LoaderConfig {
    LoaderConfig {
        cache: Arc::clone(cache),
        films: films.to_vec(),
        classes: ClassList::vindr(),
        sampler: Sampler::new(&SamplerConfig::paper_detector(), films).unwrap(),
        augment: Some(AugmentConfig::mild()),
        batch_size: 4,
        seed: 11,
        first_step,
        share: Share::ALL,
        threads,
        prefetch: 3,
    }
}

fn take(config: LoaderConfig, n: usize) -> Vec<Batch> {
    let mut loader = Loader::new(config).unwrap();
    (0..n).map(|_| loader.next().unwrap()).collect()
}

#[test]
fn batches_do_not_depend_on_threads_and_resume_at_any_step() {
    let (cache, films, _dir) = cache(10);
    let one = take(config(&cache, &films, 0, 1), 12);
    let four = take(config(&cache, &films, 0, 4), 12);
    assert!(one == four, "one thread and four give different batches");
    let resumed = take(config(&cache, &films, 5, 2), 7);
    assert!(one[5..] == resumed[..], "a resumed loader gives different batches");
    let steps: Vec<u64> = one.iter().map(|b| b.step).collect();
    assert_eq!(steps, (0..12).collect::<Vec<_>>());
    assert_ne!(one[0].images, one[3].images);
    let reseeded = take(LoaderConfig { seed: 12, ..config(&cache, &films, 0, 2) }, 1);
    assert_ne!(reseeded[0].images, one[0].images);
}

#[test]
fn the_shares_of_a_step_are_the_batch_of_one_process() {
    let (cache, films, _dir) = cache(10);
    let whole = take(LoaderConfig { batch_size: 6, ..config(&cache, &films, 2, 2) }, 3);
    let share =
        |rank| LoaderConfig { batch_size: 2, share: Share { rank, of: 3 }, ..config(&cache, &films, 2, 2) };
    let shares: Vec<Vec<Batch>> = (0..3).map(|rank| take(share(rank), 3)).collect();
    for (step, whole) in whole.iter().enumerate() {
        let parts = || shares.iter().map(|batches| &batches[step]);
        assert_eq!(parts().flat_map(|b| b.image_ids.clone()).collect::<Vec<_>>(), whole.image_ids);
        assert_eq!(parts().flat_map(|b| b.images.clone()).collect::<Vec<_>>(), whole.images);
        assert_eq!(parts().flat_map(|b| b.boxes.clone()).collect::<Vec<_>>(), whole.boxes);
        let draws: Vec<u64> = parts().map(|b| b.draw).collect();
        assert!(draws[0] != draws[1] && draws[1] != draws[2], "processes draw alike: {draws:?}");
    }
    assert_eq!(Loader::new(share(0)).unwrap().steps_per_epoch(), 2);
    assert!(Loader::new(share(3)).is_err());
}

#[test]
fn a_batch_has_the_shapes_it_names() {
    let (cache, films, _dir) = cache(6);
    for batch in take(config(&cache, &films, 0, 2), 6) {
        assert_eq!((batch.n, batch.height, batch.width), (4, 30, 24));
        assert_eq!(batch.images.len(), 4 * 30 * 24);
        assert!(batch.images.iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!(batch.boxes.len(), 4);
        for (i, id) in batch.image_ids.iter().enumerate() {
            let film = films.iter().find(|f| f.image_id == *id).unwrap();
            assert_eq!(batch.abnormal[i], film.abnormal);
            assert!(film.abnormal || batch.boxes[i].is_empty());
            assert_eq!(batch.film_sizes_px[i], (60, 40));
            assert_eq!(batch.content_px[i], (30, 20));
            assert_eq!(batch.maps[i], INPUT.map(60, 40));
        }
    }
}

#[test]
fn fixed_batches_give_every_film_once_in_order_unchanged() {
    let (cache, films, _dir) = cache(10);
    for threads in [1, 3] {
        let batches: Vec<Batch> =
            FixedBatches::new(Arc::clone(&cache), films.clone(), &ClassList::vindr(), 4, threads, 2)
                .unwrap()
                .map(Result::unwrap)
                .collect();
        assert_eq!(batches.iter().map(|b| b.n).collect::<Vec<_>>(), [4, 4, 2]);
        let ids: Vec<&String> = batches.iter().flat_map(|b| &b.image_ids).collect();
        assert_eq!(ids, films.iter().map(|f| &f.image_id).collect::<Vec<_>>());
        let images: Vec<f32> = batches.iter().flat_map(|b| b.images.clone()).collect();
        let expected: Vec<f32> =
            films.iter().flat_map(|f| cache.get(&f.image_id).unwrap().to_unit()).collect();
        assert_eq!(images, expected);
        let film_box = films[1].boxes[0].xyxy;
        assert_eq!(batches[0].boxes[1][0].xyxy, INPUT.map(60, 40).to_input(&film_box));
    }
    assert_eq!(FixedBatches::new(cache, vec![], &ClassList::vindr(), 4, 1, 1).unwrap().count(), 0);
}

#[test]
fn a_damaged_film_is_an_error_of_its_batch_alone() {
    let (cache, films, dir) = cache(8);
    let path = dir.path().join("cache/vindr-30x24-letterbox/films.u16");
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[len - 10] ^= 0xFF;
    std::fs::write(&path, bytes).unwrap();
    let batches: Vec<_> = FixedBatches::new(cache, films, &ClassList::vindr(), 2, 2, 2).unwrap().collect();
    assert_eq!(batches.len(), 4);
    let errors: Vec<_> = batches.iter().filter_map(|b| b.as_ref().err()).collect();
    assert_eq!(errors.len(), 1);
    assert!(matches!(errors[0], DataError::Damaged { .. }), "{}", errors[0]);
}

#[test]
fn a_panic_in_a_worker_becomes_an_error_and_the_next_step_follows() {
    let make = |step: u64| {
        assert!(step != 1, "step one is cursed");
        Ok(Batch {
            step,
            images: vec![],
            n: 0,
            height: 0,
            width: 0,
            image_ids: vec![],
            abnormal: vec![],
            boxes: vec![],
            maps: vec![],
            film_sizes_px: vec![],
            content_px: vec![],
            draw: 0,
        })
    };
    let mut batches = Prefetcher::start(Arc::new(make), 0, 3, 2, 2).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().step, 0);
    let error = batches.next().unwrap().unwrap_err();
    assert!(matches!(&error, DataError::Panicked { message, .. } if message.contains("cursed")), "{error}");
    assert_eq!(batches.next().unwrap().unwrap().step, 2);
    assert!(batches.next().is_none());
}

#[test]
fn no_more_is_made_ahead_than_asked_for_and_dropping_ends_the_threads() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let (cache, films, _dir) = cache(2);
    let make = move |step: u64| {
        counter.fetch_add(1, Ordering::SeqCst);
        let input = cache.input();
        make_batch(step, 0, &input, &[&films[0]], |_| {
            Example::read(&cache, &input, &films[0], &ClassList::vindr())
        })
    };
    let mut batches = Prefetcher::start(Arc::new(make), 0, u64::MAX, 4, 3).unwrap();
    for _ in 0..5 {
        batches.next().unwrap().unwrap();
    }
    drop(batches); // joins the workers
    let total = made.load(Ordering::SeqCst);
    assert!((5..=8).contains(&total), "{total}");
    assert_eq!(Arc::strong_count(&made), 1, "a worker is still alive");
}

#[test]
fn settings_that_cannot_work_are_refused_before_any_thread_starts() {
    let (cache, films, _dir) = cache(4);
    let base = || config(&cache, &films, 0, 1);
    assert!(Loader::new(LoaderConfig { batch_size: 0, ..base() }).is_err());
    assert!(Loader::new(LoaderConfig { films: films[1..].to_vec(), ..base() }).is_err());
    let changes = AugmentConfig { flip: 7.0, ..AugmentConfig::none() };
    assert!(Loader::new(LoaderConfig { augment: Some(changes), ..base() }).is_err());
    let mut unknown = films.clone();
    unknown[0].image_id = "stranger".to_owned();
    let error = Loader::new(LoaderConfig { films: unknown, ..base() }).err().unwrap();
    assert!(matches!(&error, DataError::NotPrepared { image_id, .. } if image_id == "stranger"), "{error}");
    assert_eq!(Loader::new(LoaderConfig { batch_size: 3, ..base() }).unwrap().steps_per_epoch(), 2);
}

/// Everything at once, on films of which every third class is rare.
fn all_changes() -> AugmentConfig {
    AugmentConfig {
        auto_augment: Some(crate::AutoAugmentPolicy::V2),
        sizes: vec![0.5, 0.75, 1.0],
        mosaic: 0.5,
        copy_paste: 0.5,
        copy_paste_below: 0.3,
        ..AugmentConfig::mild()
    }
}

#[test]
fn batches_with_every_change_are_a_function_of_seed_and_step() {
    let (cache, films, _dir) = cache(12);
    let with = |first, threads| LoaderConfig {
        augment: Some(all_changes()),
        ..config(&cache, &films, first, threads)
    };
    let one = take(with(0, 1), 12);
    assert!(one == take(with(0, 4), 12), "one thread and four give different batches");
    assert!(one[5..] == take(with(5, 2), 7)[..], "a resumed loader gives different batches");
    let mut sizes: Vec<(usize, usize)> = one.iter().map(|b| (b.height, b.width)).collect();
    for batch in &one {
        assert_eq!(batch.images.len(), batch.n * batch.height * batch.width);
        for (boxes, abnormal) in batch.boxes.iter().zip(&batch.abnormal) {
            assert!(boxes.is_empty() || *abnormal, "a film with a finding is abnormal");
            let (w, h) = (batch.width as f32, batch.height as f32);
            assert!(boxes.iter().all(|b| b.xyxy.is_proper() && b.xyxy.clip(w, h) == b.xyxy), "{boxes:?}");
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [(15, 12), (23, 18), (30, 24)], "each of the three sizes comes in twelve batches");
    let boxes = |batches: &[Batch]| batches.iter().flat_map(|b| &b.boxes).map(Vec::len).sum::<usize>();
    let plain = LoaderConfig { augment: None, ..config(&cache, &films, 0, 1) };
    assert!(boxes(&one) > boxes(&take(plain, 12)), "mosaic and copy-paste show more findings");
}

#[test]
fn switching_one_change_off_leaves_the_others_as_they_were() {
    let (cache, films, _dir) = cache(12);
    let with = |changes| take(LoaderConfig { augment: Some(changes), ..config(&cache, &films, 0, 1) }, 8);
    let flips = AugmentConfig { sizes: vec![0.5, 1.0], ..AugmentConfig::flip_only() };
    let with_mosaic = with(AugmentConfig { mosaic: 0.5, ..flips.clone() });
    let same = with(flips)
        .iter()
        .zip(&with_mosaic)
        .flat_map(|(a, b)| {
            assert_eq!((a.height, a.width), (b.height, b.width), "sizes do not depend on mosaics");
            let pixels = a.height * a.width;
            let (a, b) = (a.images.chunks(pixels), b.images.chunks(pixels));
            a.zip(b).map(|(a, b)| a == b).collect::<Vec<_>>()
        })
        .filter(|same| *same)
        .count();
    assert!((8..24).contains(&same), "about half of 32 films are no mosaic: {same} unchanged");
}

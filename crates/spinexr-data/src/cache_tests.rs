use super::*;
use crate::resize::{Fit, prepare_film};
use crate::test_films::{dataset, write_film};
use crate::{Dataset, vindr};
use spinexr_core::progress::{Progress, silent};
use spinexr_dicom::{ReadOptions, read_film};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

const SMALL: InputSize = InputSize { height_px: 24, width_px: 16, fit: Fit::Stretch };
const SQUARE: InputSize = InputSize { height_px: 32, width_px: 32, fit: Fit::Letterbox };

fn vindr_options() -> ReadOptions {
    ReadOptions { policy: Policy::Vindr, ..ReadOptions::default() }
}

fn run(data: &Dataset, dir: &Path, inputs: &[InputSize]) -> PrepareOutcome {
    prepare(data, dir, inputs, &vindr_options(), 2, &silent).unwrap()
}

fn annotations(data: &Dataset) -> Vec<FilmAnnotation> {
    data.films.iter().map(|f| f.annotation.clone()).collect()
}

/// Every film as the cache should give it.
fn assert_equals_films(cache: &Cache, data: &Dataset) {
    assert_eq!(cache.len(), data.films.len());
    for film in &data.films {
        let expected = prepare_film(&read_film(&film.path, &vindr_options()).unwrap(), &cache.input());
        assert_eq!(cache.get(&film.annotation.image_id).unwrap(), expected);
    }
}

struct Prepared {
    data: Dataset,
    films: tempfile::TempDir,
    cache: tempfile::TempDir,
}

fn prepared(n: usize, inputs: &[InputSize]) -> Prepared {
    let films = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let data = dataset(films.path(), n);
    let outcome = run(&data, cache.path(), inputs);
    assert_eq!(outcome, PrepareOutcome { prepared: n, ..PrepareOutcome::default() });
    Prepared { data, films, cache }
}

#[test]
fn films_come_out_as_prepared_from_memory_and_from_disk() {
    let p = prepared(7, &[SMALL, SQUARE]);
    for input in [SMALL, SQUARE] {
        let cache = Cache::open(p.cache.path(), &input, Policy::Vindr).unwrap();
        assert_equals_films(&cache, &p.data);
        assert_equals_films(&cache, &p.data); // now from memory
        assert_equals_films(&cache.with_memory_limit(0), &p.data);
    }
    let cache = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    assert_eq!(cache.film_size_px("film003"), Some((60, 40)));
    assert_eq!(cache.provenance("film003").unwrap()["policy"], "vindr");
    assert_eq!(cache.image_ids()[..2], ["film000", "film001"]);
}

#[test]
fn a_second_run_decodes_nothing_and_a_new_input_only_what_it_lacks() {
    let p = prepared(5, &[SMALL]);
    let reused = PrepareOutcome { reused: 5, ..PrepareOutcome::default() };
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL, SMALL]), reused);
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL, SQUARE]).prepared, 5);
    let before = fs::metadata(p.cache.path().join("vindr-24x16-stretch/films.u16")).unwrap().len();
    assert_eq!(before, 5 * 24 * 16 * 2, "films that were there are not written again");
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL, SQUARE]), reused);
}

#[test]
fn a_film_whose_file_changed_is_made_again() {
    let p = prepared(4, &[SMALL]);
    write_film(&p.data.films[2].path, 50, 30, 99);
    let outcome = run(&p.data, p.cache.path(), &[SMALL]);
    assert_eq!((outcome.prepared, outcome.reused, outcome.dropped), (1, 3, 1));
    assert_equals_films(&Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap(), &p.data);
}

#[test]
fn another_part_of_the_data_set_adds_to_what_is_there() {
    let mut p = prepared(6, &[SMALL]);
    let rest = Dataset { films: p.data.films.split_off(3), ..Dataset::default() };
    assert_eq!(run(&rest, p.cache.path(), &[SMALL]).reused, 3);
    let cache = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    assert_eq!(cache.len(), 6);
}

#[test]
fn unreadable_films_are_listed_and_the_rest_goes_on() {
    let films = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut data = dataset(films.path(), 6);
    fs::write(&data.films[1].path, b"no film at all").unwrap();
    data.films[4].path = PathBuf::from("/nowhere/film004.png");
    let calls = AtomicUsize::new(0);
    let last = AtomicUsize::new(0);
    let on_progress = |p: Progress| {
        calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(p.total, 6);
        last.store(p.done, Ordering::Relaxed);
    };
    let outcome = prepare(&data, dir.path(), &[SMALL], &vindr_options(), 3, &on_progress).unwrap();
    assert_eq!(outcome.prepared, 4);
    let ids: Vec<_> = outcome.failures.iter().map(|f| f.image_id.as_str()).collect();
    assert_eq!(ids, ["film001", "film004"]);
    assert!(outcome.failures[1].error.contains("film004.png"), "{:?}", outcome.failures[1]);
    assert_eq!((calls.into_inner(), last.into_inner()), (7, 6));
    let cache = Cache::open(dir.path(), &SMALL, Policy::Vindr).unwrap();
    assert_eq!(cache.len(), 4);
    let error = cache.get("film001").unwrap_err();
    assert!(matches!(&error, DataError::NotPrepared { image_id, .. } if image_id == "film001"), "{error}");
}

#[test]
fn a_kill_at_any_moment_is_made_good() {
    // Whatever a kill leaves is a prefix of each file, because both are only appended to; a power cut may
    // leave either one shorter.
    let p = prepared(6, &[SMALL]);
    let folder = p.cache.path().join("vindr-24x16-stretch");
    let whole = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    let hash = whole.data_hash(&annotations(&p.data)).unwrap();
    let (index, pixels) =
        (fs::read(folder.join("index.log")).unwrap(), fs::read(folder.join("films.u16")).unwrap());
    for step in 0..40u64 {
        let dir = tempfile::tempdir().unwrap();
        let torn = dir.path().join("vindr-24x16-stretch");
        fs::create_dir(&torn).unwrap();
        let cut = |len: usize, salt: u64| crate::mix::scatter2(step, salt) as usize % (len + 1);
        let (index_len, pixels_len) = (cut(index.len(), 1), cut(pixels.len(), 2));
        fs::write(torn.join("index.log"), &index[..index_len]).unwrap();
        fs::write(torn.join("films.u16"), &pixels[..pixels_len]).unwrap();
        let outcome = run(&p.data, dir.path(), &[SMALL]);
        assert_eq!(outcome.prepared + outcome.reused, 6);
        let cache = Cache::open(dir.path(), &SMALL, Policy::Vindr).unwrap();
        assert_equals_films(&cache, &p.data);
        assert_eq!(cache.data_hash(&annotations(&p.data)).unwrap(), hash);
        assert_eq!(run(&p.data, dir.path(), &[SMALL]).reused, 6);
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_repaired() {
    let p = prepared(5, &[SMALL]);
    let folder = p.cache.path().join("vindr-24x16-stretch");
    let path = folder.join("films.u16");
    let mut bytes = fs::read(&path).unwrap();
    bytes[24 * 16 * 2 * 3 + 100] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    let cache = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    let damaged = annotations(&p.data).iter().filter(|f| cache.get(&f.image_id).is_err()).count();
    assert_eq!(damaged, 1);
    let error = p.data.films.iter().find_map(|f| cache.get(&f.annotation.image_id).err()).unwrap();
    assert!(matches!(&error, DataError::Damaged { .. }), "{error}");
    let outcome = run(&p.data, p.cache.path(), &[SMALL]);
    assert_eq!((outcome.prepared, outcome.reused, outcome.dropped), (1, 4, 1));
    assert_equals_films(&Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap(), &p.data);

    let index = folder.join("index.log");
    let mut bytes = fs::read(&index).unwrap();
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    fs::write(&index, bytes).unwrap();
    assert_eq!(Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap().len(), 4);
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL]).prepared, 1);
}

#[test]
fn a_cache_of_another_version_is_refused_and_made_anew() {
    let p = prepared(2, &[SMALL]);
    let path = p.cache.path().join("vindr-24x16-stretch/index.log");
    let text = fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let own = format!("\"version\":{}", crate::cache_index::VERSION);
    assert!(first.contains(&own), "{first}");
    let json = first[9..].replace(&own, "\"version\":99");
    fs::write(&path, format!("{:08x} {json}\n{rest}", crc32fast::hash(json.as_bytes()))).unwrap();
    let error = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap_err();
    assert!(
        matches!(&error, DataError::Layout { .. }) && error.to_string().contains("version: 99"),
        "{error}"
    );
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL]).prepared, 2);
    assert_equals_films(&Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap(), &p.data);
}

#[test]
fn what_was_not_prepared_is_said_so() {
    let p = prepared(1, &[SMALL]);
    let error = Cache::open(p.cache.path(), &SQUARE, Policy::Vindr).unwrap_err();
    assert!(matches!(error, DataError::NoCache { .. }), "{error}");
    let error = Cache::open(p.cache.path(), &SMALL, Policy::Standard).unwrap_err();
    assert!(error.to_string().contains("`standard` at 24x16 stretch"), "{error}");
    let options = vindr_options();
    assert!(prepare(&p.data, p.cache.path(), &[], &options, 1, &silent).is_err());
    let mut twice = p.data.clone();
    twice.films.push(twice.films[0].clone());
    let error = prepare(&twice, p.cache.path(), &[SMALL], &options, 1, &silent).unwrap_err();
    assert!(matches!(error, DataError::ImageTwice { .. }), "{error}");
}

#[test]
fn two_runs_at_once_are_refused() {
    let p = prepared(1, &[SMALL]);
    let lock = fs::File::open(p.cache.path().join("vindr-24x16-stretch/lock")).unwrap();
    lock.lock().unwrap();
    let error = prepare(&p.data, p.cache.path(), &[SMALL], &vindr_options(), 1, &silent).unwrap_err();
    assert!(matches!(error, DataError::CacheBusy { .. }), "{error}");
    drop(lock);
    assert_eq!(run(&p.data, p.cache.path(), &[SMALL]).reused, 1);
}

#[test]
fn the_data_hash_tells_pixels_and_annotations_apart_but_not_orders() {
    let p = prepared(4, &[SMALL]);
    let cache = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    let mut films = annotations(&p.data);
    let hash = cache.data_hash(&films).unwrap();
    assert_eq!(hash.len(), 64);
    films.reverse();
    assert_eq!(cache.data_hash(&films).unwrap(), hash);
    // Prepared elsewhere, on one thread, in another order: the same.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut data = p.data.clone();
    data.films.reverse();
    prepare(&data, elsewhere.path(), &[SMALL], &vindr_options(), 1, &silent).unwrap();
    let other = Cache::open(elsewhere.path(), &SMALL, Policy::Vindr).unwrap();
    assert_eq!(other.data_hash(&films).unwrap(), hash);

    films[0].boxes[0].xyxy.x1 += 1.0;
    assert_ne!(cache.data_hash(&films).unwrap(), hash);
    assert_ne!(cache.data_hash(&films[1..]).unwrap(), hash);
    write_film(&p.films.path().join("film002.png"), 60, 40, 77);
    run(&p.data, p.cache.path(), &[SMALL]);
    let changed = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    assert_ne!(changed.data_hash(&annotations(&p.data)).unwrap(), hash);
}

#[test]
fn boxes_are_clipped_to_sizes_from_the_cache() {
    let mut p = prepared(2, &[SMALL]);
    p.data.films[1].annotation.boxes[0].xyxy.x2 = 400.0;
    let cache = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    let least = vindr::VindrOptions::new().min_box_px;
    p.data.clip_boxes(least, |f| cache.film_size_px(&f.annotation.image_id));
    assert_eq!(p.data.films[1].annotation.boxes[0].xyxy.x2, 40.0);
    assert_eq!(p.data.read.clipped_boxes, 1);
}

#[test]
fn eight_bits_are_half_the_disk_and_stay_what_the_folder_has() {
    let p = prepared(4, &[SMALL]);
    let sixteen = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    let folder = p.cache.path().join("vindr-24x16-stretch");
    let run_as =
        |depth| prepare_as(&p.data, p.cache.path(), &[SMALL], &vindr_options(), depth, 2, &silent).unwrap();
    assert_eq!((sixteen.depth(), run_as(None).reused), (PixelDepth::U16, 4));
    let outcome = run_as(Some(PixelDepth::U8));
    assert_eq!((outcome.prepared, outcome.dropped), (4, 4));
    assert_eq!(fs::metadata(folder.join("films.u8")).unwrap().len(), 4 * 24 * 16);
    assert!(!folder.join("films.u16").exists());
    // A caller without a wish, as training is, takes what is there.
    assert_eq!(run_as(None).reused, 4);
    let eight = Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap();
    assert_eq!(eight.depth(), PixelDepth::U8);
    for id in eight.image_ids() {
        // Half a step of 8 bits is 128.5 of the 16.
        let (wide, narrow) =
            (p.data.films.iter().find(|f| f.annotation.image_id == id).unwrap(), eight.get(id).unwrap());
        let wide = prepare_film(&read_film(&wide.path, &vindr_options()).unwrap(), &SMALL);
        let largest = wide.pixels.iter().zip(&narrow.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(largest <= 128, "{largest}");
        assert_eq!((narrow.film_height_px, narrow.map), (wide.film_height_px, wide.map));
    }
    assert_eq!(run_as(Some(PixelDepth::U16)).prepared, 4);
    assert_equals_films(&Cache::open(p.cache.path(), &SMALL, Policy::Vindr).unwrap(), &p.data);
}

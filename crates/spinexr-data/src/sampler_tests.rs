use super::*;
use crate::test_films::annotation;
use proptest::prelude::*;
use spinexr_core::{Annotation, BoxXyxy, Finding};

fn with_labels(labels: &[Finding]) -> FilmAnnotation {
    let xyxy = BoxXyxy::new(0.0, 0.0, 9.0, 9.0);
    FilmAnnotation {
        abnormal: !labels.is_empty(),
        boxes: labels.iter().map(|f| Annotation { label: f.label(), xyxy }).collect(),
        ..annotation(0)
    }
}

fn counts(sampler: &Sampler, seed: u64, epochs: u64) -> Vec<usize> {
    let mut counts = vec![0; sampler.films()];
    for position in 0..epochs * sampler.epoch_len() {
        counts[sampler.index(seed, position)] += 1;
    }
    counts
}

#[test]
fn repeat_factors_are_those_of_lvis() {
    // 100 films: osteophytes on 64, collapse on 1, implants on 4 (one with osteophytes), the rest normal.
    let mut films = vec![with_labels(&[Finding::Osteophytes]); 63];
    films.push(with_labels(&[Finding::Osteophytes, Finding::SurgicalImplant]));
    films.extend(vec![with_labels(&[Finding::SurgicalImplant]); 3]);
    films.push(with_labels(&[Finding::VertebralCollapse]));
    films.extend(vec![with_labels(&[]); 32]);
    let factors = repeat_factors(0.1, &films);
    assert_eq!(factors[0], 1.0);
    assert!((factors[63] - (0.1f64 / 0.04).sqrt()).abs() < 1e-12);
    assert!((factors[67] - (0.1f64 / 0.01).sqrt()).abs() < 1e-12);
    assert_eq!(factors[99], 1.0);

    let sampler = Sampler::new(&SamplerConfig::paper_detector(), &films).unwrap();
    let drawn = counts(&sampler, 3, 200);
    assert!((drawn[67] as f64 / 200.0 - 10f64.sqrt()).abs() < 0.1, "{}", drawn[67]);
    assert!((drawn[0] as f64 / 200.0 - 1.0).abs() < 0.05);
}

#[test]
fn the_abnormal_share_is_kept() {
    let films: Vec<_> = (0..100)
        .map(|i| if i < 10 { with_labels(&[Finding::Osteophytes]) } else { with_labels(&[]) })
        .collect();
    let config = SamplerConfig { abnormal_fraction: Some(0.4), repeat_threshold: None };
    let sampler = Sampler::new(&config, &films).unwrap();
    assert_eq!(sampler.epoch_len(), 100);
    for seed in 0..5 {
        let abnormal: usize = counts(&sampler, seed, 1)[..10].iter().sum();
        assert!((39..=41).contains(&abnormal), "{abnormal}");
    }
}

#[test]
fn orders_differ_by_seed_and_epoch() {
    let sampler = Sampler::from_weights(&[1.0; 50]).unwrap();
    let order =
        |seed: u64, epoch: u64| (0..50u64).map(|i| sampler.index(seed, epoch * 50 + i)).collect::<Vec<_>>();
    assert_eq!(order(1, 0), order(1, 0));
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    assert_ne!(order(1, 0), (0..50).collect::<Vec<_>>());
}

#[test]
fn every_film_comes_first_about_equally_often() {
    // Weak mixing of small sets would show here.
    let sampler = Sampler::from_weights(&[1.0; 5]).unwrap();
    let mut firsts = [0usize; 5];
    for seed in 0..5000 {
        firsts[sampler.index(seed, 0)] += 1;
    }
    assert!(firsts.iter().all(|&n| (850..=1150).contains(&n)), "{firsts:?}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let films = [with_labels(&[]), with_labels(&[Finding::Osteophytes])];
    let new = |repeat_threshold, abnormal_fraction, films: &[FilmAnnotation]| {
        Sampler::new(&SamplerConfig { repeat_threshold, abnormal_fraction }, films)
    };
    assert!(new(None, None, &films).is_ok());
    assert!(new(None, None, &[]).is_err());
    assert!(new(Some(0.0), None, &films).is_err());
    assert!(new(Some(f64::NAN), None, &films).is_err());
    assert!(new(None, Some(1.0), &films).is_err());
    assert!(new(None, Some(0.5), &films[..1]).is_err());
    assert!(Sampler::from_weights(&[1.0, -1.0]).is_err());
    assert!(Sampler::from_weights(&[f64::INFINITY]).is_err());
}

proptest! {
    #[test]
    fn with_equal_weights_an_epoch_is_a_permutation(n in 1usize..300, seed in any::<u64>(), epoch in 0u64..1000) {
        let sampler = Sampler::from_weights(&vec![1.0; n]).unwrap();
        let mut drawn: Vec<usize> =
            (0..n as u64).map(|i| sampler.index(seed, epoch * n as u64 + i)).collect();
        drawn.sort_unstable();
        prop_assert_eq!(drawn, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn a_film_comes_as_often_as_its_weight_rounded_up_or_down(
        weights in prop::collection::vec(0.2f64..4.0, 2..60), seed in any::<u64>(),
    ) {
        let sampler = Sampler::from_weights(&weights).unwrap();
        // The epoch is a whole number of places: weights are stretched by at most half a place in all.
        let stretch = sampler.epoch_len() as f64 / weights.iter().sum::<f64>();
        for (n, w) in counts(&sampler, seed, 1).into_iter().zip(weights) {
            let w = w * stretch;
            prop_assert!(n as f64 >= w.floor() - 1e-9 && n as f64 <= w.ceil() + 1e-9, "{} for {}", n, w);
        }
    }
}

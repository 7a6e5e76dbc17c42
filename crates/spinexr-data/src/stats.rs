//! The data table of the paper (its table 1), and what the headers say of patients and films.

use crate::{Dataset, Film};
use serde::Serialize;
use spinexr_core::Split;
use spinexr_dicom::Examined;
use std::collections::{BTreeMap, BTreeSet};

/// Figures of one part of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitStats {
    /// Studies.
    pub studies: usize,
    /// Patients by Patient ID (0010,0020); `None` where no header has one.
    pub patients: Option<usize>,
    /// Films.
    pub films: usize,
    /// Films without a finding.
    pub normal: usize,
    /// Films with one.
    pub abnormal: usize,
    /// Studies with an abnormal film.
    pub abnormal_studies: usize,
    /// Boxes by finding.
    pub boxes: BTreeMap<String, usize>,
    /// Films with at least one box, by finding.
    pub films_with: BTreeMap<String, usize>,
    /// Films with at least one box of any finding.
    pub films_with_boxes: usize,
    /// Films by Patient's Sex (0010,0040): `F`, `M`, `O`; `unknown` where the header does not say.
    pub sex: BTreeMap<String, usize>,
    /// Patient's Age (0010,1010), years, a value a film.
    pub age_years: Option<Summary>,
    /// Height of films, px.
    pub height_px: Option<Summary>,
    /// Width of films, px.
    pub width_px: Option<Summary>,
    /// Row spacing, mm.
    pub pixel_spacing_mm: Option<Summary>,
    /// Boxes by finding: width, height and share of their film.
    pub box_sizes: BTreeMap<String, BoxSizes>,
    /// Films whose header could be read.
    pub headers_read: usize,
}

/// Sizes of the boxes of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoxSizes {
    /// px.
    pub width_px: Summary,
    /// px.
    pub height_px: Summary,
    /// Box area over film area; `None` where no film's size is known.
    pub share_of_film: Option<Summary>,
}

/// Figures of a number of values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample (n − 1); `None` of a single value.
    pub sd: Option<f64>,
    /// Least value.
    pub min: f64,
    /// Median; the mean of the middle two of an even number.
    pub median: f64,
    /// Greatest value.
    pub max: f64,
}

impl Summary {
    /// Of finite values; `None` of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let (&min, &max) = (values.first()?, values.last()?);
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { n, mean, sd, min, median: f64::midpoint(values[(n - 1) / 2], values[n / 2]), max })
    }
}

/// Figures of every split that has films. `header_of` gives what a film's header says, `None` where it was not read.
/// Boxes are taken as they stand in `dataset`.
pub fn stats<'a>(
    dataset: &Dataset,
    header_of: impl Fn(&Film) -> Option<&'a Examined>,
) -> BTreeMap<Split, SplitStats> {
    Split::ALL
        .into_iter()
        .filter(|&split| dataset.of(split).next().is_some())
        .map(|split| (split, of_films(&dataset.of(split).collect::<Vec<_>>(), &header_of)))
        .collect()
}

fn of_films<'a>(films: &[&Film], header_of: &impl Fn(&Film) -> Option<&'a Examined>) -> SplitStats {
    let headers: Vec<Option<&Examined>> = films.iter().map(|film| header_of(film)).collect();
    let known = || headers.iter().flatten();
    let studies_of = |abnormal_only: bool| {
        let films = films.iter().filter(|film| film.annotation.abnormal || !abnormal_only);
        films.map(|film| film.annotation.study_id.as_str()).collect::<BTreeSet<_>>().len()
    };
    let mut sex: BTreeMap<String, usize> = BTreeMap::new();
    for header in &headers {
        let value = header.and_then(|header| header.header.sex.as_deref());
        let value = value.filter(|sex| matches!(*sex, "F" | "M" | "O")).unwrap_or("unknown");
        *sex.entry(value.to_owned()).or_default() += 1;
    }
    let patients: BTreeSet<&str> = known().filter_map(|header| header.patient.as_deref()).collect();

    let mut films_with: BTreeMap<String, usize> = BTreeMap::new();
    let mut sides: BTreeMap<String, [Vec<f64>; 3]> = BTreeMap::new();
    for (film, header) in films.iter().zip(&headers) {
        let mut names = BTreeSet::new();
        for marked in &film.annotation.boxes {
            let name = marked.label.to_string();
            let [widths, heights, shares] = sides.entry(name.clone()).or_default();
            let (width, height) = (f64::from(marked.xyxy.width()), f64::from(marked.xyxy.height()));
            widths.push(width);
            heights.push(height);
            if let Some(header) = header {
                let film_area = f64::from(header.height_px) * f64::from(header.width_px);
                shares.push(width * height / film_area);
            }
            names.insert(name);
        }
        for name in names {
            *films_with.entry(name).or_default() += 1;
        }
    }
    let boxes = sides.iter().map(|(name, [widths, ..])| (name.clone(), widths.len())).collect();
    let box_sizes = sides
        .into_iter()
        .filter_map(|(name, [widths, heights, shares])| {
            let (width_px, height_px) = (Summary::of(widths)?, Summary::of(heights)?);
            Some((name, BoxSizes { width_px, height_px, share_of_film: Summary::of(shares) }))
        })
        .collect();
    let abnormal = films.iter().filter(|film| film.annotation.abnormal).count();
    SplitStats {
        studies: studies_of(false),
        patients: (!patients.is_empty()).then_some(patients.len()),
        films: films.len(),
        normal: films.len() - abnormal,
        abnormal,
        abnormal_studies: studies_of(true),
        boxes,
        films_with,
        films_with_boxes: films.iter().filter(|film| !film.annotation.boxes.is_empty()).count(),
        sex,
        age_years: Summary::of(known().filter_map(|h| h.header.age_years).map(f64::from).collect()),
        height_px: Summary::of(known().map(|h| f64::from(h.height_px)).collect()),
        width_px: Summary::of(known().map(|h| f64::from(h.width_px)).collect()),
        pixel_spacing_mm: Summary::of(known().filter_map(|h| Some(h.header.pixel_spacing_mm?[0])).collect()),
        box_sizes,
        headers_read: known().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_films;
    use spinexr_core::{Annotation, BoxXyxy};
    use spinexr_dicom::FilmHeader;

    #[test]
    fn a_summary_of_known_values() {
        let summary = Summary::of(vec![4.0, 1.0, f64::NAN, 2.0, 5.0]).unwrap();
        assert_eq!((summary.n, summary.mean, summary.median), (4, 3.0, 3.0));
        assert_eq!((summary.min, summary.max), (1.0, 5.0));
        // (1 + 4 + 1 + 4) / 3
        assert!((summary.sd.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(vec![7.0]).unwrap().sd, None);
        assert_eq!(Summary::of(vec![]), None);
    }

    #[test]
    fn films_studies_and_boxes_are_counted_by_split() {
        let film = |i: usize, split| Film {
            path: format!("{i}.dicom").into(),
            annotation: test_films::annotation(i),
            split,
        };
        let mut films: Vec<Film> = (0..4).map(|i| film(i, Split::Train)).collect();
        films.push(film(5, Split::Test));
        // Two boxes of one finding on one film.
        let again =
            Annotation { xyxy: BoxXyxy::new(0.0, 0.0, 10.0, 20.0), ..films[1].annotation.boxes[0].clone() };
        films[1].annotation.boxes.push(again);
        let name = films[1].annotation.boxes[0].label.to_string();
        let dataset = Dataset { films, ..Dataset::default() };
        let header = |age_years, sex: &str, patient: &str| Examined {
            height_px: 100,
            width_px: 50,
            header: FilmHeader { age_years, sex: Some(sex.to_owned()), ..FilmHeader::default() },
            patient: Some(patient.to_owned()),
            ..Examined::default()
        };
        let headers =
            [header(Some(40.0), "F", "1"), header(None, "M", "1"), header(Some(60.0), "ROBERT", "2")];
        let stats = stats(&dataset, |film| {
            let i: usize = film.path.file_stem()?.to_str()?.parse().ok()?;
            headers.get(i)
        });
        let train = &stats[&Split::Train];
        assert_eq!((train.films, train.studies, train.normal, train.abnormal), (4, 2, 2, 2));
        assert_eq!((train.abnormal_studies, train.films_with_boxes, train.headers_read), (2, 2, 3));
        assert_eq!((train.boxes[&name], train.films_with[&name]), (2, 1));
        assert_eq!(train.patients, Some(2));
        assert_eq!(train.age_years.unwrap().mean, 50.0);
        // What a header should not say is not repeated.
        let sexes: Vec<(&str, usize)> = train.sex.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(sexes, [("F", 1), ("M", 1), ("unknown", 2)]);
        let sizes = train.box_sizes[&name];
        assert_eq!(sizes.share_of_film.unwrap().min, 10.0 * 20.0 / 5000.0);
        assert_eq!(sizes.width_px.n, 2);

        let test = &stats[&Split::Test];
        assert_eq!((test.films, test.headers_read, test.patients), (1, 0, None));
        assert!(test.age_years.is_none() && test.height_px.is_none());
        assert!(test.box_sizes.values().all(|sizes| sizes.share_of_film.is_none()));
        assert!(!stats.contains_key(&Split::Validation));
    }
}

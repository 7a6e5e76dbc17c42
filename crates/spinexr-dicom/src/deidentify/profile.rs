//! PS3.15 Table E.1-1: what the Basic Application Level Confidentiality Profile and its options do with each
//! attribute. The table is `table_e1_1.tsv`, with its edition at its head.

use dicom_core::Tag;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Edition of PS3.15 that the table follows, as it is named in De-identification Method (0012,0063).
pub(super) const EDITION: &str = "2024b";

/// Options of the profile (PS3.15 E.3). What an option asks to clean by judgement (`C` in the table), such as free
/// text, is treated as the Basic Profile treats it; dates are the exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retain {
    /// Retain UIDs (E.3.9).
    pub uids: bool,
    /// Retain Device Identity (E.3.8).
    pub device: bool,
    /// Retain Institution Identity (E.3.11).
    pub institution: bool,
    /// Retain Patient Characteristics (E.3.7).
    pub characteristics: bool,
    /// Retain Longitudinal Temporal Information (E.3.6).
    pub dates: Dates,
}

/// What becomes of dates and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dates {
    /// They go, as the Basic Profile has it.
    #[default]
    Remove,
    /// They stay (full dates option).
    Keep,
    /// All of a patient go back by the same number of days (modified dates option).
    Shift,
}

/// What is done with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// `X`.
    Remove,
    /// `Z`, and `X/Z`: an empty value is right wherever the attribute may be absent too.
    Empty,
    /// `D`, and what may be `D`, but for sequences, which become empty.
    Dummy,
    /// `U`.
    NewUid,
    /// `X/Z/U*`: the items stay, with new UIDs and cleaned.
    CleanItems,
    /// Modified dates.
    ShiftDate,
    /// `K`.
    Keep,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub basic: Action,
    uids: bool,
    device: bool,
    institution: bool,
    characteristics: bool,
    full_dates: bool,
    modified_dates: bool,
}

static TABLE: LazyLock<HashMap<Tag, Row>> = LazyLock::new(|| {
    parse(include_str!("table_e1_1.tsv")).expect("the table is a constant of ours, held to by a test")
});

/// The action for an attribute that is neither private nor of the groups that go as a whole; `None` for one that the
/// table does not name, which the profile leaves as it is.
pub(super) fn action(tag: Tag, retain: &Retain) -> Option<Action> {
    let row = TABLE.get(&tag)?;
    let kept = (retain.uids && row.uids)
        || (retain.device && row.device)
        || (retain.institution && row.institution)
        || (retain.characteristics && row.characteristics)
        || (retain.dates == Dates::Keep && row.full_dates);
    Some(match () {
        () if kept => Action::Keep,
        () if retain.dates == Dates::Shift && row.modified_dates => Action::ShiftDate,
        () => row.basic,
    })
}

/// All rows that name one attribute.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = (Tag, Row)> {
    TABLE.iter().map(|(tag, row)| (*tag, *row))
}

/// The rows of single attributes; those of repeating groups (`50xx`, `60xx`) go with their groups.
fn parse(text: &str) -> Option<HashMap<Tag, Row>> {
    let mut table = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let cells: [&str; 13] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let [tag, _, basic, uids, device, institution, characteristics, full, modified, ..] = cells;
        if tag.contains('x') {
            continue;
        }
        let basic = match basic {
            "X" => Action::Remove,
            "Z" | "X/Z" => Action::Empty,
            "D" | "Z/D" | "X/D" | "X/Z/D" => Action::Dummy,
            "U" => Action::NewUid,
            "X/Z/U*" => Action::CleanItems,
            _ => return None,
        };
        let keeps = |cell: &str| cell == "K";
        let row = Row {
            basic,
            uids: keeps(uids),
            device: keeps(device),
            institution: keeps(institution),
            characteristics: keeps(characteristics),
            full_dates: keeps(full),
            modified_dates: modified == "C",
        };
        table.insert(tag_of(tag)?, row);
    }
    Some(table)
}

/// `(gggg,eeee)`.
fn tag_of(text: &str) -> Option<Tag> {
    let (group, element) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some(Tag(u16::from_str_radix(group, 16).ok()?, u16::from_str_radix(element, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::dictionary::DataDictionary;
    use dicom_dictionary_std::StandardDataDictionary;
    use std::collections::BTreeMap;

    const TEXT: &str = include_str!("table_e1_1.tsv");

    fn cells() -> impl Iterator<Item = Vec<&'static str>> {
        TEXT.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
    }

    #[test]
    fn the_table_is_whole() {
        assert!(TEXT.contains(&format!("Edition {EDITION}")));
        let mut editions: BTreeMap<&str, usize> = BTreeMap::new();
        let mut actions: BTreeMap<&str, usize> = BTreeMap::new();
        let mut before = "";
        for row in cells() {
            assert_eq!(row.len(), 13, "{row:?}");
            assert!(before < row[0], "{before} and {}", row[0]);
            before = row[0];
            *editions.entry(row[12]).or_default() += 1;
            if row[12] == EDITION {
                *actions.entry(row[2]).or_default() += 1;
            }
            assert!(row[3..12].iter().all(|option| matches!(*option, "-" | "K" | "C")), "{row:?}");
        }
        // 621 rows of the edition but the one of private attributes, which two readings of the standard agree on.
        assert_eq!(editions, BTreeMap::from([("2024b", 620), ("2026c", 35)]));
        let expected = [
            ("D", 92),
            ("U", 54),
            ("X", 383),
            ("X/D", 22),
            ("X/Z", 11),
            ("X/Z/D", 8),
            ("X/Z/U*", 2),
            ("Z", 42),
            ("Z/D", 6),
        ];
        assert_eq!(actions, BTreeMap::from(expected));
        assert_eq!(TABLE.len(), 655 - 3);
    }

    #[test]
    fn every_attribute_is_in_the_dictionary_or_newer_than_it() {
        let unknown: Vec<_> = cells()
            .filter(|row| !row[0].contains('x'))
            .filter(|row| StandardDataDictionary.by_tag(tag_of(row[0]).unwrap()).is_none())
            .collect();
        assert!(unknown.iter().all(|row| row[12] == "2026c"), "{unknown:?}");
    }

    #[test]
    fn options_keep_what_the_standard_says_and_no_more() {
        let basic = Retain::default();
        let of = |tag, retain: Retain| action(tag, &retain).unwrap();
        let (study_date, study_uid) = (Tag(0x0008, 0x0020), Tag(0x0020, 0x000D));
        let (name, sex, station) = (Tag(0x0010, 0x0010), Tag(0x0010, 0x0040), Tag(0x0008, 0x1010));
        let all =
            Retain { uids: true, device: true, institution: true, characteristics: true, dates: Dates::Keep };
        assert_eq!(of(study_uid, basic), Action::NewUid);
        assert_eq!(of(study_uid, Retain { uids: true, ..basic }), Action::Keep);
        assert_eq!(of(study_date, basic), Action::Empty);
        assert_eq!(of(study_date, Retain { dates: Dates::Keep, ..basic }), Action::Keep);
        assert_eq!(of(study_date, Retain { dates: Dates::Shift, ..basic }), Action::ShiftDate);
        assert_eq!(of(sex, Retain { characteristics: true, ..basic }), Action::Keep);
        assert_eq!(of(station, Retain { device: true, ..basic }), Action::Keep);
        assert_eq!(of(Tag(0x0008, 0x0080), Retain { institution: true, ..basic }), Action::Keep);
        // No option keeps a name, an id or a birth date.
        for tag in [name, Tag(0x0010, 0x0020), Tag(0x0010, 0x0030), Tag(0x0008, 0x0050), Tag(0x0008, 0x0090)]
        {
            assert!(matches!(of(tag, all), Action::Empty | Action::Dummy), "{tag}");
        }
        assert_eq!(action(Tag(0x0028, 0x0010), &basic), None);
    }
}

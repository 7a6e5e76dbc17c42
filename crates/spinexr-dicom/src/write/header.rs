//! The attributes of a DX image, in ascending order of tags.

use super::element::{Element, Encoding, Value, decimal_string};
use super::{DxFilm, implementation_class_uid};

/// Digital X-Ray Image Storage – For Presentation.
pub(super) const DX_FOR_PRESENTATION: &str = "1.2.840.10008.5.1.4.1.1.1.1";

/// Preamble, prefix and file meta information (PS3.10 7.1).
pub(crate) fn preamble_and_meta(sop_class: &str, sop_instance: &str, transfer_syntax: &str) -> Vec<u8> {
    let mut group = Vec::new();
    for element in [
        Element { tag: 0x0002_0001, value: Value::Bytes(vec![0, 1]) },
        Element::uid(0x0002_0002, sop_class),
        Element::uid(0x0002_0003, sop_instance),
        Element::uid(0x0002_0010, transfer_syntax),
        Element::uid(0x0002_0012, implementation_class_uid()),
        Element::text(0x0002_0013, "SH", "SPINEXR"),
    ] {
        element.write(Encoding::Explicit, &mut group);
    }
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    let length = u32::try_from(group.len()).expect("a few hundred bytes");
    Element { tag: 0x0002_0000, value: Value::Ul(length) }.write(Encoding::Explicit, &mut file);
    file.append(&mut group);
    file
}

/// Appends every attribute but Pixel Data. Those of type 1 and 2 of the DX IOD (PS3.3 A.26) are all there.
pub(super) fn write(film: &DxFilm, encoding: Encoding, out: &mut Vec<u8>) {
    for element in attributes(film) {
        element.write(encoding, out);
    }
}

fn attributes(film: &DxFilm) -> Vec<Element> {
    let text = |tag, vr, value: &str| Element::text(tag, vr, value);
    let (slope, intercept) = film.rescale.unwrap_or((1.0, 0.0));
    let centers = joined(film.windows.iter().map(|&(center, _)| center));
    let widths = joined(film.windows.iter().map(|&(_, width)| width));
    let spacing = joined(film.pixel_spacing_mm);
    vec![
        text(0x0008_0005, "CS", "ISO_IR 192"),
        text(0x0008_0008, "CS", "ORIGINAL\\PRIMARY"),
        Element::uid(0x0008_0016, DX_FOR_PRESENTATION),
        Element::uid(0x0008_0018, film.sop_instance_uid.as_str()),
        text(0x0008_0020, "DA", &film.study_date),
        text(0x0008_0023, "DA", &film.study_date),
        text(0x0008_0030, "TM", ""),
        text(0x0008_0033, "TM", ""),
        text(0x0008_0050, "SH", ""),
        text(0x0008_0060, "CS", "DX"),
        text(0x0008_0068, "CS", "FOR PRESENTATION"),
        text(0x0008_0070, "LO", &film.manufacturer),
        text(0x0008_0090, "PN", ""),
        text(0x0008_1090, "LO", &film.model_name),
        Element::sequence(0x0008_2218, anatomic_region(&film.body_part)),
        text(0x0010_0010, "PN", &film.patient_id),
        text(0x0010_0020, "LO", &film.patient_id),
        text(0x0010_0030, "DA", ""),
        text(0x0010_0040, "CS", film.sex.encode_utf8(&mut [0; 4])),
        text(0x0010_1010, "AS", &format!("{:03}Y", film.age_years)),
        text(0x0012_0062, "CS", "YES"),
        text(0x0012_0063, "LO", &film.deidentification_method),
        text(0x0018_0015, "CS", &film.body_part),
        text(0x0018_1020, "LO", env!("CARGO_PKG_VERSION")),
        text(0x0018_1164, "DS", &spacing),
        text(0x0018_5101, "CS", &film.view_position),
        text(0x0018_7004, "CS", "DIRECT"),
        Element::uid(0x0020_000D, film.study_uid.as_str()),
        Element::uid(0x0020_000E, film.series_uid.as_str()),
        text(0x0020_0010, "SH", ""),
        text(0x0020_0011, "IS", "1"),
        text(0x0020_0013, "IS", &film.instance_number.to_string()),
        text(0x0020_0020, "CS", patient_orientation(&film.view_position)),
        text(0x0020_0062, "CS", "U"),
        Element::us(0x0028_0002, 1),
        text(0x0028_0004, "CS", if film.monochrome1 { "MONOCHROME1" } else { "MONOCHROME2" }),
        Element::us(0x0028_0010, film.height_px as u16),
        Element::us(0x0028_0011, film.width_px as u16),
        text(0x0028_0030, "DS", &spacing),
        Element::us(0x0028_0100, 16),
        Element::us(0x0028_0101, u16::from(film.bits_stored)),
        Element::us(0x0028_0102, u16::from(film.bits_stored) - 1),
        Element::us(0x0028_0103, 0),
        text(0x0028_0301, "CS", "NO"),
        text(0x0028_1040, "CS", "LOG"),
        // Bone is shown bright: low beam intensity is low in MONOCHROME1 and high in MONOCHROME2.
        Element { tag: 0x0028_1041, value: Value::Ss(vec![if film.monochrome1 { 1 } else { -1 }]) },
        text(0x0028_1050, "DS", film.window_center_raw.as_deref().unwrap_or(&centers)),
        text(0x0028_1051, "DS", &widths),
        text(0x0028_1052, "DS", &decimal_string(intercept)),
        text(0x0028_1053, "DS", &decimal_string(slope)),
        text(0x0028_1054, "LO", "US"),
        text(0x0028_2110, "CS", "00"),
        Element::sequence(0x0040_0555, vec![]),
        text(0x2050_0020, "CS", if film.monochrome1 { "INVERSE" } else { "IDENTITY" }),
    ]
}

fn joined(values: impl IntoIterator<Item = f64>) -> String {
    values.into_iter().map(decimal_string).collect::<Vec<_>>().join("\\")
}

/// Item of Anatomic Region Sequence (0008,2218) from CID 4009; empty (it is type 2) for other body parts.
fn anatomic_region(body_part: &str) -> Vec<Vec<Element>> {
    let (code, meaning) = match body_part {
        "CSPINE" => ("122494005", "Cervical spine"),
        "TSPINE" => ("122495006", "Thoracic spine"),
        "LSPINE" => ("122496007", "Lumbar spine"),
        "SPINE" => ("421060004", "Spine"),
        _ => return vec![],
    };
    vec![vec![
        Element::text(0x0008_0100, "SH", code),
        Element::text(0x0008_0102, "SH", "SCT"),
        Element::text(0x0008_0104, "LO", meaning),
    ]]
}

/// Directions of rows and columns (PS3.3 C.7.6.1.1.1), from the usual way each view hangs.
fn patient_orientation(view_position: &str) -> &'static str {
    match view_position {
        "LL" | "LLO" | "LATERAL" => "A\\F",
        "RL" | "RLO" => "P\\F",
        _ => "L\\F",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_ascend() {
        let tags: Vec<u32> = attributes(&DxFilm::new(1, 1, vec![0])).iter().map(|e| e.tag).collect();
        assert!(tags.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

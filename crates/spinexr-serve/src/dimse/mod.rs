//! DICOM messages (PS3.7) over associations (PS3.8, by `dicom-ul`): verification and storage, both ways.

pub(crate) mod command;
pub(crate) mod scp;
pub(crate) mod scu;

/// Verification SOP Class.
pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Classes of images that a film may come as.
pub(crate) const FILM_CLASSES: [&str; 4] = [
    "1.2.840.10008.5.1.4.1.1.1",     // Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",   // Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1", // Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.7",     // Secondary Capture
];

/// Transfer syntaxes in which a film is taken: those that the reader of films decodes.
pub(crate) const FILM_SYNTAXES: [&str; 18] = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.55",
];

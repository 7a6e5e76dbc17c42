//! What can go wrong when films are read and written. Every variant names the file.

use std::path::PathBuf;

/// A film that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither DICOM nor PNG nor JPEG.
    #[error("{}: not a DICOM, PNG or JPEG file (begins with {found})", path.display())]
    UnknownFormat {
        /// File.
        path: PathBuf,
        /// First bytes.
        found: String,
    },
    /// Named like a DICOM file, with the content of another format.
    #[error("{}: named like a DICOM file, but holds a {found}", path.display())]
    NameDiffers {
        /// File.
        path: PathBuf,
        /// Format of the content.
        found: &'static str,
    },
    /// Not a file or folder of films.
    #[error("{}: expected a film or a folder of films", path.display())]
    NoFilm {
        /// Path that was asked for.
        path: PathBuf,
    },
    /// A limit of [`crate::Limits`] would be passed.
    #[error("{}: {what} is {found}, more than the limit of {limit}", path.display())]
    TooLarge {
        /// File.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The data set cannot be parsed.
    #[error("{}: data set broken at byte {offset}: {reason}", path.display())]
    Parse {
        /// File.
        path: PathBuf,
        /// Where: byte in the file, or in the inflated data set of a deflated file.
        offset: u64,
        /// What was expected or found.
        reason: String,
    },
    /// An attribute is missing or has a value that cannot be used.
    #[error("{}: {name} {tag}: expected {expected}, found {found}", path.display())]
    Attribute {
        /// File.
        path: PathBuf,
        /// `(gggg,eeee)`.
        tag: String,
        /// Name in the dictionary.
        name: &'static str,
        /// What would be usable.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The file holds no image.
    #[error("{}: no Pixel Data (7FE0,0010): the file holds no image", path.display())]
    NoPixelData {
        /// File.
        path: PathBuf,
    },
    /// The file has no DICOM header that results could refer to.
    #[error(
        "{}: a {format} file has no DICOM header, and so no patient, study and image that a DICOM result could name",
        path.display()
    )]
    NoDicomHeader {
        /// File.
        path: PathBuf,
        /// `PNG` or `JPEG`.
        format: &'static str,
    },
    /// A structured report does not hold what its template asks for.
    #[error("{}: content item {item}: expected {expected}, found {found}", path.display())]
    Report {
        /// File.
        path: PathBuf,
        /// Place in the content tree, as in PS3.3 C.17.3.2.5: `1.3.2`.
        item: String,
        /// What would be usable.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The pixel coding is not one this crate decodes.
    #[error("{}: transfer syntax {uid} ({name}) is not supported", path.display())]
    UnsupportedTransferSyntax {
        /// File.
        path: PathBuf,
        /// Transfer Syntax UID.
        uid: String,
        /// Its name in the standard.
        name: String,
    },
    /// The frame asked for is not there.
    #[error("{}: frame {frame} asked for (counted from 0), the file has {frames}", path.display())]
    NoSuchFrame {
        /// File.
        path: PathBuf,
        /// Frame asked for.
        frame: u32,
        /// Frames in the file.
        frames: u32,
    },
    /// A key file of the wrong size.
    #[error("{}: expected a key of 32 to 4096 bytes, found {found}", path.display())]
    Key {
        /// File.
        path: PathBuf,
        /// Its size, bytes.
        found: u64,
    },
    /// Compressed or packed pixels do not decode.
    #[error("{}: pixel data ({syntax}): {reason}", path.display())]
    Pixels {
        /// File.
        path: PathBuf,
        /// Name of the coding.
        syntax: String,
        /// What was expected or found.
        reason: String,
    },
}

/// A film that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The result cannot be expressed as the object asked for.
    #[error("{object}: {field}: expected {expected}, found {found}")]
    Result {
        /// Which object: `structured report` …
        object: &'static str,
        /// What of the film or the result.
        field: &'static str,
        /// What would be usable.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The film cannot be expressed as a DX image.
    #[error("DX film: {field}: expected {expected}, found {found}")]
    Film {
        /// Field of [`crate::DxFilm`].
        field: &'static str,
        /// What would be usable.
        expected: String,
        /// What is there.
        found: String,
    },
}

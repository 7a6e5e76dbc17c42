//! One film as training sees it: pixels, boxes and whether it is abnormal, changed together.

use crate::{Cache, DataError, InputSize, LabelledBox, PreparedFilm};
use spinexr_core::{ClassList, FilmAnnotation};
use std::borrow::Cow;

/// Smallest side of a training box, input px; less is nothing a detector could learn.
pub(crate) const MIN_BOX_PX: f32 = 0.5;

/// A film with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Example {
    pub(crate) film: PreparedFilm,
    /// Input px.
    pub(crate) boxes: Vec<LabelledBox>,
    pub(crate) abnormal: bool,
}

impl Example {
    /// A film of the cache at the size of `input`.
    pub(crate) fn read(
        cache: &Cache,
        input: &InputSize,
        film: &FilmAnnotation,
        classes: &ClassList,
    ) -> Result<Self, DataError> {
        let prepared = cache.get(&film.image_id)?;
        let resized = match prepared.at(input) {
            Cow::Owned(resized) => Some(resized),
            Cow::Borrowed(_) => None,
        };
        let prepared = resized.unwrap_or(prepared);
        let boxes = prepared
            .input_boxes(&film.boxes, classes, MIN_BOX_PX)
            .map_err(|source| DataError::UnknownLabel { image_id: film.image_id.clone(), source })?;
        Ok(Self { film: prepared, boxes, abnormal: film.abnormal })
    }
}

//! Files of weights as others write them, read without running anything of them.
//!
//! | form | known by | written by |
//! |---|---|---|
//! | safetensors | a length and `{` | Hugging Face, timm, this program |
//! | zip of a pickle and its storages | `PK` | `torch.save` since 1.6 |
//! | pickles and storages in a row | magic number | `torch.save` before 1.6 |
//! | pickle of NumPy arrays | protocol byte | detectron2's model zoo (`.pkl`) |

use std::collections::BTreeMap;
use std::path::Path;

use super::archive::{self, Archive};
use super::pickle::{Node, Pickle, Value};
use super::strided::{ElementType, View};
use super::{Entry, StateDict, WeightsError, from_safetensors};

/// Largest file of weights, bytes.
pub const MAX_FILE_BYTES: u64 = 8 << 30;

/// The number that older files of `torch.save` begin with, as a pickle: 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Keys under which training programs keep the state dict of their model, the usual ones first.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "model_state_dict", "module"];

/// Reads a file of any of these forms, told apart by their first bytes.
///
/// A state dict under one of the keys `state_dict`, `model`, `model_state_dict` or `module` is found there.
/// `num_batches_tracked` is left out, as in [`from_safetensors`].
///
/// # Errors
/// A file that cannot be read or is larger than [`MAX_FILE_BYTES`] ([`WeightsError::Io`]), a pickle that asks for
/// more than weights ([`WeightsError::Refused`]), and everything that is cut short, damaged or of another kind.
pub fn read_file(path: &Path) -> Result<StateDict, WeightsError> {
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_FILE_BYTES {
        return Err(WeightsError::Format(format!("{size} bytes, expected at most {MAX_FILE_BYTES}")));
    }
    from_bytes(&std::fs::read(path).map_err(io)?)
}

/// As [`read_file`], from the file's bytes.
///
/// # Errors
/// As [`read_file`].
pub fn from_bytes(bytes: &[u8]) -> Result<StateDict, WeightsError> {
    if bytes.starts_with(archive::LOCAL) {
        return torch_zip(bytes);
    }
    if bytes.first() == Some(&0x80) {
        let first = Pickle::read(bytes)?;
        return match first.root {
            Value::Big(magic) if magic == LEGACY_MAGIC => torch_legacy(&bytes[first.length..]),
            _ => {
                let no_storage =
                    |key: &str, _| Err(WeightsError::Format(format!("storage {key:?} is not in the file")));
                state_of(&first, bytes.len(), no_storage)
            }
        };
    }
    match bytes.get(8) {
        Some(b'{') => from_safetensors(bytes),
        _ => Err(WeightsError::Format(
            "expected safetensors, a PyTorch file (.pth, .pt) or a pickle of arrays (.pkl)".to_owned(),
        )),
    }
}

fn torch_zip(bytes: &[u8]) -> Result<StateDict, WeightsError> {
    let archive = Archive::read(bytes)?;
    let Some(folder) = archive.name_ending("/data.pkl").and_then(|name| name.strip_suffix("data.pkl")) else {
        return Err(WeightsError::Format("a zip archive without data.pkl: no PyTorch file".to_owned()));
    };
    if archive.get(&format!("{folder}byteorder")).is_some_and(|order| order.trim_ascii() == b"big") {
        return Err(WeightsError::Format("numbers in big-endian order, expected little-endian".to_owned()));
    }
    let pickle = archive.get(&format!("{folder}data.pkl")).expect("found by this very name");
    let pickle = Pickle::read(pickle)?;
    state_of(&pickle, bytes.len(), |key, _| {
        archive
            .get(&format!("{folder}data/{key}"))
            .ok_or_else(|| WeightsError::Format(format!("storage {key:?} is not in the archive")))
    })
}

/// What follows the magic number: the protocol's version, facts of the machine, the object, the keys of the
/// storages in order, and each storage with its number of elements before it.
fn torch_legacy(mut rest: &[u8]) -> Result<StateDict, WeightsError> {
    let length = rest.len();
    let mut next = || {
        let pickle = Pickle::read(rest)?;
        rest = &rest[pickle.length..];
        Ok::<_, WeightsError>(pickle)
    };
    let (_version, machine, object, keys) = (next()?, next()?, next()?, next()?);
    let little = machine.dict(machine.root).and_then(|facts| value_of(facts, "little_endian"));
    if little == Some(Value::Bool(false)) {
        return Err(WeightsError::Format("numbers in big-endian order, expected little-endian".to_owned()));
    }
    let fault = |message: String| WeightsError::Format(message);
    let keys = keys.items(keys.root).ok_or_else(|| fault("the list of storages is missing".to_owned()))?;
    let elements: BTreeMap<&str, ElementType> = object
        .nodes
        .iter()
        .filter_map(|node| match node {
            Node::Storage { element, key } => Some((*key, *element)),
            _ => None,
        })
        .collect();
    let mut storages = BTreeMap::new();
    for key in keys {
        let key = key.text().ok_or_else(|| fault("a storage without a key".to_owned()))?;
        let cut = || fault(format!("it breaks off in storage {key:?}"));
        let element = elements.get(key).ok_or_else(|| fault(format!("storage {key:?} of no tensor")))?;
        let (count, data) = rest.split_first_chunk().ok_or_else(cut)?;
        let size =
            usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(element.size()));
        let (data, after) = size.and_then(|size| data.split_at_checked(size)).ok_or_else(cut)?;
        storages.insert(key, data);
        rest = after;
    }
    state_of(&object, length, |key, _| {
        storages.get(key).copied().ok_or_else(|| fault(format!("storage {key:?} is not in the file")))
    })
}

/// The tensors of the pickled dictionary, or of the one under a key of [`WRAPPERS`] in it.
fn state_of<'a>(
    pickle: &'a Pickle<'a>,
    file_bytes: usize,
    storage: impl Fn(&str, ElementType) -> Result<&'a [u8], WeightsError>,
) -> Result<StateDict, WeightsError> {
    let Some(root) = pickle.dict(pickle.root) else {
        return Err(WeightsError::Format("expected a state dict, found no dictionary".to_owned()));
    };
    let wrapped = WRAPPERS.iter().filter_map(|key| pickle.dict(value_of(root, key)?));
    // The one with the most tensors: beside a wrapped state dict there may be a number or two.
    let found = std::iter::once(root).chain(wrapped).map(|pairs| tensors_of(pickle, pairs));
    let most = found.reduce(|a, b| if b.len() > a.len() { b } else { a });
    let Some(tensors) = most.filter(|tensors| !tensors.is_empty()) else {
        let keys: Vec<&str> = root.iter().filter_map(|(key, _)| key.text()).take(8).collect();
        return Err(WeightsError::Format(format!(
            "no tensor in the dictionary, whose keys are {keys:?}, nor under {WRAPPERS:?}"
        )));
    };
    let mut state = StateDict::new();
    // Tied weights lie once in a file and count twice; more of that is a trick to fill the memory.
    let mut left = file_bytes.saturating_mul(2);
    for (name, node) in tensors {
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        let view = view_of(pickle, name, node, &storage)?;
        if !view.element.is_float() {
            let found = format!("{:?}", view.element);
            return Err(WeightsError::ElementType { name: name.to_owned(), found });
        }
        let values = view.values(name)?;
        left = left.checked_sub(values.len()).ok_or_else(|| {
            WeightsError::Format(format!("more values than the file of {file_bytes} bytes can hold"))
        })?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.to_owned(), index, value: values[index] });
        }
        state.insert(name.to_owned(), Entry { shape: view.shape, values });
    }
    Ok(state)
}

/// The entries that are tensors or arrays; of two of one name the last, as in Python.
fn tensors_of<'a>(
    pickle: &'a Pickle<'a>,
    pairs: &[(Value<'a>, Value<'a>)],
) -> BTreeMap<&'a str, &'a Node<'a>> {
    pairs
        .iter()
        .filter_map(|(key, value)| match value {
            Value::Node(n) => {
                let node = &pickle.nodes[*n];
                matches!(node, Node::Tensor { .. } | Node::Array { .. }).then_some((key.text()?, node))
            }
            _ => None,
        })
        .collect()
}

fn view_of<'a>(
    pickle: &'a Pickle<'a>,
    name: &str,
    node: &'a Node<'a>,
    storage: impl Fn(&str, ElementType) -> Result<&'a [u8], WeightsError>,
) -> Result<View<'a>, WeightsError> {
    match node {
        Node::Tensor { storage: at, offset, shape, stride } => match &pickle.nodes[*at] {
            Node::Storage { element, key } => Ok(View {
                element: *element,
                bytes: storage(key, *element)?,
                offset: *offset,
                shape: shape.clone(),
                stride: stride.clone(),
            }),
            _ => Err(WeightsError::Format(format!("tensor {name:?} has no storage"))),
        },
        Node::Array { dtype, shape, fortran, data } => {
            let element = match dtype.map(|at| &pickle.nodes[at]) {
                Some(Node::Dtype { element: Some(element), big_endian: false }) => *element,
                other => {
                    let (name, found) = (name.to_owned(), format!("{other:?}"));
                    return Err(WeightsError::ElementType { name, found });
                }
            };
            let bytes = pickle
                .bytes(*data)
                .ok_or_else(|| WeightsError::Format(format!("array {name:?} has no bytes")))?;
            let stride = View::contiguous(shape, *fortran);
            Ok(View { element, bytes, offset: 0, shape: shape.clone(), stride })
        }
        _ => Err(WeightsError::Format(format!("{name:?} is no tensor"))),
    }
}

fn value_of<'a>(pairs: &[(Value<'a>, Value<'a>)], key: &str) -> Option<Value<'a>> {
    pairs.iter().rev().find(|(k, _)| k.text() == Some(key)).map(|(_, value)| *value)
}

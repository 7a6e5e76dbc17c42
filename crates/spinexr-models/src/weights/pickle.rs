//! A reader of Python pickles that runs nothing.
//!
//! A pickle is a program for a small stack machine, and two of its instructions, GLOBAL and REDUCE, name and call
//! any Python function. This machine knows the containers and numbers, and the few names that a file of weights
//! needs ([`Global`]); any other name ends the reading with an error that tells it. Nothing is imported, called or
//! unpacked.
//!
//! Reference: `Lib/pickletools.py` of CPython, which lists every opcode and its argument; protocols 2 to 5 in binary
//! form. The text opcodes of protocols 0 and 1 are not read.
//!
//! Values lie in one list and refer to each other by number, so that neither depth nor cycles can overflow the
//! stack; everything that is made is bounded by the length of the file.

use std::collections::HashMap;

use super::WeightsError;
use super::strided::ElementType;

/// A value; containers are numbers of [`Pickle::nodes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Big(&'a [u8]),
    Float(f64),
    Text(&'a str),
    /// Python's bytes, or its text before version 3.
    Bytes(&'a [u8]),
    Global(Global),
    Node(usize),
}

/// The names that a file of weights may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(ElementType),
    TorchSize,
    NumpyReconstruct,
    NumpyFromBuffer,
    NumpyScalar,
    NumpyArray,
    NumpyDtype,
    CodecsEncode,
}

impl Global {
    fn known(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::TorchSize,
            ("torch", "DoubleStorage") => Self::Storage(ElementType::F64),
            ("torch", "FloatStorage") => Self::Storage(ElementType::F32),
            ("torch", "HalfStorage") => Self::Storage(ElementType::F16),
            ("torch", "BFloat16Storage") => Self::Storage(ElementType::Bf16),
            ("torch", "LongStorage") => Self::Storage(ElementType::I64),
            ("torch", "IntStorage") => Self::Storage(ElementType::I32),
            ("torch", "ShortStorage") => Self::Storage(ElementType::I16),
            ("torch", "CharStorage") => Self::Storage(ElementType::I8),
            ("torch", "ByteStorage" | "BoolStorage") => Self::Storage(ElementType::U8),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::NumpyReconstruct,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::NumpyFromBuffer,
            ("numpy", "ndarray") => Self::NumpyArray,
            ("numpy", "dtype") => Self::NumpyDtype,
            ("_codecs", "encode") => Self::CodecsEncode,
            _ => return None,
        })
    }
}

/// What a [`Value::Node`] stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// Bytes that the pickle keeps as text.
    OwnedBytes(Vec<u8>),
    /// A storage by its key, as PyTorch's persistent ids name it.
    Storage {
        element: ElementType,
        key: &'a str,
    },
    /// A view of a storage; sizes and steps in elements.
    Tensor {
        storage: usize,
        offset: usize,
        shape: Vec<usize>,
        stride: Vec<usize>,
    },
    /// NumPy's element type; `None` for one that holds no numbers.
    Dtype {
        element: Option<ElementType>,
        big_endian: bool,
    },
    /// A NumPy array; empty until its state is set.
    Array {
        dtype: Option<usize>,
        shape: Vec<usize>,
        fortran: bool,
        data: Value<'a>,
    },
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub nodes: Vec<Node<'a>>,
    pub root: Value<'a>,
    /// Bytes up to and with the STOP.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// [`WeightsError::Refused`] for a name that is not in [`Global`], [`WeightsError::Pickle`] for anything that
    /// is cut short, contradicts itself or is not of this format.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        let mut machine = Machine { bytes, at: 0, op_at: 0, ..Machine::default() };
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root, length: machine.at })
    }

    /// The pairs of a dictionary.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Node(n) => match &self.nodes[n] {
                Node::Dict(pairs) => Some(pairs),
                _ => None,
            },
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(n) => match &self.nodes[n] {
                Node::List(items) | Node::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes, whichever way they are kept.
    pub fn bytes(&self, value: Value<'a>) -> Option<&[u8]> {
        match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Text(text) => Some(text.as_bytes()),
            Value::Node(n) => match &self.nodes[n] {
                Node::OwnedBytes(bytes) => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }
}

impl<'a> Value<'a> {
    /// Text, also that of Python 2.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    fn size(self) -> Option<usize> {
        match self {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }
}

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the present opcode lies, for messages.
    op_at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each open MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
    /// Bytes in [`Node::OwnedBytes`] so far.
    owned_bytes: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, WeightsError> {
        loop {
            self.op_at = self.at;
            let [op] = self.array()?;
            match op {
                b'\x80' => {
                    let [protocol] = self.array()?;
                    if !(2..=5).contains(&protocol) {
                        return self.fault(format!("protocol {protocol}, expected 2 to 5"));
                    }
                }
                b'\x95' => drop(self.array::<8>()?), // FRAME: its length is of no use to a reader in memory
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.pop()?;
                    self.stack.extend([top, top]);
                }
                b'N' => self.stack.push(Value::None),
                b'\x88' => self.stack.push(Value::Bool(true)),
                b'\x89' => self.stack.push(Value::Bool(false)),
                b'K' => {
                    let [n] = self.array()?;
                    self.stack.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(n.into()));
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(n.into()));
                }
                b'\x8a' => {
                    let n = self.length8()?;
                    self.long(n)?;
                }
                b'\x8b' => {
                    let n = self.length32()?;
                    self.long(n)?;
                }
                b'G' => {
                    let x = f64::from_be_bytes(self.array()?);
                    self.stack.push(Value::Float(x));
                }
                b'X' => {
                    let n = self.length32()?;
                    self.text(n)?;
                }
                b'\x8c' => {
                    let n = self.length8()?;
                    self.text(n)?;
                }
                b'\x8d' => {
                    let n = self.length64()?;
                    self.text(n)?;
                }
                b'U' | b'C' => {
                    let n = self.length8()?;
                    self.raw(n)?;
                }
                b'T' | b'B' => {
                    let n = self.length32()?;
                    self.raw(n)?;
                }
                b'\x8e' | b'\x96' => {
                    let n = self.length64()?;
                    self.raw(n)?;
                }
                b']' => self.make(Node::List(Vec::new())),
                b')' => self.make(Node::Tuple(Vec::new())),
                b'}' => self.make(Node::Dict(Vec::new())),
                b'l' => {
                    let items = self.pop_mark()?;
                    self.make(Node::List(items));
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.make(Node::Tuple(items));
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.make(Node::Dict(pairs));
                }
                b'\x85'..=b'\x87' => {
                    let count = usize::from(op - b'\x84');
                    let Some(start) = self.stack.len().checked_sub(count).filter(|s| *s >= self.floor())
                    else {
                        return self.fault("a tuple of more values than there are");
                    };
                    let items = self.stack.split_off(start);
                    self.make(Node::Tuple(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let [n] = self.array()?;
                    self.put(n.into())?;
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.put(n)?;
                }
                b'\x94' => self.put(self.memo.len() as u32)?,
                b'h' => {
                    let [n] = self.array()?;
                    self.get(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.get(n)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                b'\x93' => {
                    let (name, module) = (self.pop()?.text(), self.pop()?.text());
                    let (Some(module), Some(name)) = (module, name) else {
                        return self.fault("STACK_GLOBAL without a module and a name");
                    };
                    self.global(module, name)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'Q' => self.persistent()?,
                op => {
                    return self.fault(format!(
                        "opcode {op:#04x} has no place in a file of weights of protocol 2 to 5"
                    ));
                }
            }
        }
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, WeightsError> {
        Err(WeightsError::Pickle { at: self.op_at, message: message.into() })
    }

    fn slice(&mut self, count: usize) -> Result<&'a [u8], WeightsError> {
        match self.bytes[self.at..].get(..count) {
            Some(slice) => {
                self.at += count;
                Ok(slice)
            }
            None => {
                let left = self.bytes.len() - self.at;
                self.fault(format!("it breaks off: {count} bytes expected, {left} left"))
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        Ok(self.slice(N)?.try_into().expect("a slice of the length asked for"))
    }

    fn length8(&mut self) -> Result<usize, WeightsError> {
        let [n] = self.array()?;
        Ok(n.into())
    }

    fn length32(&mut self) -> Result<usize, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length64(&mut self) -> Result<usize, WeightsError> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).or_else(|_| self.fault(format!("a length of {n} bytes")))
    }

    fn line(&mut self) -> Result<&'a str, WeightsError> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            return self.fault("a name without its end");
        };
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).or_else(|_| self.fault("a name that is no UTF-8"))
    }

    fn text(&mut self, count: usize) -> Result<(), WeightsError> {
        let Ok(text) = std::str::from_utf8(self.slice(count)?) else {
            return self.fault("text that is no UTF-8");
        };
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn raw(&mut self, count: usize) -> Result<(), WeightsError> {
        let bytes = self.slice(count)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    fn long(&mut self, count: usize) -> Result<(), WeightsError> {
        let bytes = self.slice(count)?;
        self.stack.push(if count > 8 {
            Value::Big(bytes)
        } else {
            // Two's complement, little-endian, as short as it goes.
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut whole = [if negative { 0xff } else { 0 }; 8];
            whole[..count].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(whole))
        });
        Ok(())
    }

    fn make(&mut self, node: Node<'a>) {
        self.nodes.push(node);
        self.stack.push(Value::Node(self.nodes.len() - 1));
    }

    /// Height below which the innermost MARK protects the stack.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>, WeightsError> {
        if self.stack.len() <= self.floor() {
            return self.fault("a value is taken from an empty stack");
        }
        Ok(self.stack.pop().expect("not empty, as checked"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, WeightsError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.fault("a MARK is missing"),
        }
    }

    fn put(&mut self, key: u32) -> Result<(), WeightsError> {
        let top = self.pop()?;
        self.memo.insert(key, top);
        self.stack.push(top);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Result<(), WeightsError> {
        match self.memo.get(&key) {
            Some(value) => self.stack.push(*value),
            None => return self.fault(format!("memo {key} was never set")),
        }
        Ok(())
    }

    fn pairs(&self, items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>, WeightsError> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
            _ => self.fault("a key without a value"),
        }
    }

    /// The container on top of the stack, which stays there.
    fn top_node(&mut self) -> Result<&mut Node<'a>, WeightsError> {
        let top = self.pop()?;
        self.stack.push(top);
        match top {
            Value::Node(n) => Ok(&mut self.nodes[n]),
            other => self.fault(format!("a container is expected, found {other:?}")),
        }
    }

    fn append(&mut self, new: &[Value<'a>]) -> Result<(), WeightsError> {
        match self.top_node()? {
            Node::List(items) => items.extend(new),
            _ => return self.fault("an item is appended to what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, new: &[Value<'a>]) -> Result<(), WeightsError> {
        let new = self.pairs(new)?;
        match self.top_node()? {
            Node::Dict(pairs) => pairs.extend(new),
            _ => return self.fault("an entry is set in what is no dictionary"),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), WeightsError> {
        match Global::known(module, name) {
            Some(global) => self.stack.push(Value::Global(global)),
            None => return Err(WeightsError::Refused { name: format!("{module}.{name}") }),
        }
        Ok(())
    }

    fn tuple(&self, value: Value<'a>) -> Result<Vec<Value<'a>>, WeightsError> {
        match value {
            Value::Node(n) => match &self.nodes[n] {
                // Arguments are few; a long tuple used again and again must not be copied each time.
                Node::Tuple(items) if items.len() <= 16 => Ok(items.clone()),
                other => self.fault(format!("a short tuple is expected, found {}", other.kind())),
            },
            other => self.fault(format!("a tuple is expected, found {other:?}")),
        }
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, WeightsError> {
        let items = self.tuple(value)?;
        if items.len() > MAX_DIMENSIONS {
            return self.fault(format!("{} dimensions, expected at most {MAX_DIMENSIONS}", items.len()));
        }
        match items.iter().map(|item| item.size()).collect() {
            Some(sizes) => Ok(sizes),
            None => self.fault(format!("sizes are expected, found {items:?}")),
        }
    }

    fn reduce(&mut self) -> Result<(), WeightsError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else {
            return self.fault(format!("a call of {function:?}, which is no function"));
        };
        let given = self.tuple(arguments)?;
        let wrong = || self.fault(format!("{function:?} is called with {} arguments", given.len()));
        match (function, &given[..]) {
            (Global::OrderedDict, []) => self.make(Node::Dict(Vec::new())),
            (Global::RebuildTensor, [Value::Node(storage), offset, shape, stride, ..])
                if matches!(self.nodes[*storage], Node::Storage { .. }) =>
            {
                let Some(offset) = offset.size() else {
                    return self.fault(format!("an offset is expected, found {offset:?}"));
                };
                let (storage, shape, stride) = (*storage, self.sizes(*shape)?, self.sizes(*stride)?);
                if shape.len() != stride.len() {
                    return self.fault(format!("shape {shape:?} with steps {stride:?}"));
                }
                self.make(Node::Tensor { storage, offset, shape, stride });
            }
            (Global::RebuildParameter, [tensor @ Value::Node(n), ..])
                if matches!(self.nodes[*n], Node::Tensor { .. }) =>
            {
                self.stack.push(*tensor);
            }
            (Global::TorchSize, [sizes]) => {
                self.tuple(*sizes)?;
                self.stack.push(*sizes);
            }
            (Global::NumpyReconstruct, [Value::Global(Global::NumpyArray), _, _]) => {
                self.make(Node::Array { dtype: None, shape: Vec::new(), fortran: false, data: Value::None });
            }
            (Global::NumpyFromBuffer, [data, Value::Node(dtype), shape, order]) => {
                let (shape, fortran) = (self.sizes(*shape)?, order.text() == Some("F"));
                self.make(Node::Array { dtype: Some(*dtype), shape, fortran, data: *data });
            }
            (Global::NumpyScalar, [Value::Node(dtype), data]) => {
                self.make(Node::Array {
                    dtype: Some(*dtype),
                    shape: Vec::new(),
                    fortran: false,
                    data: *data,
                });
            }
            (Global::NumpyDtype, [code, ..]) => {
                let element = code.text().and_then(ElementType::of_numpy);
                self.make(Node::Dtype { element, big_endian: false });
            }
            (Global::CodecsEncode, [Value::Text(text), encoding]) if encoding.text() == Some("latin1") => {
                // Used again and again, one text could fill the memory.
                self.owned_bytes += text.len();
                if self.owned_bytes > self.bytes.len() {
                    return self.fault("more bytes than the file has");
                }
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                match bytes {
                    Some(bytes) => self.make(Node::OwnedBytes(bytes)),
                    None => return self.fault("bytes that are no bytes"),
                }
            }
            _ => return wrong(),
        }
        Ok(())
    }

    /// BUILD: the state of a NumPy array or dtype; that of a dictionary (PyTorch's `_metadata`) is passed over.
    fn build(&mut self) -> Result<(), WeightsError> {
        let state = self.pop()?;
        if matches!(self.top_node()?, Node::Dict(_)) {
            return Ok(());
        }
        let state = self.tuple(state)?;
        let built = match (self.top_node()?, &state[..]) {
            (Node::Dtype { element, .. }, [_, Value::Text(order), ..]) => {
                Node::Dtype { element: *element, big_endian: *order == ">" }
            }
            (Node::Dtype { element, .. }, [_, Value::Bytes(order), ..]) => {
                Node::Dtype { element: *element, big_endian: *order == b">" }
            }
            (Node::Array { .. }, [_, shape, Value::Node(dtype), fortran, data]) => {
                let fortran = matches!(fortran, Value::Bool(true) | Value::Int(1));
                Node::Array { dtype: Some(*dtype), shape: self.sizes(*shape)?, fortran, data: *data }
            }
            (other, _) => {
                let kind = other.kind();
                return self.fault(format!("the state of {kind}, which has none"));
            }
        };
        *self.top_node()? = built;
        Ok(())
    }

    /// BINPERSID: `("storage", type, key, device, elements)`.
    fn persistent(&mut self) -> Result<(), WeightsError> {
        let id = self.pop()?;
        let id = self.tuple(id)?;
        match id[..] {
            [what, Value::Global(Global::Storage(element)), key, ..] if what.text() == Some("storage") => {
                let Some(key) = key.text() else { return self.fault("a storage without a key") };
                self.make(Node::Storage { element, key });
                Ok(())
            }
            _ => self.fault("a persistent id that names no storage"),
        }
    }
}

impl Node<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::OwnedBytes(_) => "bytes",
            Self::Storage { .. } => "a storage",
            Self::Tensor { .. } => "a tensor",
            Self::Dtype { .. } => "an element type",
            Self::Array { .. } => "an array",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_numbers() {
        // pickle.dumps({'a': [1, -2, 300, True, None, 1.5], 'b': (b'x', 10**5)}, protocol=2..4) by hand.
        let bytes = b"\x80\x02}(X\x01\x00\x00\x00a](K\x01J\xfe\xff\xff\xffM\x2c\x01\x88NG?\xf8\x00\x00\x00\x00\x00\x00eU\x01b\
                      C\x01xJ\xa0\x86\x01\x00\x86u.";
        let pickle = Pickle::read(bytes).unwrap();
        let dict = pickle.dict(pickle.root).unwrap();
        assert_eq!(dict[0].0.text(), Some("a"));
        let ints = pickle.items(dict[0].1).unwrap();
        let expected = [
            Value::Int(1),
            Value::Int(-2),
            Value::Int(300),
            Value::Bool(true),
            Value::None,
            Value::Float(1.5),
        ];
        assert_eq!(ints, expected);
        assert_eq!(dict[1].0.text(), Some("b"));
        assert_eq!(pickle.items(dict[1].1).unwrap(), [Value::Bytes(b"x"), Value::Int(100_000)]);
        assert_eq!(pickle.length, bytes.len());
    }

    #[test]
    fn a_name_that_is_no_weight_is_refused_by_its_name() {
        for bytes in [
            &b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."[..],
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
        ] {
            let error = Pickle::read(bytes).unwrap_err();
            assert!(matches!(&error, WeightsError::Refused { name } if name == "posix.system"), "{error}");
        }
    }

    #[test]
    fn depth_and_cycles_are_harmless() {
        // A million lists in each other, and a list in itself.
        let mut deep = vec![b']'; 1_000_000];
        deep.extend(vec![b'a'; 999_999]);
        deep.push(b'.');
        assert_eq!(Pickle::read(&deep).unwrap().nodes.len(), 1_000_000);
        let cycle = Pickle::read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(cycle.items(cycle.root).unwrap(), [Value::Node(0)]);
    }

    #[test]
    fn one_text_cannot_fill_the_memory() {
        let mut bytes = b"c_codecs\nencode\nq\x000X\xe8\x03\x00\x00".to_vec();
        bytes.extend([b'a'; 1000]);
        bytes.extend(b"X\x06\x00\x00\x00latin1\x86q\x010");
        for _ in 0..100 {
            bytes.extend(b"h\x00h\x01R0");
        }
        bytes.extend(b"N.");
        assert!(Pickle::read(&bytes).unwrap_err().to_string().contains("more bytes than the file has"));
    }

    #[test]
    fn broken_programs_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"\x80\x06.",
            b"X\xff\xff\xff\xffa",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa",
            b"h\x05.",
            b"e.",
            b"K\x01(a.",
            b"K\x01\x86.",
            b"NNs.",
            b"N)R.",
            b"ccollections\nOrderedDict\nK\x01\x85R.",
            b"(cnumpy\nndarray\n",
            b"i",
        ] {
            assert!(Pickle::read(bytes).is_err(), "{bytes:?}");
        }
    }
}

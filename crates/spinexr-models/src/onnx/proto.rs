//! The messages of ONNX that a network without control flow needs, as Protocol Buffers on the wire.
//!
//! Reference: `onnx/onnx.proto3` of ONNX (field numbers) and the wire format of Protocol Buffers: a field is a varint
//! of number and kind, then a varint, four bytes, or a length and bytes.

/// A message under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    pub fn messages<'a>(self, field: u64, values: impl IntoIterator<Item = &'a Self>) -> Self {
        values.into_iter().fold(self, |message, value| message.message(field, value))
    }

    pub fn texts<'a>(self, field: u64, values: impl IntoIterator<Item = &'a str>) -> Self {
        values.into_iter().fold(self, |message, value| message.text(field, value))
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The value of an attribute of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Text(&'a str),
    Ints(&'a [i64]),
}

/// `AttributeProto`.
pub(super) fn attribute(name: &str, value: Attribute<'_>) -> Message {
    let message = Message::default().text(1, name);
    let (message, kind) = match value {
        Attribute::Float(value) => (message.float(2, value), 1),
        Attribute::Int(value) => (message.int(3, value), 2),
        Attribute::Text(value) => (message.text(4, value), 3),
        Attribute::Ints(values) => (values.iter().fold(message, |m, value| m.int(8, *value)), 7),
    };
    message.int(20, kind)
}

/// `NodeProto`.
pub(super) fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute<'_>)]) -> Message {
    let attributes: Vec<Message> = attributes.iter().map(|(name, value)| attribute(name, *value)).collect();
    Message::default()
        .texts(1, inputs.iter().copied())
        .text(2, output)
        .text(3, output)
        .text(4, op)
        .messages(5, &attributes)
}

/// `TensorProto` of f32 (kind 1) or i64 (kind 7) in row-major order.
pub(super) fn tensor(name: &str, shape: &[usize], kind: i64, bytes: &[u8]) -> Message {
    let message = shape.iter().fold(Message::default(), |m, size| m.int(1, *size as i64));
    message.int(2, kind).text(8, name).bytes(9, bytes)
}

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dimension<'a> {
    Fixed(usize),
    /// Of any size, with a name for people.
    Any(&'a str),
}

/// `ValueInfoProto` of an f32 tensor.
pub(super) fn value_info(name: &str, shape: &[Dimension<'_>]) -> Message {
    let dimensions: Vec<Message> = shape
        .iter()
        .map(|dimension| match dimension {
            Dimension::Fixed(size) => Message::default().int(1, *size as i64),
            Dimension::Any(name) => Message::default().text(2, name),
        })
        .collect();
    let shape = Message::default().messages(1, &dimensions);
    let tensor = Message::default().int(1, 1).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format() {
        // The examples of the encoding guide: field 1 = 150, field 2 = "testing".
        assert_eq!(Message::default().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").into_bytes(), b"\x12\x07testing");
        assert_eq!(Message::default().int(1, -1).into_bytes().len(), 11);
        assert_eq!(Message::default().float(2, 1.0).into_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
    }
}

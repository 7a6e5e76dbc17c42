//! A network under way: its nodes, and the weights they use.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use super::OnnxError;
use super::proto::{self, Attribute, Dimension, Message};
use crate::weights::{Entry, StateDict};

/// Version of the operators, the oldest that has all of them in the form used.
const OPSET: i64 = 17;
/// Version of the file format that goes with it.
const IR_VERSION: i64 = 8;

/// A value in the graph, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value(String);

/// See the module.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    state: &'a StateDict,
    nodes: Vec<Message>,
    initializers: BTreeMap<String, Message>,
    eps: f32,
}

/// Little-endian bytes of f32 values.
fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl<'a> Graph<'a> {
    /// An empty graph over these weights, with batch norms' `eps`.
    pub fn new(state: &'a StateDict, eps: f32) -> Self {
        Self { state, nodes: Vec::new(), initializers: BTreeMap::new(), eps }
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Value {
        Value(name.to_owned())
    }

    /// Adds a node; its output is named after `what`, with a number.
    pub fn node(&mut self, op: &str, inputs: &[&Value], attributes: &[(&str, Attribute<'_>)]) -> Value {
        let output = Value(format!("{}_{}", op.to_lowercase(), self.nodes.len()));
        self.named_node(op, inputs, attributes, output)
    }

    fn named_node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute<'_>)],
        output: Value,
    ) -> Value {
        let inputs: Vec<&str> = inputs.iter().map(|v| v.0.as_str()).collect();
        self.nodes.push(proto::node(op, &inputs, &output.0, attributes));
        output
    }

    /// Gives a value the name of an output.
    pub fn output(&mut self, name: &str, value: &Value) {
        self.named_node("Identity", &[value], &[], Value(name.to_owned()));
    }

    /// Integers that a node takes as an input.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let name = format!("integers_{}", values.iter().map(i64::to_string).collect::<Vec<_>>().join("_"));
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = proto::tensor(&name, &[values.len()], 7, &bytes);
        self.initializers.insert(name.clone(), tensor);
        Value(name)
    }

    fn entry(&self, name: &str) -> Result<&'a Entry, OnnxError> {
        self.state.get(name).ok_or_else(|| OnnxError::Missing { name: name.to_owned() })
    }

    /// A tensor of the state dict, under its own name.
    pub fn weight(&mut self, name: &str) -> Result<Value, OnnxError> {
        let entry = self.entry(name)?;
        if let Slot::Vacant(slot) = self.initializers.entry(name.to_owned()) {
            slot.insert(proto::tensor(name, &entry.shape, 1, &float_bytes(&entry.values)));
        }
        Ok(Value(name.to_owned()))
    }

    /// Convolution `<prefix>.weight`, with `<prefix>.bias` where there is one.
    pub fn conv(&mut self, x: &Value, prefix: &str, stride: i64, padding: i64) -> Result<Value, OnnxError> {
        let name = format!("{prefix}.weight");
        let [_, _, kh, kw] = self.entry(&name)?.shape[..] else {
            return Err(OnnxError::Missing { name });
        };
        let weight = self.weight(&name)?;
        let bias = format!("{prefix}.bias");
        let bias = self.state.contains_key(&bias).then(|| self.weight(&bias)).transpose()?;
        let mut inputs = vec![x, &weight];
        inputs.extend(&bias);
        Ok(self.node(
            "Conv",
            &inputs,
            &[
                ("kernel_shape", Attribute::Ints(&[kh as i64, kw as i64])),
                ("strides", Attribute::Ints(&[stride; 2])),
                ("pads", Attribute::Ints(&[padding; 4])),
            ],
        ))
    }

    /// Batch norm by running statistics.
    pub fn norm(&mut self, x: &Value, prefix: &str) -> Result<Value, OnnxError> {
        let mut part = |what: &str| self.weight(&format!("{prefix}.{what}"));
        let (scale, shift) = (part("weight")?, part("bias")?);
        let (mean, var) = (part("running_mean")?, part("running_var")?);
        let eps = Attribute::Float(self.eps);
        Ok(self.node("BatchNormalization", &[x, &scale, &shift, &mean, &var], &[("epsilon", eps)]))
    }

    pub fn relu(&mut self, x: &Value) -> Value {
        self.node("Relu", &[x], &[])
    }

    pub fn norm_relu(&mut self, x: &Value, prefix: &str) -> Result<Value, OnnxError> {
        let x = self.norm(x, prefix)?;
        Ok(self.relu(&x))
    }

    pub fn max_pool(&mut self, x: &Value, kernel: i64, stride: i64, padding: i64) -> Value {
        self.pool("MaxPool", x, kernel, stride, padding)
    }

    pub fn average_pool(&mut self, x: &Value, kernel: i64, stride: i64) -> Value {
        self.pool("AveragePool", x, kernel, stride, 0)
    }

    fn pool(&mut self, op: &str, x: &Value, kernel: i64, stride: i64, padding: i64) -> Value {
        self.node(
            op,
            &[x],
            &[
                ("kernel_shape", Attribute::Ints(&[kernel; 2])),
                ("strides", Attribute::Ints(&[stride; 2])),
                ("pads", Attribute::Ints(&[padding; 4])),
            ],
        )
    }

    pub fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        self.node("Concat", parts, &[("axis", Attribute::Int(axis))])
    }

    /// Sizes `from..to` of a value's shape, as integers.
    pub fn sizes(&mut self, x: &Value, from: i64, to: i64) -> Value {
        self.node("Shape", &[x], &[("start", Attribute::Int(from)), ("end", Attribute::Int(to))])
    }

    /// `x` to the height and width of `like`, each pixel from the one at the rounded-down place.
    pub fn upsample_nearest(&mut self, x: &Value, like: &Value) -> Value {
        let (outer, inner) = (self.sizes(x, 0, 2), self.sizes(like, 2, 4));
        let sizes = self.concat(&[&outer, &inner], 0);
        let none = Value(String::new()); // no region of interest, no scales
        self.node(
            "Resize",
            &[x, &none, &none, &sizes],
            &[
                ("mode", Attribute::Text("nearest")),
                ("nearest_mode", Attribute::Text("floor")),
                ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
            ],
        )
    }

    /// Zeros at the bottom and the right, up to a multiple of `divisor`.
    pub fn pad_to_multiple(&mut self, x: &Value, divisor: i64) -> Value {
        let size = self.sizes(x, 2, 4);
        let divisor = self.integers(&[divisor, divisor]);
        // (d - size mod d) mod d
        let over = self.node("Mod", &[&size, &divisor], &[]);
        let lack = self.node("Sub", &[&divisor, &over], &[]);
        let lack = self.node("Mod", &[&lack, &divisor], &[]);
        let none = self.integers(&[0, 0, 0, 0, 0, 0]);
        let pads = self.concat(&[&none, &lack], 0);
        self.node("Pad", &[x, &pads], &[("mode", Attribute::Text("constant"))])
    }

    /// `[N, C, H, W]` to `[N, H W C / last, last]`: what lies at one place, in groups of `last`.
    pub fn by_place(&mut self, x: &Value, last: i64) -> Value {
        let x = self.node("Transpose", &[x], &[("perm", Attribute::Ints(&[0, 2, 3, 1]))]);
        let shape = self.integers(&[0, -1, last]); // 0 keeps the batch
        self.node("Reshape", &[&x, &shape], &[])
    }

    /// The file.
    pub fn into_model(
        self,
        name: &str,
        inputs: &[(&str, &[Dimension<'_>])],
        outputs: &[(&str, &[Dimension<'_>])],
        metadata: &BTreeMap<String, String>,
    ) -> Vec<u8> {
        let info = |values: &[(&str, &[Dimension<'_>])]| -> Vec<Message> {
            values.iter().map(|(name, shape)| proto::value_info(name, shape)).collect()
        };
        let graph = Message::default()
            .messages(1, &self.nodes)
            .text(2, name)
            .messages(5, self.initializers.values())
            .messages(11, &info(inputs))
            .messages(12, &info(outputs));
        let metadata: Vec<Message> =
            metadata.iter().map(|(key, value)| Message::default().text(1, key).text(2, value)).collect();
        Message::default()
            .int(1, IR_VERSION)
            .text(2, "spinexr")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(7, &graph)
            .message(8, &Message::default().text(1, "").int(2, OPSET))
            .messages(14, &metadata)
            .into_bytes()
    }
}

//! The content tree of a structured report (PS3.3 C.17.3), as it is written.

use super::codes::Code;
use super::words::Words;
use crate::write::element::{Element, Value, decimal_string};

/// Relationship Type (0040,A010).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relationship {
    Contains,
    HasConceptMod,
    HasObsContext,
    HasAcqContext,
    InferredFrom,
    SelectedFrom,
}

impl Relationship {
    const fn name(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::HasConceptMod => "HAS CONCEPT MOD",
            Self::HasObsContext => "HAS OBS CONTEXT",
            Self::HasAcqContext => "HAS ACQ CONTEXT",
            Self::InferredFrom => "INFERRED FROM",
            Self::SelectedFrom => "SELECTED FROM",
        }
    }
}

/// Value of a content item, by Value Type (0040,A040).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ItemValue {
    /// CONTAINER, with the identifier of the template that begins here.
    Container(Option<&'static str>),
    Code(Code),
    Text(String),
    UidRef(String),
    /// NUM: a number and its unit.
    Num(f64, Code),
    /// SCOORD: a polyline, (column, row) after (column, row).
    Polyline(Vec<f32>),
    /// IMAGE: the elements of its reference.
    Image(Vec<Element>),
}

/// A content item with what lies below it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContentItem {
    /// `None` for the root alone.
    relationship: Option<Relationship>,
    name: Option<Code>,
    value: ItemValue,
    children: Vec<Self>,
}

impl ContentItem {
    pub fn root(name: Code, template: &'static str, children: Vec<Self>) -> Self {
        Self { relationship: None, name: Some(name), value: ItemValue::Container(Some(template)), children }
    }

    pub fn new(relationship: Relationship, name: Code, value: ItemValue) -> Self {
        Self { relationship: Some(relationship), name: Some(name), value, children: vec![] }
    }

    /// An item that its template leaves without a name.
    pub fn unnamed(relationship: Relationship, value: ItemValue) -> Self {
        Self { relationship: Some(relationship), name: None, value, children: vec![] }
    }

    /// A container below another one.
    pub fn container(name: Code, children: Vec<Self>) -> Self {
        Self::new(Relationship::Contains, name, ItemValue::Container(None)).with(children)
    }

    /// The item with these below it.
    pub fn with(mut self, children: Vec<Self>) -> Self {
        self.children = children;
        self
    }

    /// The elements of the item, those of items below it in its Content Sequence (0040,A730).
    pub fn elements(&self, words: &Words) -> Vec<Element> {
        let mut elements = vec![Element::text(0x0040_A040, "CS", self.value_type())];
        if let Some(relationship) = self.relationship {
            elements.push(Element::text(0x0040_A010, "CS", relationship.name()));
        }
        if let Some(name) = &self.name {
            elements.push(Element::sequence(0x0040_A043, vec![name.item(words)]));
        }
        elements.extend(self.value_elements(words));
        if !self.children.is_empty() {
            let items = self.children.iter().map(|child| child.elements(words)).collect();
            elements.push(Element::sequence(0x0040_A730, items));
        }
        elements
    }

    const fn value_type(&self) -> &'static str {
        match self.value {
            ItemValue::Container(_) => "CONTAINER",
            ItemValue::Code(_) => "CODE",
            ItemValue::Text(_) => "TEXT",
            ItemValue::UidRef(_) => "UIDREF",
            ItemValue::Num(..) => "NUM",
            ItemValue::Polyline(_) => "SCOORD",
            ItemValue::Image(_) => "IMAGE",
        }
    }

    fn value_elements(&self, words: &Words) -> Vec<Element> {
        match &self.value {
            ItemValue::Container(template) => {
                let mut elements = vec![Element::text(0x0040_A050, "CS", "SEPARATE")];
                if let Some(template) = template {
                    let item = vec![
                        Element::text(0x0008_0105, "CS", "DCMR"),
                        Element::text(0x0040_DB00, "CS", *template),
                    ];
                    elements.push(Element::sequence(0x0040_A504, vec![item]));
                }
                elements
            }
            ItemValue::Code(code) => vec![Element::sequence(0x0040_A168, vec![code.item(words)])],
            ItemValue::Text(text) => vec![words.text(0x0040_A160, "UT", text)],
            ItemValue::UidRef(uid) => vec![Element::uid(0x0040_A124, uid.as_str())],
            ItemValue::Num(value, unit) => {
                vec![Element::sequence(0x0040_A300, vec![number(*value, unit, words)])]
            }
            ItemValue::Polyline(points) => vec![
                Element { tag: 0x0070_0022, value: Value::Fl(points.clone()) },
                Element::text(0x0070_0023, "CS", "POLYLINE"),
            ],
            ItemValue::Image(reference) => vec![Element::sequence(0x0008_1199, vec![reference.clone()])],
        }
    }
}

/// Item of Measured Value Sequence (0040,A300). A decimal string holds 16 characters; what does not fit stands in
/// Floating Point Value (0040,A161) as well.
fn number(value: f64, unit: &Code, words: &Words) -> Vec<Element> {
    let text = decimal_string(value);
    let is_exact = text.parse() == Ok(value);
    let mut item =
        vec![Element::sequence(0x0040_08EA, vec![unit.item(words)]), Element::text(0x0040_A30A, "DS", text)];
    if !is_exact {
        item.push(Element { tag: 0x0040_A161, value: Value::Fd(value) });
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::codes::{NO_UNITS, P_ABNORMAL};

    fn tags(elements: &[Element]) -> Vec<u32> {
        elements.iter().map(|e| e.tag).collect()
    }

    #[test]
    fn numbers_that_a_decimal_string_cannot_hold_are_there_as_floats_too() {
        let words = Words::beside(None, std::iter::empty());
        assert!(!tags(&number(0.25, &NO_UNITS, &words)).contains(&0x0040_A161));
        let third = number(1.0 / 3.0, &NO_UNITS, &words);
        assert!(third.iter().any(|e| e.value == Value::Fd(1.0 / 3.0)));
    }

    #[test]
    fn an_item_has_the_macro_of_its_value_type() {
        let words = Words::beside(None, std::iter::empty());
        let item = |value| {
            let mut tags =
                tags(&ContentItem::new(Relationship::Contains, P_ABNORMAL, value).elements(&words));
            tags.sort_unstable();
            tags
        };
        assert_eq!(item(ItemValue::Text("a".into())), [0x0040_A010, 0x0040_A040, 0x0040_A043, 0x0040_A160]);
        assert_eq!(
            item(ItemValue::Polyline(vec![0.0; 4])),
            [0x0040_A010, 0x0040_A040, 0x0040_A043, 0x0070_0022, 0x0070_0023]
        );
    }
}

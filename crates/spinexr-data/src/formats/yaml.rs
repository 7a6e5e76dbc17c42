//! The little of YAML that a `data.yaml` needs: scalars, lists and maps as a tree, with lines. Anchors and aliases are
//! refused, so that a small file stays a small tree.

use saphyr_parser::{Event, Parser};

/// Deepest nesting; a `data.yaml` has two levels.
const MAX_DEPTH: usize = 8;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its line and value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Node,
}

/// What is open: a list, or a map with perhaps a key that waits for its value.
enum Open {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, u64)>),
}

/// The first document of `text`, or the line and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Node, (u64, String)> {
    let mut open: Vec<Open> = vec![];
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| (e.marker().line() as u64, e.info().to_owned()))?;
        let line = span.start.line() as u64;
        let closed = match event {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err((line, "an anchor".to_owned()));
            }
            Event::Alias(_) => return Err((line, "an alias".to_owned())),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    return Err((line, format!("values nested deeper than {MAX_DEPTH}")));
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::List(vec![]),
                    _ => Open::Map(vec![], None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Node::List(items),
                Some(Open::Map(entries, _)) => Node::Map(entries),
                None => return Err((line, "an end without a start".to_owned())),
            },
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::DocumentEnd | Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
        };
        match open.last_mut() {
            None => return Ok(closed),
            Some(Open::List(items)) => items.push(closed),
            Some(Open::Map(entries, key @ None)) => match closed {
                Node::Scalar(text) if entries.iter().any(|entry| entry.key == text) => {
                    return Err((line, format!("the key {text:?} twice")));
                }
                Node::Scalar(text) => *key = Some((text, line)),
                _ => return Err((line, "a key that is no text".to_owned())),
            },
            Some(Open::Map(entries, key)) => {
                let (key, line) = key.take().expect("matched above");
                entries.push(Entry { key, line, value: closed });
            }
        }
    }
    Err((1, "nothing".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Node {
        Node::Scalar(text.to_owned())
    }

    #[test]
    fn both_forms_of_names_are_read() {
        let text = "# films\ntrain: ../train/images\nnc: 1\nnames: ['Vertebrae', \"b: c\"]\n";
        let Node::Map(entries) = parse(text).unwrap() else { panic!("a map") };
        let keys: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.line)).collect();
        assert_eq!(keys, [("train", 2), ("nc", 3), ("names", 4)]);
        assert_eq!(entries[2].value, Node::List(vec![scalar("Vertebrae"), scalar("b: c")]));
        let Node::Map(entries) = parse("names:\n  0: a\n  1: b c\n").unwrap() else { panic!("a map") };
        let Node::Map(names) = &entries[0].value else { panic!("a map") };
        assert_eq!((names[1].key.as_str(), &names[1].value), ("1", &scalar("b c")));
    }

    #[test]
    fn what_could_grow_is_refused() {
        for (text, why) in [
            ("a: &x [1]\nb: [*x, *x]\n", "an anchor"),
            ("b: *x\n", ""),
            ("a: 1\na: 2\n", "twice"),
            (&format!("a: {}", "[".repeat(100_000)), ""),
            (&format!("a: {}{}", "[".repeat(20), "]".repeat(20)), "deeper than 8"),
            ("", "nothing"),
            ("[1]: 2", "no text"),
        ] {
            let (line, found) = parse(text).unwrap_err();
            assert!(line <= 2 && found.contains(why), "{found}");
        }
    }
}

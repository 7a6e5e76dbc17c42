//! Multipart bodies (RFC 2046 5.1), `form-data` and `related` alike, taken apart as they come. Nothing of a part is held
//! back but what may be the beginning of a delimiter, and headers are bounded.

use super::body::Pieces;
use super::problem::Problem;
use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::{StreamExt, unfold};
use std::collections::VecDeque;

/// Most bytes of a part's headers.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// What a body is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// A part begins; its media type, empty when it has none.
    Part(String),
    Data(Bytes),
    PartEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Behind a delimiter: another part, or the end.
    Delimiter,
    Headers,
    Body,
    End,
}

/// Takes bytes in pieces of any length and gives events.
struct Splitter {
    delimiter: Vec<u8>,
    held: Vec<u8>,
    state: State,
}

impl Splitter {
    fn new(boundary: &str) -> Self {
        // The first delimiter has no line before it; a line end is put there so that all look alike.
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            held: b"\r\n".to_vec(),
            state: State::Preamble,
        }
    }

    fn push(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) -> Result<(), &'static str> {
        self.held.extend_from_slice(bytes);
        while self.step(events)? {}
        Ok(())
    }

    /// Goes on as far as the bytes say; false when more are needed.
    fn step(&mut self, events: &mut VecDeque<Event>) -> Result<bool, &'static str> {
        match self.state {
            State::Preamble | State::Body => {
                let is_body = self.state == State::Body;
                let found = find(&self.held, &self.delimiter);
                // Without a delimiter all but a possible beginning of one is data.
                let end = found.unwrap_or_else(|| (self.held.len() + 1).saturating_sub(self.delimiter.len()));
                let skip = end + if found.is_some() { self.delimiter.len() } else { 0 };
                let data: Vec<u8> = self.held.drain(..skip).take(end).collect();
                if is_body && !data.is_empty() {
                    events.push_back(Event::Data(data.into()));
                }
                if found.is_some() {
                    if is_body {
                        events.push_back(Event::PartEnd);
                    }
                    self.state = State::Delimiter;
                }
                Ok(found.is_some())
            }
            State::Delimiter => {
                let padding = self.held.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
                match self.held.get(padding..padding + 2) {
                    Some(b"--") => {
                        self.state = State::End;
                        Ok(true)
                    }
                    // The line end stays: headers, if there are none, end with it.
                    Some(b"\r\n") => {
                        self.held.drain(..padding);
                        self.state = State::Headers;
                        Ok(true)
                    }
                    Some(_) => Err("something other than a line end follows a delimiter"),
                    None if padding > MAX_HEADER_BYTES => Err("the line of a delimiter does not end"),
                    None => Ok(false),
                }
            }
            State::Headers => match find(&self.held, b"\r\n\r\n") {
                Some(end) if end <= MAX_HEADER_BYTES => {
                    let headers = String::from_utf8_lossy(&self.held[..end]).into_owned();
                    self.held.drain(..end + 4);
                    events.push_back(Event::Part(media_type(&headers)));
                    self.state = State::Body;
                    Ok(true)
                }
                None if self.held.len() <= MAX_HEADER_BYTES => Ok(false),
                _ => Err("the headers of a part are too long"),
            },
            State::End => {
                self.held.clear();
                Ok(false)
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = what[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|b| *b == first) {
        let at = from + at;
        if bytes[at..].starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Content-Type among header lines, in lower case, without parameters.
fn media_type(headers: &str) -> String {
    let value = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-type").then_some(value)
    });
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parts of a body.
pub(super) struct Parts {
    pieces: Pieces,
    splitter: Splitter,
    events: VecDeque<Event>,
}

impl Parts {
    pub fn new(pieces: Pieces, boundary: &str) -> Self {
        Self { pieces, splitter: Splitter::new(boundary), events: VecDeque::new() }
    }

    async fn event(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.pieces.next().await {
                Some(piece) => self.splitter.push(&piece?, &mut self.events).map_err(Problem::bad_request)?,
                None if self.splitter.state == State::End => return Ok(None),
                None => {
                    return Err(Problem::bad_request("the multipart body ends before its last delimiter"));
                }
            }
        }
    }

    /// The media type of the next part; what is left of the part before it is skipped.
    pub async fn next(&mut self) -> Result<Option<String>, Problem> {
        loop {
            match self.event().await? {
                Some(Event::Part(media_type)) => return Ok(Some(media_type)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The data of the part.
    pub fn data(&mut self) -> impl Stream<Item = Result<Bytes, Problem>> + Send + '_ {
        unfold(self, |parts| async {
            match parts.event().await {
                Ok(Some(Event::Data(bytes))) => Some((Ok(bytes), parts)),
                Ok(_) => None,
                Err(problem) => Some((Err(problem), parts)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Media type and data of every part.
    fn split(pieces: &[&[u8]], boundary: &str) -> Result<Vec<(String, Vec<u8>)>, &'static str> {
        let mut splitter = Splitter::new(boundary);
        let mut events = VecDeque::new();
        for piece in pieces {
            splitter.push(piece, &mut events)?;
        }
        if splitter.state != State::End {
            return Err("no end");
        }
        let mut parts: Vec<(String, Vec<u8>)> = vec![];
        for event in events {
            match event {
                Event::Part(media_type) => parts.push((media_type, vec![])),
                Event::Data(data) => parts.last_mut().unwrap().1.extend(data),
                Event::PartEnd => {}
            }
        }
        Ok(parts)
    }

    #[test]
    fn parts_of_both_kinds() {
        let body = b"preamble\r\n--b\r\nContent-Type: Application/DICOM; x=1\r\n\r\none\r\ntwo\r\n--b \t\r\n\r\n\r\n--b--epilogue";
        let expected =
            vec![("application/dicom".to_owned(), b"one\r\ntwo".to_vec()), (String::new(), vec![])];
        assert_eq!(split(&[body], "b"), Ok(expected.clone()));
        let single: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(split(&single, "b"), Ok(expected));
    }

    #[test]
    fn what_is_no_multipart_is_refused() {
        assert!(split(&[b"--b\r\n\r\nno end"], "b").is_err());
        assert!(split(&[b"--bx\r\n\r\n\r\n--b--"], "b").is_err());
        let long = [b"--b\r\nX: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n\r\n--b--"].concat();
        assert!(split(&[&long], "b").is_err());
    }

    #[test]
    fn little_is_held_back() {
        let mut splitter = Splitter::new("boundary");
        let mut events = VecDeque::new();
        splitter.push(b"--boundary\r\n\r\n", &mut events).unwrap();
        for _ in 0..100 {
            splitter.push(&[b'\r'; 10_000], &mut events).unwrap();
            assert!(splitter.held.len() < 20);
        }
    }

    proptest! {
        #[test]
        fn any_data_in_any_pieces(
            data in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'b'), any::<u8>()], 0..60), 0..4),
            cut in 1usize..40,
        ) {
            let boundary = "b-ünique";
            let mut body = vec![];
            for part in &data {
                body.extend(format!("\r\n--{boundary}\r\nContent-Type: a/b\r\n\r\n").as_bytes());
                body.extend(part);
            }
            body.extend(format!("\r\n--{boundary}--").as_bytes());
            let pieces: Vec<&[u8]> = body.chunks(cut).collect();
            let parts = split(&pieces, boundary).unwrap();
            prop_assert_eq!(parts.into_iter().map(|(_, d)| d).collect::<Vec<_>>(), data);
        }
    }
}

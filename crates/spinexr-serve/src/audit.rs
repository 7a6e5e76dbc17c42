//! Who did what to which film: an append-only file of JSON lines, each holding the hash of the one before it.
//!
//! A line names films by content hash and job id, never by patient, study or UID. Its `hash` is SHA-256 over the line
//! without `hash`; `prev` is the hash of the line before. So no line can be changed, taken out or put in without all that
//! follow being rewritten. What a chain cannot show by itself, that its end was cut off, the job store shows: it keeps the
//! number and hash of a line that was the last at most a minute ago ([`crate::store::Store::audit_head`]).
//!
//! A line is on the disk before the act it tells of is answered. A kill in the middle of a write leaves half a line; the
//! next start takes it away, as the act was not answered, and says so in a line of its own.

use crate::clock::{now_ms, rfc3339};
use crate::error::ServeError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spinexr_core::hex;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest line, bytes: what is longer is damage.
const MAX_LINE_BYTES: u64 = 1 << 16;
/// `prev` of the first line.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The last line of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number, counted from 1; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: BEGINNING.into() }
    }
}

/// An act, to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Act<'a> {
    /// What was done: `film.received`, `result.read` …
    pub action: &'a str,
    /// Who did it: `token:name`, `ae:TITLE@address`, `node`.
    pub actor: &'a str,
    /// Film, job or instance, by hash.
    pub object: &'a str,
    /// `ok`, or why not.
    pub outcome: &'a str,
}

/// A line of the log; its fields are written in this order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    time: String,
    action: String,
    actor: String,
    object: String,
    outcome: String,
    prev: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl Line {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("a line is plain data")
    }

    /// SHA-256 over the line without `hash`, which is taken out.
    fn take_hash(&mut self) -> (Option<String>, String) {
        let written = self.hash.take();
        (written, hex(&Sha256::digest(self.text().as_bytes())))
    }
}

/// The open log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    state: Mutex<(File, Head)>,
}

impl Audit {
    /// Opens or begins the log at `path`, checks the chain, and takes away half a line at its end.
    ///
    /// # Errors
    /// [`ServeError::Audit`] where the chain does not hold, [`ServeError::Io`].
    pub fn open(path: &Path) -> Result<Self, ServeError> {
        let io = || ServeError::io(path);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io())?;
        let (head, whole_bytes) = walk(path, &mut file)?;
        let length = file.metadata().map_err(io())?.len();
        let cut = length - whole_bytes;
        if cut > 0 {
            file.set_len(whole_bytes).map_err(io())?;
            file.sync_all().map_err(io())?;
        }
        let audit = Self { path: path.to_owned(), state: Mutex::new((file, head)) };
        if cut > 0 {
            let outcome = format!("{cut} bytes of an unfinished line taken away");
            audit.append(&Act {
                action: "audit.repaired",
                actor: "node",
                object: "audit",
                outcome: &outcome,
            })?;
        }
        Ok(audit)
    }

    /// Writes an act down, durably.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn append(&self, act: &Act<'_>) -> Result<Head, ServeError> {
        let io = || ServeError::io(&self.path);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, head) = &mut *state;
        let mut line = Line {
            seq: head.seq + 1,
            time: rfc3339(now_ms()),
            action: act.action.into(),
            actor: act.actor.into(),
            object: act.object.into(),
            outcome: act.outcome.into(),
            prev: head.hash.clone(),
            hash: None,
        };
        let (_, hash) = line.take_hash();
        line.hash = Some(hash.clone());
        let text = line.text() + "\n";
        let before = file.metadata().map_err(io())?.len();
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            // A full disk: half a line must not stay before the next one.
            let _ = file.set_len(before);
            return Err(io()(error));
        }
        *head = Head { seq: head.seq + 1, hash };
        Ok(head.clone())
    }

    /// The last line.
    pub fn head(&self) -> Head {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// Checks the chain in a file and gives its last line. Half a line at the end is let pass.
///
/// # Errors
/// [`ServeError::Audit`] names the first line that does not hold, [`ServeError::Io`].
pub fn verify(path: &Path) -> Result<Head, ServeError> {
    let mut file = File::open(path).map_err(ServeError::io(path))?;
    Ok(walk(path, &mut file)?.0)
}

/// Whether the log still has what the store remembers of it: `remembered` is the line of that number.
///
/// # Errors
/// [`ServeError::Audit`], [`ServeError::Io`].
pub fn verify_end(path: &Path, remembered: &Head) -> Result<(), ServeError> {
    let fail = |reason: &str| {
        Err(ServeError::Audit { path: path.into(), line: remembered.seq, reason: reason.into() })
    };
    if remembered.seq == 0 {
        return Ok(());
    }
    let file = File::open(path).map_err(ServeError::io(path))?;
    let line = BufReader::new(file).lines().nth(remembered.seq as usize - 1);
    match line.transpose().map_err(ServeError::io(path))? {
        None => fail("the job store remembers this line, and the log ends before it"),
        Some(text) => match serde_json::from_str::<Line>(&text) {
            Ok(line) if line.hash.as_ref() == Some(&remembered.hash) => Ok(()),
            _ => fail("the job store remembers another line here"),
        },
    }
}

/// The last line of the chain, and where it ends.
fn walk(path: &Path, file: &mut File) -> Result<(Head, u64), ServeError> {
    file.seek(SeekFrom::Start(0)).map_err(ServeError::io(path))?;
    let mut reader = BufReader::new(file);
    let (mut head, mut end) = (Head::default(), 0);
    let mut text = vec![];
    loop {
        text.clear();
        let read =
            (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut text).map_err(ServeError::io(path))?;
        let fail = |reason: String| Err(ServeError::Audit { path: path.into(), line: head.seq + 1, reason });
        if text.last() != Some(&b'\n') {
            if read as u64 == MAX_LINE_BYTES {
                return fail("longer than any line of a log".into());
            }
            return Ok((head, end));
        }
        let mut line: Line = match serde_json::from_slice(&text) {
            Ok(line) => line,
            Err(error) => return fail(format!("not a line of a log: {error}")),
        };
        let (written, expected) = line.take_hash();
        if written.as_ref() != Some(&expected) {
            return fail("its text does not have its hash".into());
        }
        if line.prev != head.hash || line.seq != head.seq + 1 {
            return fail("it does not follow the line before it".into());
        }
        head = Head { seq: head.seq + 1, hash: expected };
        end += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act<'a>(object: &'a str) -> Act<'a> {
        Act { action: "film.received", actor: "token:a", object, outcome: "ok" }
    }

    fn log_of(lines: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        for i in 0..lines {
            audit.append(&act(&format!("film{i}"))).unwrap();
        }
        (dir, path)
    }

    #[test]
    fn the_chain_goes_on_after_a_restart() {
        let (_dir, path) = log_of(3);
        let audit = Audit::open(&path).unwrap();
        let head = audit.append(&act("more")).unwrap();
        assert_eq!(head.seq, 4);
        assert_eq!(verify(&path).unwrap(), head);
        verify_end(&path, &head).unwrap();
    }

    #[test]
    fn every_way_of_tampering_shows() {
        let (_dir, path) = log_of(5);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let head = verify(&path).unwrap();
        let without_third = [lines[0], lines[1], lines[3], lines[4], ""].join("\n");
        let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4], ""].join("\n");
        for (changed, line) in [
            (text.replacen("film2", "film9", 1), 3),
            (without_third, 3),
            (swapped, 2),
            (text.replacen("\"ok\"", "\"no\"", 1), 1),
            (format!("{}\n{text}", lines[0]), 2),
        ] {
            std::fs::write(&path, changed).unwrap();
            match verify(&path) {
                Err(ServeError::Audit { line: found, .. }) => assert_eq!(found, line),
                other => panic!("{other:?}"),
            }
        }
        // The end cut off: the chain holds, and what the store remembers is gone.
        std::fs::write(&path, [lines[0], lines[1], ""].join("\n")).unwrap();
        assert_eq!(verify(&path).unwrap().seq, 2);
        assert!(verify_end(&path, &head).is_err());
    }

    #[test]
    fn half_a_line_is_taken_away_and_noted() {
        let (_dir, path) = log_of(2);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..60 {
            let mut torn = whole.clone();
            torn.extend(&whole[..cut]);
            std::fs::write(&path, torn).unwrap();
            assert_eq!(Audit::open(&path).unwrap().head().seq, 3);
            assert_eq!(verify(&path).unwrap().seq, 3);
        }
        assert!(std::fs::read_to_string(&path).unwrap().contains("audit.repaired"));
    }
}

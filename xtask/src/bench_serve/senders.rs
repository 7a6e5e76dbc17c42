//! Senders: so many threads, each with a connection of its own, each sending film after film until all are sent.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::{Agent, Body};

/// Longest that one request may take: a film may have to wait for all others.
const REQUEST: Duration = Duration::from_secs(600);

/// How long our service keeps a question for a job open, s.
const LONGEST_WAIT_S: u32 = 30;

/// Pauses of a sender that was refused, doubled each time. They are shorter than `Retry-After` asks for: senders that
/// come back too early are the harder case, and the phase is over within minutes.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Ours: a job that is waited for, and its record. `refusals`: whether being refused is no error, but sent again.
    Jobs { refusals: bool },
    /// The peer's: the answer is the result. `rounded`: as it comes, or without rounding to 8 bits.
    Direct { rounded: bool },
}

/// A film that was sent and read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Its place in the list.
    pub film: usize,
    /// p(abnormal).
    pub probability: f64,
    /// From the start of the first POST until the service has the film for good, s. The peer keeps nothing: none.
    pub acknowledged_s: Option<f64>,
    /// From the start of the first POST until its sender has the result, s.
    pub done_s: f64,
    /// Times that the job's state was asked for.
    pub polls: u32,
    /// `Retry-After` of each refusal, s.
    pub refusals_s: Vec<f64>,
    /// Connections that broke in place of an answer, where refusals are no error.
    pub cut_off: u32,
}

/// All that was sent, in the order of the films, and how long it took.
#[derive(Debug)]
pub struct Sending {
    pub films: Vec<Sent>,
    pub wall_s: f64,
}

/// Sends all films, by so many senders, to the service at `base`. The first error ends it.
pub fn send_all(base: &str, api: Api, films: &[PathBuf], senders: usize) -> Result<Sending> {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let results: Vec<Result<Vec<Sent>>> = std::thread::scope(|scope| {
        let sender = || {
            let sender = Sender::new(base, api);
            let mut sent = vec![];
            loop {
                let film = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = films.get(film) else { return Ok(sent) };
                let one = std::fs::read(path).map_err(anyhow::Error::from);
                match one.and_then(|bytes| sender.send(film, &bytes)) {
                    Ok(one) => sent.push(one),
                    Err(error) => {
                        // The others need not go on.
                        next.store(films.len(), Ordering::Relaxed);
                        return Err(error.context(format!("sending {}", path.display())));
                    }
                }
            }
        };
        let threads: Vec<_> = (0..senders).map(|_| scope.spawn(sender)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a sender does not panic")).collect()
    });
    let wall_s = begun.elapsed().as_secs_f64();
    let mut films: Vec<Sent> = results.into_iter().collect::<Result<Vec<_>>>()?.concat();
    films.sort_by_key(|sent| sent.film);
    Ok(Sending { films, wall_s })
}

/// The value of a gauge with one label in Prometheus' text.
pub fn gauge(base: &str, line: &str) -> Result<f64> {
    let text = agent().get(format!("{base}/metrics")).call()?.body_mut().read_to_string()?;
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    value.with_context(|| format!("no {line} in the metrics"))
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST)).build().into()
}

struct Sender<'a> {
    agent: Agent,
    base: &'a str,
    api: Api,
}

/// What came of one POST.
enum Answer {
    Taken(Value),
    Refused { retry_after_s: f64 },
    CutOff,
}

impl<'a> Sender<'a> {
    fn new(base: &'a str, api: Api) -> Self {
        Self { agent: agent(), base, api }
    }

    fn send(&self, film: usize, bytes: &[u8]) -> Result<Sent> {
        let begun = Instant::now();
        let (mut refusals_s, mut cut_off) = (vec![], 0);
        let taken = loop {
            match self.post(bytes)? {
                Answer::Taken(taken) => break taken,
                Answer::Refused { retry_after_s } => refusals_s.push(retry_after_s),
                Answer::CutOff => cut_off += 1,
            }
            std::thread::sleep(pause(film, refusals_s.len() as u32 + cut_off));
        };
        let posted_s = begun.elapsed().as_secs_f64();
        let (probability, polls, acknowledged_s) = match self.api {
            Api::Direct { .. } => (taken["probability"].as_f64(), 0, None),
            Api::Jobs { .. } => {
                let job = taken["id"].as_str().with_context(|| format!("no job in {taken}"))?;
                let (record, polls) = self.wait_for(job)?;
                (record["p_abnormal"].as_f64(), polls, Some(posted_s))
            }
        };
        let done_s = begun.elapsed().as_secs_f64();
        let probability = probability.context("no probability in the result")?;
        Ok(Sent { film, probability, acknowledged_s, done_s, polls, refusals_s, cut_off })
    }

    fn post(&self, bytes: &[u8]) -> Result<Answer> {
        let (path, may_refuse) = match self.api {
            Api::Jobs { refusals } => ("/api/v1/films", refusals),
            Api::Direct { rounded: true } => ("/films", false),
            Api::Direct { rounded: false } => ("/films?rounded=false", false),
        };
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/dicom");
        match request.send(bytes) {
            Ok(mut response) if may_refuse && response.status() == 503 => {
                let retry_after_s = retry_after_s(&response)?;
                response.body_mut().read_to_vec()?;
                Ok(Answer::Refused { retry_after_s })
            }
            Ok(response) => Ok(Answer::Taken(document(response)?)),
            // The service may close before all of the body has come; what it answered may then be lost.
            Err(ureq::Error::Io(_)) if may_refuse => Ok(Answer::CutOff),
            Err(error) => Err(error.into()),
        }
    }

    /// The record of a job, once it is done, and how often its state was asked for.
    fn wait_for(&self, job: &str) -> Result<(Value, u32)> {
        let place = format!("{}/api/v1/jobs/{job}", self.base);
        let mut polls = 0;
        loop {
            polls += 1;
            let state = document(self.agent.get(format!("{place}?wait={LONGEST_WAIT_S}")).call()?)?;
            match state["state"].as_str() {
                Some("done") => {
                    return Ok((document(self.agent.get(format!("{place}/record")).call()?)?, polls));
                }
                Some("waiting" | "running") => {}
                _ => bail!("the job came to a bad end: {state}"),
            }
        }
    }
}

/// The JSON document of an answer that is no error.
fn document(mut response: Response<Body>) -> Result<Value> {
    let text = response.body_mut().read_to_string()?;
    if !response.status().is_success() {
        bail!("answered {}: {text}", response.status());
    }
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text:?}"))
}

fn retry_after_s<T>(response: &Response<T>) -> Result<f64> {
    let header = response.headers().get("retry-after").context("refused without Retry-After")?;
    header.to_str()?.parse().with_context(|| format!("Retry-After: {header:?}"))
}

/// The pause of a film's sender after so many refusals: with its own part of jitter, so that not all come back at once.
fn pause(film: usize, refusals: u32) -> Duration {
    let whole = (FIRST_PAUSE * 2_u32.pow(refusals.saturating_sub(1).min(8))).min(LONGEST_PAUSE);
    let jitter = (film * 7919 + refusals as usize * 104_729) % 1000;
    whole.mul_f64(0.5 + jitter as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    /// Answers one request after another, each on a connection of its own, with these heads and bodies; gives the base
    /// address, and then the first lines of the requests.
    fn server(answers: &'static [(&str, &str)]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = vec![];
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut length) = (String::new(), 0);
                reader.read_line(&mut first).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                reader.read_exact(&mut vec![0; length]).unwrap();
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .unwrap();
                asked.push(first.trim().trim_end_matches(" HTTP/1.1").to_owned());
            }
            asked
        });
        (base, thread)
    }

    #[test]
    fn a_job_is_waited_for_until_its_record_is_there() {
        let (base, thread) = server(&[
            ("503 Service Unavailable\r\nRetry-After: 30", "{}"),
            ("202 Accepted", r#"{"id": "j"}"#),
            ("200 OK", r#"{"state": "waiting"}"#),
            ("200 OK", r#"{"state": "done"}"#),
            ("200 OK", r#"{"p_abnormal": 0.25}"#),
        ]);
        let sent = Sender::new(&base, Api::Jobs { refusals: true }).send(7, b"film").unwrap();
        assert_eq!((sent.film, sent.probability, sent.polls, sent.cut_off), (7, 0.25, 2, 0));
        assert_eq!(sent.refusals_s, [30.0]);
        assert!(sent.acknowledged_s.unwrap() < sent.done_s);
        let job = "GET /api/v1/jobs/j?wait=30";
        let posts = "POST /api/v1/films";
        assert_eq!(thread.join().unwrap(), [posts, posts, job, job, "GET /api/v1/jobs/j/record"]);
    }

    #[test]
    fn the_peer_answers_at_once() {
        let (base, thread) = server(&[("200 OK", r#"{"probability": 0.5}"#)]);
        let sent = Sender::new(&base, Api::Direct { rounded: false }).send(0, b"film").unwrap();
        assert_eq!((sent.probability, sent.polls, sent.acknowledged_s), (0.5, 0, None));
        assert_eq!(thread.join().unwrap(), ["POST /films?rounded=false"]);
    }

    #[test]
    fn errors_say_what_was_answered() {
        for (api, answer, expected) in [
            (Api::Jobs { refusals: false }, ("503 Full", "full"), "answered 503 Service Unavailable: full"),
            (Api::Jobs { refusals: true }, ("503 Full", "full"), "refused without Retry-After"),
            (Api::Direct { rounded: true }, ("500 Bad", "oh"), "answered 500 Internal Server Error: oh"),
            (Api::Direct { rounded: true }, ("200 OK", "{}"), "no probability in the result"),
        ] {
            let (base, thread) = server(Box::leak(Box::new([answer])));
            let error = Sender::new(&base, api).send(0, b"film").unwrap_err().to_string();
            assert_eq!(error, expected);
            thread.join().unwrap();
        }
    }

    #[test]
    fn pauses_grow_and_differ() {
        for film in 0..50 {
            assert!((125..=250).contains(&pause(film, 1).as_millis()));
            assert!((2000..=4000).contains(&pause(film, 20).as_millis()));
        }
        assert_ne!(pause(1, 3), pause(2, 3));
    }
}

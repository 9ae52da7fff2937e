//! A web server that answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NotReady, Pace, TRY, address};
use crate::spawn::leftover;

/// Waits until a GET is answered with the right status. Changes nothing. The body is not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeHttp {
    /// `http://ADDRESS[:PORT][/PATH]`.
    pub url: Text,
    /// The status to wait for; any from 200 to 399 if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How often, how long, from where.
    pub pace: Pace,
}

/// A URL that a probe can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    to: SocketAddr,
    host: String,
    path: String,
}

impl Url {
    /// Reads `http://ADDRESS[:PORT][/PATH]`.
    pub fn parse(text: &str) -> Result<Self, EffectError> {
        let bad = |why: &str| EffectError::new(format!("{text:?} is not a URL that a probe can ask: {why}"));
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(bad(&format!("{scheme} is not http"))),
            None => return Err(bad("it does not begin with http://")),
        };
        if rest.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(bad("it holds a space or a control character"));
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let to = match (host.parse::<SocketAddr>(), address(host)) {
            (Ok(to), _) => to,
            (Err(_), Ok(ip)) => SocketAddr::new(ip, 80),
            (Err(_), Err(error)) => {
                return Err(bad(&format!("{host:?} is not an IP address")).help(error.help.unwrap_or_default()));
            }
        };
        let host = match to.ip() {
            IpAddr::V4(ip) => format!("{ip}:{}", to.port()),
            IpAddr::V6(ip) => format!("[{ip}]:{}", to.port()),
        };
        Ok(Self { to, host, path })
    }

    /// Asks once.
    fn status(&self) -> Result<u16, NotReady> {
        let until = Instant::now() + TRY;
        let mut stream = TcpStream::connect_timeout(&self.to, TRY)?;
        stream.set_write_timeout(Some(TRY))?;
        let Self { host, path, .. } = self;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lifecycle\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )?;
        let line = first_line(&mut stream, until)?;
        status(&line).ok_or_else(|| NotReady::yet(format!("the answer is no HTTP: {:?}", line.trim_end())))
    }
}

/// One end for all of an answer: a server may say it byte by byte.
fn first_line(stream: &mut TcpStream, until: Instant) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut chunk = [0; 256];
    while !line.contains(&b'\n') && line.len() < LONGEST_LINE {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n => line.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&line).lines().next().unwrap_or_default().to_owned())
}

/// The longest status line that is read, in bytes.
const LONGEST_LINE: usize = 1024;

/// The status of `HTTP/1.1 200 OK` (RFC 9112, section 4).
fn status(line: &str) -> Option<u16> {
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next().filter(|code| code.trim_end().len() == 3)?.trim_end().parse().ok()
}

impl EffectDef for ProbeHttp {
    const KIND: &'static str = "probe.http";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // Whatever answers or not: in the tests this one gives up.
        let pace = Pace { within: lifecycle_engine::types::Millis(50), ..Pace::quick() };
        vec![Self { url: "http://127.0.0.1:9/".into(), status: Some(204), pace }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let status = self.status.map_or_else(|| "2xx or 3xx".to_owned(), |s| s.to_string());
        format!("wait until {} answers {status}{}", self.url, self.pace.describe())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let url = Url::parse(&cx.text(&self.url)?)?;
        // The text may hold a sensitive part, such as a token in the query; its own form shows none.
        self.pace.probe(&self.url.to_string(), cx, |_| match (url.status()?, self.status) {
            (got, Some(want)) if got == want => Ok(()),
            (200..=399, None) => Ok(()),
            (got, _) => Err(NotReady::yet(format!("it answers {got}"))),
        })
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        leftover::end(record).map(leftover::or_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::testing::Bench;
    use lifecycle_engine::types::Millis;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers each connection with the next line, for as long as there is one.
    fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                while request.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())) {}
                write!(stream, "{answer}\r\n\r\n").unwrap();
            }
        });
        format!("http://{at}/healthz?x=1")
    }

    #[test]
    fn a_server_is_ready_once_it_answers_the_right_status() {
        let url = server(&["HTTP/1.1 503 Not Yet", "nonsense", "HTTP/1.0 204 No Content"]);
        let probe = ProbeHttp { url: url.clone().into(), status: None, pace: Pace::quick() };
        let mut bench = Bench::new();
        bench.apply(&probe).1.unwrap();
        let no_http = "the answer is no HTTP: \"nonsense\"";
        let want = ["it answers 503", no_http].map(|why| format!("{url} is not ready yet: {why}"));
        assert_eq!(bench.lines, want);
    }

    #[test]
    fn another_status_than_the_one_asked_for_is_not_ready() {
        let url = server(&["HTTP/1.1 200 OK"; 100]);
        let pace = Pace { within: Millis(100), ..Pace::quick() };
        let error = Bench::new().apply(&ProbeHttp { url: url.into(), status: Some(201), pace }).1.unwrap_err();
        assert!(error.what.ends_with("is not ready after 100ms: it answers 200"), "{error}");
    }

    #[test]
    fn an_answer_that_comes_byte_by_byte_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while stream.write_all(b"H").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        });
        let pace = Pace { within: Millis(100), ..Pace::quick() };
        let error = Bench::new().apply(&ProbeHttp { url: url.into(), status: None, pace }).1.unwrap_err();
        assert!(!error.what.contains("no HTTP"), "it has read on: {error}");
    }

    #[test]
    fn urls_are_read_and_bad_ones_refused() {
        let url = |text| Url::parse(text).map(|u| (u.to.to_string(), u.host, u.path));
        let ok = |to: &str, host: &str, path: &str| Ok((to.to_owned(), host.to_owned(), path.to_owned()));
        assert_eq!(url("http://10.0.0.2"), ok("10.0.0.2:80", "10.0.0.2:80", "/"));
        assert_eq!(url("http://10.0.0.2:8080/a?b#c"), ok("10.0.0.2:8080", "10.0.0.2:8080", "/a?b"));
        assert_eq!(url("http://[fd00::1]:81?q"), ok("[fd00::1]:81", "[fd00::1]:81", "/?q"));
        assert_eq!(url("http://[fd00::1]/"), ok("[fd00::1]:80", "[fd00::1]:80", "/"));
        for bad in [
            "https://10.0.0.1/",
            "10.0.0.1",
            "http://example.org/",
            "http://10.0.0.1/a b",
            "http://1.1.1.1/\r\nX: y",
            "http://",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}

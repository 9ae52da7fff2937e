//! A TCP port that accepts connections.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::OnceLock;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Pace, TRY};
use crate::spawn::leftover;

/// Waits until a TCP connection is accepted. Changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeTcp {
    /// An IP address.
    pub address: Text,
    /// The port.
    pub port: u16,
    /// How often, how long, from where.
    pub pace: Pace,
}

/// The address; names are not resolved, since what they mean depends on where one asks.
pub(crate) fn address(text: &str) -> Result<IpAddr, EffectError> {
    let plain = text.trim_start_matches('[').trim_end_matches(']');
    plain.parse().map_err(|_| {
        EffectError::new(format!("{text:?} is not an IP address"))
            .help("names are not resolved: write an address, such as 127.0.0.1")
    })
}

impl EffectDef for ProbeTcp {
    const KIND: &'static str = "probe.tcp";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // The kernel completes a connection before anybody accepts it, so a listener alone is enough. One for the whole process, which holds it
        // to its end.
        static LISTENER: OnceLock<Option<TcpListener>> = OnceLock::new();
        let listener = LISTENER.get_or_init(|| TcpListener::bind("127.0.0.1:0").ok());
        let port = listener.as_ref().and_then(|l| l.local_addr().ok()).map_or(9, |at| at.port());
        vec![Self { address: "127.0.0.1".into(), port, pace: Pace::quick() }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("wait until {}:{} accepts a connection{}", self.address, self.port, self.pace.describe())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let to = SocketAddr::new(address(&cx.text(&self.address)?)?, self.port);
        self.pace.probe(&format!("tcp {to}"), cx, |_| {
            TcpStream::connect_timeout(&to, TRY)?;
            Ok(())
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

    #[test]
    fn a_port_is_ready_once_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = ProbeTcp { address: "127.0.0.1".into(), port, pace: Pace::quick() };
        let mut bench = Bench::new();
        let (record, answer) = bench.apply(&probe);
        answer.unwrap();
        bench.undo(&probe, &record).unwrap();
    }

    #[test]
    fn a_closed_port_is_named_with_the_kernels_answer() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pace = Pace { within: Millis(80), ..Pace::quick() };
        let probe = ProbeTcp { address: "127.0.0.1".into(), port, pace };
        let error = Bench::new().apply(&probe).1.unwrap_err();
        assert_eq!(error.what, format!("tcp 127.0.0.1:{port} is not ready after 80ms: Connection refused (errno 111)"));
    }

    #[test]
    fn a_name_is_refused() {
        let probe = ProbeTcp { address: "localhost".into(), port: 80, pace: Pace::quick() };
        assert_eq!(Bench::new().apply(&probe).1.unwrap_err().what, "\"localhost\" is not an IP address");
    }
}

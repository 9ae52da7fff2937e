//! Handing a process to another program.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Later;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use super::wait::{resolve, watch};
use crate::outcomes::Process;
use crate::process::{connect_to, descriptor};

/// What comes with the descriptor on the socket: a message of no bytes cannot carry one.
const NAME: &[u8] = b"pidfd";

/// Sends a pidfd of the process to whoever listens on a unix socket. The process's end is what takes it back: whoever has the pidfd sees it, and
/// can do nothing with it any more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendPidfd {
    /// The socket.
    pub socket: HostPath,
    /// The process.
    pub process: Later<Process>,
}

impl EffectDef for SendPidfd {
    const KIND: &'static str = "send_pidfd";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { socket: HostPath(scratch.join("socket")), process: Later::Handle(example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Foreign
    }

    fn describe(&self) -> String {
        format!("send a pidfd of {} to {}", self.process, self.socket)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        let watched = watch(&process)?.ok_or_else(|| EffectError::new(format!("{process} has ended")))?;
        let socket = connect_to(&self.socket, "the pidfd socket must be a unix socket on which somebody listens")?;
        descriptor::send(&socket, watched.as_fd(), NAME).map_err(|e| {
            EffectError::call(format!("sendmsg({}, SCM_RIGHTS)", self.socket), e)
                .help("whoever takes the pidfd has closed its end")
        })?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        // The process is its maker's to end.
        Ok(Undone::Done)
    }
}

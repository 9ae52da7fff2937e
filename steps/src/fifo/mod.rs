//! The exec FIFO, at which a created container waits to be started.

pub mod create;
pub mod release;
pub mod wait;

/// Its name in the run's directory.
pub(crate) const NAME: &str = "exec.fifo";
/// That of its companion, which takes what init has to say once it has been started.
pub(crate) const REPORT: &str = "exec.report";

/// A container that is created, started and waited for by one plan.
const EXAMPLE: lifecycle_engine::step::Example = lifecycle_engine::step::Example {
    about: "A container is created, and then started.",
    plan: "plan: example/fifo
steps:
  fifo: { uses: fifo.create }
  init: { uses: process.clone, with: { new: [pid], stdio: log, fifo: \"${fifo.fifo}\" } }
  ready: { uses: fifo.wait, site: \"${init}\" }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/echo, started] } }
  start: { uses: fifo.release, with: { process: \"${init.process}\" } }
  wait: { uses: process.wait, needs: [start], with: { process: \"${init.process}\" } }
main: wait
",
    needs: &["root"],
};

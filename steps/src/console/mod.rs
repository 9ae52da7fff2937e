//! A container's terminal.

pub mod caller;
pub mod open;
pub mod relay;

/// A program at a terminal.
const EXAMPLE: lifecycle_engine::step::Example = lifecycle_engine::step::Example {
    about: "A program at a terminal of 80 columns, shown on the caller's own.",
    plan: "plan: example/console
steps:
  init: { uses: process.clone, with: { new: [pid, mount, ipc, uts], terminal: true } }
  rootfs: { uses: rootfs.overlay, site: \"${init}\" }
  mounts:
    uses: rootfs.mount
    site: \"${init}\"
    needs: [rootfs]
    with:
      mounts:
        - { destination: /proc, type: proc, source: proc }
        - { destination: /dev, type: tmpfs, source: tmpfs, options: [nosuid, mode=755] }
        - { destination: /dev/pts, type: devpts, source: devpts, options: [newinstance, ptmxmode=0666, mode=0620] }
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [mounts] }
  console: { uses: console.open, site: \"${init}\", with: { size: { width: 80, height: 24 } } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/usr/bin/tty] } }
  relay: { uses: console.relay, with: { process: \"${init.process}\" } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
    needs: &["root"],
};

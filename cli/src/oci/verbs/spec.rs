//! `lifecycle-oci spec`

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use lifecycle_steps::spec::template;
use serde::Serialize;

use crate::args::SpecArgs;
use crate::fault::Fault;

/// Writes a config.json to start from.
pub fn run(args: &SpecArgs) -> Result<ExitCode, Fault> {
    let file = args.bundle.join("config.json");
    let owner = args.rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    template(owner).serialize(&mut writer).map_err(|e| Fault::failed("cannot write a config.json", &e))?;
    text.push(b'\n');
    let mut options = std::fs::OpenOptions::new();
    // One that is there holds somebody's work.
    let opened = options.write(true).create_new(true).mode(0o666).open(&file);
    let written = match opened {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Fault::new(format!("File {} exists. Remove it first", file.display())));
        }
        Err(e) => Err(e),
        Ok(mut made) => made.write_all(&text).inspect_err(|_| {
            // Half a config is of no use. The failure that is told is the first one.
            let _ = std::fs::remove_file(&file);
        }),
    };
    written.map_err(|e| Fault::failed(format!("cannot write {}", file.display()), &e))?;
    Ok(ExitCode::SUCCESS)
}

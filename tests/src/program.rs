//! The program under test, and other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result, While};

/// Where the built `lifecycle` is: `$LIFECYCLE`, or beside the tests in the target directory.
pub fn lifecycle() -> Result<PathBuf> {
    built("LIFECYCLE", "lifecycle")
}

/// Where the built `lifecycle-oci` is: `$LIFECYCLE_OCI`, or beside the tests in the target directory.
pub fn lifecycle_oci() -> Result<PathBuf> {
    built("LIFECYCLE_OCI", "lifecycle-oci")
}

fn built(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let tests = std::env::current_exe().when(|| "finding this program".into())?;
    // target/TRIPLE/debug/deps/TEST-HASH
    let path = tests.ancestors().nth(2).map(|dir| dir.join(name)).unwrap_or_default();
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::new(format!("looking for {}", path.display()), "not there; `cargo build -p lifecycle` makes it"))
    }
}

/// The top of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where a program is, by $PATH and the directories of the superuser's programs, which an ordinary user's $PATH lacks.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let superuser = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(superuser).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a program that has nothing to say but its errors.
pub fn quiet(name: &str, arguments: &[&str]) -> Result<()> {
    output(name, arguments).map(|_| ())
}

/// Runs a program and returns what it wrote to standard output.
pub fn output(name: &str, arguments: &[&str]) -> Result<String> {
    let doing = || format!("running {name} {}", arguments.join(" "));
    let program = find(name).ok_or_else(|| Error::new(doing(), "no such program"))?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().when(doing)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::new(doing(), format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }
}

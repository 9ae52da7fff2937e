//! Builds the plans below `plans/` into the program, each by its path without `.yaml`: `oci/create` is `plans/oci/create.yaml`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../plans");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    if root.is_dir() {
        collect(&root, &mut files)?;
    }
    files.sort();
    let mut code = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).map_err(io::Error::other)?.with_extension("");
        println!("cargo:rerun-if-changed={}", file.display());
        writeln!(code, "    ({:?}, include_str!({:?})),", name.display().to_string(), file.display().to_string())
            .map_err(io::Error::other)?;
    }
    code.push_str("]\n");
    seccomp_compiler()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("plans.rs"), code)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}

/// What the compiler of seccomp filters is known by: a filter that another version of it has made is not taken from the cache.
fn seccomp_compiler() -> io::Result<()> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hash = DefaultHasher::new();
    env::var("CARGO_PKG_VERSION").unwrap_or_default().hash(&mut hash);
    for file in ["src/seccomp/compile.rs", "src/seccomp/unknown.rs", "src/spec/seccomp.rs"] {
        println!("cargo:rerun-if-changed={file}");
        fs::read(file)?.hash(&mut hash);
    }
    println!("cargo:rustc-env=LIFECYCLE_SECCOMP_COMPILER={:016x}", hash.finish());
    Ok(())
}

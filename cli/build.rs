//! Compiles the plans of `lifecycle-oci` into the program, so that it reads no YAML and checks no types when it starts.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use lifecycle_engine::compile::{self, Library};
use lifecycle_engine::graph::stored;
use lifecycle_steps::plans::BUILT_IN;

fn main() -> Result<(), Box<dyn Error>> {
    // Whatever else may change them is part of the libraries that this script is built with.
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gives no OUT_DIR")?);
    let registry = lifecycle_steps::registry();
    let mut code = String::from("&[\n");
    for (name, text) in BUILT_IN.iter().filter(|(name, _)| name.starts_with("oci/")) {
        let graph = compile::text(name, text, &registry, Library { plans: BUILT_IN })
            .map_err(|report| format!("plans/{name}.yaml: {report}"))?;
        let file = out.join(format!("{}.json", name.replace('/', "-")));
        fs::write(&file, stored::write(&graph)?)?;
        writeln!(code, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
    }
    code.push_str("]\n");
    fs::write(out.join("compiled.rs"), code)?;
    Ok(())
}

//! `lifecycle man`.

use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Cli, Man as Args};
use crate::print::{Failure, failed};

/// Writes the manual: the main page to stdout, or every page into a directory.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    command.build();
    match &args.dir {
        None => crate::print::bytes(&page(&command)?),
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| failed(format!("cannot create {}", dir.display()), &e))?;
            write(&command, dir)?;
            command
                .get_subcommands()
                .filter(|c| !c.is_hide_set() && c.get_name() != "help")
                .try_for_each(|c| write(c, dir))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(|e| failed("cannot format the manual page", &e))?;
    Ok(page)
}

fn write(command: &Command, dir: &Path) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).map_err(|e| failed(format!("cannot write {}", path.display()), &e))
}

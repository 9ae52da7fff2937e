//! `lifecycle-oci completions` and `lifecycle-oci man`: generated from the command line's definition.

use std::io;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::print;
use crate::args::Cli;
use crate::fault::Fault;

/// What no option says.
const MORE: &str = r#".SH "EXIT STATUS"
0 on success, 1 on failure.
.B run
and
.B exec
end with the program's own exit status, or 128 and the signal that killed it; where the program is not found with 127, where it cannot be
executed with 126, and where
.B exec
fails for another reason with 255.
.SH ENVIRONMENT
.TP
NOTIFY_SOCKET
For
.BR create ,
.B start
and
.BR run :
the container gets a socket of its own by this name, sd_notify(3). Its READY and STATUS are passed on;
.B start
ends when the container is ready.
.TP
LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES
sd_listen_fds(3): the descriptors are passed to the container's program, before those of
.BR \-\-preserve\-fds .
.TP
XDG_RUNTIME_DIR
Where an ordinary user's state root is; without it, below /run/user. A state root that others own or may write to is refused.
.SH FILES
.TP
/run/lifecycle
The state root: a directory for each container, with its journal and its state.json.
.SH "SEE ALSO"
.BR lifecycle (1),
.BR criu (8)
"#;

/// Prints completions for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Fault> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lifecycle-oci", &mut text);
    // The generator calls a program with a hyphen by two names in its script for bash, and the two have to meet.
    print(&String::from_utf8_lossy(&text).replace("lifecycle__subcmd__oci", "lifecycle__oci"))
}

/// Prints the manual page, verbs and options included.
pub fn man() -> Result<ExitCode, Fault> {
    print(&page().map_err(|e| Fault::failed("cannot write the page", &e))?)
}

fn page() -> io::Result<String> {
    let mut command = Cli::command().disable_help_subcommand(true);
    let verbs: Vec<Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    command.build();
    let man = Man::new(command);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    man.render_subcommands_section(&mut text)?;
    let mut page = String::from_utf8_lossy(&text).into_owned();
    for verb in verbs {
        page.push_str(&section(verb)?);
    }
    page.push_str(MORE);
    Ok(page)
}

/// A verb's part of the page: what would be sections of a page of its own goes one level down.
fn section(verb: Command) -> io::Result<String> {
    let name = format!("lifecycle-oci {}", verb.get_name());
    let man = Man::new(verb.bin_name(&name).disable_help_flag(true));
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let parts = String::from_utf8_lossy(&text).replace(".SH ", ".SS ");
    Ok(format!(".SH \"{}\"\n{parts}", name.replace('-', r"\-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_options_in_its_own_section() {
        let page = page().unwrap();
        let update = page.split(".SH \"lifecycle\\-oci update\"").nth(1).unwrap().split(".SH ").next().unwrap();
        assert!(update.contains("pids") && update.contains("memory\\-swap"), "{update}");
        assert!(page.contains(".SH \"EXIT STATUS\"") && page.starts_with(".ie"), "{page}");
    }
}

//! The `memtrace` command. The work is in the library; a subcommand parses, calls it and prints.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

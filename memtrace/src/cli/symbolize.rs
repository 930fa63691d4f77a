//! `memtrace symbolize`: names for a profile that has none yet.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use memtrace::{
    offline::{self, Outcome},
    output::pprof::{self, proto::Profile},
    profile::printable,
    symbolize::{Files, Symbolizer},
};

use super::{Verbosity, destination::Destination, report::LARGEST_PROFILE, symbols};

/// Find the names of a profile that was recorded with --no-symbolize, here and now
///
/// Reads a pprof file, of memtrace or of another program, and looks up what has no function, or a function but no
/// line: in the files at the paths of its mappings, in copies of them (--binaries), and in debug files. Only files
/// with the build-id of the profile are used. Everything else in the profile stays as it is.
///
/// So a profile can be recorded where the debug information is not, such as a small container, and be read
/// where it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A pprof profile; `-` is standard input
    file: PathBuf,

    /// Where to write the profile; `-` is standard output [default: FILE.symbolized.pb.gz beside FILE, or
    /// standard output if FILE is `-`]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Look for programs and libraries also in this directory: as BUILD-ID/NAME, at their whole path, or by name;
    /// may be given several times [default: those of PPROF_BINARY_PATH]
    #[arg(long, value_name = "DIR")]
    binaries: Vec<PathBuf>,

    #[command(flatten)]
    symbols: symbols::SymbolArgs,
}

const EXAMPLES: &str = "\
Examples:
  memtrace record --no-symbolize -p 1234 -o heap.pb.gz    on the one machine
  memtrace symbolize --binaries ./release heap.pb.gz      on the other: heap.symbolized.pb.gz
  DEBUGINFOD_URLS=https://debuginfod.debian.net memtrace symbolize --debuginfod heap.pb.gz
  memtrace symbolize -o - heap.pb.gz | go tool pprof -top -";

/// Runs the subcommand.
pub(super) fn run(args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    let options = args.symbols.options()?;
    let name =
        if is_standard(&args.file) { "standard input".to_owned() } else { args.file.display().to_string() };
    let mut profile = read(&args.file).with_context(|| format!("cannot symbolize {name}"))?;
    // That it can be written to is found out before the work is done.
    drop(args.destination()?);

    let mut directories = args.binaries.clone();
    if let Some(paths) = std::env::var_os("PPROF_BINARY_PATH").filter(|_| directories.is_empty()) {
        directories.extend(std::env::split_paths(&paths).filter(|path| path != Path::new("")));
    }
    let servers = options.debuginfod.clone();
    let files = Files { directories, debuginfod: servers.clone() };
    let symbolizer = Symbolizer::start(options).context("cannot start the symbolizer")?;
    let work = move || {
        let outcome = offline::symbolize(&mut profile, &files, &symbolizer);
        (profile, outcome)
    };
    let (profile, outcome) = match servers {
        Some(servers) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start the event loop")?;
            let work = async { tokio::task::spawn_blocking(work).await };
            let done = runtime.block_on(symbols::interruptible(work, &servers, tokio::signal::ctrl_c));
            done.context("the symbolizer has failed")?
        }
        None => work(),
    };

    let destination = args.destination()?;
    let output = destination.name();
    let replaced = destination.write(|out| pprof::write_message(&profile, out))?;
    if !verbosity.quiet {
        say(&outcome);
        let verb = if replaced { "replaced" } else { "wrote" };
        eprintln!("memtrace: {verb} {}", printable(&output));
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn destination(&self) -> Result<Destination> {
        match &self.output {
            Some(path) => Destination::named(path),
            None if is_standard(&self.file) => Ok(Destination::Stdout),
            None => {
                let name = self.file.to_string_lossy();
                let stem =
                    [".pb.gz", ".pprof", ".prof", ".gz", ".pb"].iter().find_map(|end| name.strip_suffix(end));
                Destination::unused(Path::new(&format!("{}.symbolized", stem.unwrap_or(&name))), ".pb.gz")
            }
        }
    }
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn read(path: &Path) -> Result<Profile> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> =
        if is_standard(path) { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
    input.take(LARGEST_PROFILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_PROFILE {
        return Err(anyhow!("it is larger than any pprof profile (1 GiB)"));
    }
    pprof::decode(&bytes).map_err(|error| match error {
        pprof::DecodeError::Empty => anyhow!("it is empty"),
        error => anyhow!(
            "{error}; only pprof profiles (.pb.gz) can get names later, so record in that format and convert them \
             with `go tool pprof`"
        ),
    })
}

fn say(outcome: &Outcome) {
    let files = outcome.files.len();
    eprintln!(
        "memtrace: {} of {} addresses without a name or line have got one, from {files} file{}",
        outcome.named,
        outcome.asked,
        if files == 1 { "" } else { "s" },
    );
    for path in &outcome.unchecked {
        eprintln!(
            "memtrace: the profile has no build-id of {}: whether its names are right depends on its being the \
             same file",
            printable(path)
        );
    }
    for loss in outcome.losses.iter() {
        eprintln!("memtrace: {} {}", loss.count, loss.meaning);
    }
}

//! `memtrace report`: what is in a file that memtrace has written.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use memtrace::{
    lifetimes::{self, Options},
    output::pprof,
    report::{SummaryOptions, Top},
};

use super::{record, terminal};

/// Show what is in a file: how long allocations live, or the top functions of a profile
///
/// Of an events file (`record --events FILE`): for each stack, how much it allocated and freed, how long that lived,
/// what is still live, and how much was temporary, that is freed within a moment or by the same thread as the next
/// thing it did. Many temporary allocations are a hint at what to avoid or to reuse.
///
/// Of a pprof profile (`record -o FILE.pb.gz`, or any other program's): totals, top functions, what was lost.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// An events file or a pprof profile; `-` is standard input
    file: PathBuf,

    /// What to print; JSON is described in docs/events.md
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,

    /// How many stacks or functions of each ranking to show [default: 10 as text, all as JSON]
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// An allocation that lives no longer is temporary: seconds, or with a unit as in 50us, 1ms
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = record::duration)]
    temporary_within: Duration,
}

const EXAMPLES: &str = "\
Examples:
  memtrace record -s 1 --events events.ndjson -- ./test
  memtrace report events.ndjson
  memtrace report --temporary-within 100us --top 3 events.ndjson
  zcat events.ndjson.gz | memtrace report --format json - | jq .total
  memtrace report memtrace.test.1234.pb.gz";

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// A profile is read as a whole; one that is larger than this is none.
pub(super) const LARGEST_PROFILE: u64 = 1 << 30;

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let name = match args.file.as_path() {
        path if path == Path::new("-") => "standard input".to_owned(),
        path => path.display().to_string(),
    };
    let mut input = open(&args.file).with_context(|| format!("cannot read {name}"))?;
    let begin = input.fill_buf().with_context(|| format!("cannot read {name}"))?;
    let is_json = begin.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let mut out = io::stdout().lock();
    let color = out.is_terminal() && terminal::colors();
    let options = SummaryOptions { top: args.top.unwrap_or(10), width: terminal::width(), color };
    if is_json {
        let read_options = Options { temporary_within: args.temporary_within, ..Options::default() };
        let lifetimes =
            lifetimes::read(input, &read_options).with_context(|| format!("cannot report on {name}"))?;
        match args.format {
            Format::Text => out.write_all(lifetimes.text(&name, &options).as_bytes())?,
            Format::Json => lifetimes.json(args.top, &mut out)?,
        }
    } else {
        let top = profile(input, &name)?;
        match args.format {
            Format::Text => out.write_all(top.text(&name, &options).as_bytes())?,
            Format::Json => top.json(args.top, &mut out)?,
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 18, File::open(path)?)))
}

fn profile(input: impl Read, name: &str) -> Result<Top> {
    let mut bytes = Vec::new();
    let read = input.take(LARGEST_PROFILE + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > LARGEST_PROFILE {
        bail!("cannot report on {name}: it is neither an events file nor a pprof profile, which are smaller");
    }
    let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
    pprof::decode(&bytes).map(|profile| Top::of(&profile)).map_err(|error| match error {
        pprof::DecodeError::Empty if !is_gzip => anyhow!("cannot report on {name}: it is empty"),
        error if is_gzip => anyhow!(
            "cannot report on {name}: {error}; compressed events are read with `zcat FILE | memtrace report -`"
        ),
        error => anyhow!(
            "cannot report on {name}: it is neither an events file (record --events) nor a pprof profile: {error}"
        ),
    })
}

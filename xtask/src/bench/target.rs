//! The process that is traced: `bench/pairs.c`, told through its standard input when to run.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::patience;
use crate::process;

/// What a pair of malloc and free takes, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    /// CPU time of the thread that calls them, in the kernel's probe handlers included. Other processes on
    /// a busy machine do not count.
    pub(crate) cpu: f64,
    /// Time that passed: what the thread waited for counts, too.
    pub(crate) wall: f64,
}

/// A running `pairs`; killed when dropped.
pub(crate) struct Pairs {
    child: Child,
    /// Gone once it is to end.
    stdin: Option<ChildStdin>,
    stdout: RefCell<BufReader<ChildStdout>>,
}

/// Compiles the C program `source` into `directory`, and returns its path.
///
/// # Errors
/// When it does not compile.
pub(crate) fn compile(source: &Path, directory: &Path) -> Result<PathBuf> {
    let name = source.file_stem().context("the program has no name")?;
    compile_as(source, &directory.join(name), "-fno-omit-frame-pointer")
}

/// Compiles the C program `source` into `program`, and returns that.
///
/// # Errors
/// When it does not compile.
pub(super) fn compile_as(source: &Path, program: &Path, frame_pointers: &str) -> Result<PathBuf> {
    let mut gcc = Command::new("gcc");
    // Without -fno-builtin the compiler removes a pair whose block nobody uses; frame pointers and calls that
    // stay calls give the programs the stacks that their comments promise.
    gcc.args(["-O2", "-Wall", "-Werror", "-pthread", "-fno-builtin"]);
    gcc.args([frame_pointers, "-fno-optimize-sibling-calls", "-o"]);
    process::run(gcc.arg(program).arg(source))?;
    Ok(program.to_owned())
}

impl Pairs {
    /// Starts `command`, which is `pairs` or something that starts it.
    ///
    /// # Errors
    /// When it does not start or answer.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name} has no standard streams");
        };
        let pairs = Self { child, stdin: Some(stdin), stdout: RefCell::new(BufReader::new(stdout)) };
        // Once it has answered, its libraries are mapped and it is at its work.
        pairs.measure(1)?;
        Ok(pairs)
    }

    /// The process id of what was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The cost of a pair, in each of `batches` batches.
    ///
    /// # Errors
    /// When the program has ended or answers with something else.
    pub(crate) fn measure(&self, batches: u32) -> Result<Vec<Cost>> {
        let mut stdin = self.stdin.as_ref().context("the target was told to end")?;
        writeln!(stdin, "{batches}").context("the target no longer listens")?;
        let mut stdout = self.stdout.borrow_mut();
        // What has started the target may talk, too.
        let mut line = String::new();
        while !line.starts_with("pairs:") {
            line.clear();
            if stdout.read_line(&mut line).context("the target does not answer")? == 0 {
                bail!("the target ended");
            }
        }
        let costs: Option<Vec<_>> = line.split_whitespace().skip(1).map(parse).collect();
        costs
            .filter(|costs| costs.len() == batches as usize)
            .with_context(|| format!("the target answered `{}`", line.trim_end()))
    }

    /// Has it end by itself, and waits for that.
    ///
    /// # Errors
    /// When it fails, or does not end.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        // Somebody has to take what it says at its end, or it would wait for ever.
        let mut rest = String::new();
        while self.stdout.get_mut().read_line(&mut rest).context("the target does not answer")? > 0 {}
        match patience::wait_for(&mut self.child)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the target failed ({status})\n{}", rest.trim_end()),
            None => bail!("the target does not end"),
        }
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        // After `end` both fail, because the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `CPU/WALL`.
fn parse(figure: &str) -> Option<Cost> {
    let (cpu, wall) = figure.split_once('/')?;
    Some(Cost { cpu: cpu.parse().ok()?, wall: wall.parse().ok()? })
}

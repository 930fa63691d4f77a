//! Programs that print where they are, and what memtrace makes of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use memtrace::symbolize::{AddressSpace, Frame, Modules, NamedLine, Options, Resolution, Symbolizer};

/// What a C or C++ program prints its return addresses with: `name address line`.
pub(crate) const MARK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __cplusplus
extern "C"
#endif
__attribute__((noinline)) void mark(const char *name, int line) {
    printf("%s %p %d\n", name, __builtin_return_address(0), line);
    fflush(stdout);
}
#define MARK(name) do { mark(name, __LINE__); __asm__ volatile(""); } while (0)
"#;

/// Waits for the test to close standard input.
pub(crate) const WAIT: &str = r#"puts("ready 0 0"); fflush(stdout); while (getchar() != EOF) {}"#;

/// Runs a command and shows what it said if it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes `source` to `directory/name` and compiles it there with `compiler` and `flags`. The
/// result's name is without the extension.
pub(crate) fn compile(directory: &Path, name: &str, source: &str, compiler: &str, flags: &[&str]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, source).unwrap();
    let output = path.with_extension("");
    let mut command = Command::new(compiler);
    run(command.current_dir(directory).arg(name).arg("-o").arg(&output).args(flags));
    output
}

/// The line of `source` in which `text` first stands.
pub(crate) fn line_of(source: &str, text: &str) -> u32 {
    let index = source.lines().position(|line| line.contains(text));
    u32::try_from(index.unwrap_or_else(|| panic!("no {text:?}")) + 1).unwrap()
}

/// A running program. It ends with the test.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The return address and the line of each mark.
    pub(crate) marks: HashMap<String, (u64, u32)>,
}

impl Program {
    /// Starts it and reads its marks up to `ready`.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut program = Self { child, input, output, marks: HashMap::new() };
        program.read_marks();
        program
    }

    /// Sends a line and reads further marks.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        self.read_marks();
    }

    fn read_marks(&mut self) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the program ended early");
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[0] == "ready" {
                return;
            }
            let address = u64::from_str_radix(fields[1].trim_start_matches("0x"), 16).unwrap();
            self.marks.insert(fields[0].to_owned(), (address, fields[2].parse().unwrap()));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn space(&self) -> AddressSpace {
        AddressSpace::open(self.pid(), &Modules::with_max_open(256)).unwrap()
    }

    pub(crate) fn address(&self, mark: &str) -> u64 {
        self.marks[mark].0
    }

    /// Ends the program and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        drop(self.input.take());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Options with these directories of debug files and no others.
pub(crate) fn debug_directories(directories: &[&Path]) -> Options {
    Options {
        debug_directories: directories.iter().map(|path| path.to_path_buf()).collect(),
        ..Options::default()
    }
}

/// Resolves one frame.
pub(crate) fn resolve(symbolizer: &Symbolizer, frame: &Frame) -> Resolution {
    let (module, offset) = frame.place().unwrap_or_else(|| panic!("{frame:?} is in no mapping"));
    symbolizer.resolve_blocking(vec![(Arc::clone(module), vec![offset])]).remove(0).remove(0)
}

/// Resolves one mark of a program from scratch.
pub(crate) fn resolve_mark(program: &Program, mark: &str, options: Options) -> Resolution {
    let frames = program.space().normalize(&[program.address(mark)]);
    resolve(&Symbolizer::start(options).unwrap(), &frames[0])
}

/// Name, file name without directories, and line of each line: easily compared.
pub(crate) fn brief(lines: &[NamedLine]) -> Vec<(&str, &str, u32)> {
    lines.iter().map(|line| (line.name.as_str(), file_name(&line.file), line.line)).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

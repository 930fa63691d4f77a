//! The report for people.

mod layout;

use std::{collections::BTreeMap, path::Path};

use layout::{Layout, Status};

use super::{Check, FileReport, LeftOut, Need, Outcome, Report, TargetReport, target::demangled};
use crate::{profile::printable, report::units};

/// How the report is to look.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// Whether to use colours (ECMA-48 SGR).
    pub color: bool,
    /// The width of a line in characters.
    pub width: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { color: false, width: 100 }
    }
}

impl Report {
    /// The report as text, in groups, with the verdict at the end.
    ///
    /// Each line says `ok`, `no` (it stands in the way of recording), `warn` (recording works, but
    /// worse) or `-` (it cannot be seen from here).
    pub fn text(&self, options: &TextOptions) -> String {
        let name_width = self.checks().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut layout = Layout::new(*options, name_width);
        group(&mut layout, "Kernel", &self.kernel.checks);
        group(&mut layout, "Privileges", &self.privileges);
        group(&mut layout, "Features, tried", &self.features);
        if let Some(target) = &self.target {
            group(&mut layout, &title(target), &target.checks);
            functions(&mut layout, target);
            calls(&mut layout, target);
        }
        let remedies = self.remedies();
        if !remedies.is_empty() {
            layout.heading(if self.can_record() { "What would help" } else { "What to do" });
            for remedy in remedies {
                layout.item(&printable(remedy));
            }
        }
        layout.heading(&self.verdict());
        layout.finish()
    }

    fn verdict(&self) -> String {
        let not = if self.can_record() { "" } else { "not " };
        let what = match &self.target {
            Some(target) => format!("Recording process {} is {not}possible", target.pid),
            None => format!("Recording is {not}possible here"),
        };
        match self.checks().filter(|check| check.prevents_recording()).count() {
            0 => format!("{what}."),
            count => format!("{what}: see what is marked `no` ({count})."),
        }
    }
}

fn title(target: &TargetReport) -> String {
    let comm = if target.comm.is_empty() { "?" } else { &target.comm };
    let executable = target.executable.as_deref().map(|path| format!(", {}", shown(path)));
    format!("Process {} ({}{})", target.pid, printable(comm), executable.unwrap_or_default())
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

fn status(check: &Check) -> Status {
    match (&check.outcome, check.need) {
        (Outcome::Ok, _) => Status::Ok,
        (Outcome::Unknown, _) => Status::Unknown,
        (_, Need::Required) => Status::No,
        (_, Need::Useful) => Status::Warn,
    }
}

fn group(layout: &mut Layout, title: &str, checks: &[Check]) {
    layout.heading(title);
    for check in checks {
        let status = status(check);
        let name = printable(&check.name);
        let mut lines = match &check.outcome {
            Outcome::Failed { error, .. } => excerpt(error),
            _ => Vec::new(),
        };
        if !check.detail.is_empty() {
            lines.insert(0, printable(&check.detail).into_owned());
        }
        if matches!(status, Status::No | Status::Warn) {
            lines.push(format!("used for {}", check.used_for));
            if !check.without.is_empty() {
                lines.push(format!("without it: {}", check.without));
            }
        } else if lines.is_empty() {
            lines.push(format!("for {}", check.used_for));
        }
        layout.check(status, &name, &lines);
    }
}

/// Of a long error (the verifier's log has thousands of lines, and the reason is at its end) the first
/// line and the last few.
fn excerpt(error: &str) -> Vec<String> {
    const LAST: usize = 6;
    let lines: Vec<&str> = error.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let shown = |lines: &[&str]| lines.iter().map(|line| printable(line).into_owned()).collect::<Vec<_>>();
    if lines.len() <= LAST + 2 {
        return shown(&lines);
    }
    let left_out = format!("[{} lines, see --json]", lines.len() - LAST - 1);
    [shown(&lines[..1]), vec![left_out], shown(&lines[lines.len() - LAST..])].concat()
}

fn functions(layout: &mut Layout, target: &TargetReport) {
    for file in &target.files {
        layout.subheading(&file_title(file));
        let header = ["function", "like", "address", "probe site", "called"].map(str::to_owned);
        let rows = file.functions.iter().map(|function| {
            let calls = function.calls.map(|calls| format!("{} times; ", units::count(calls.into())));
            let called = format!("{}{}", calls.unwrap_or_default(), printable(&function.binding.text()));
            let name = printable(&function.name).into_owned();
            let rets = match function.ret_probes {
                0 => String::new(),
                rets => format!(", {rets} ret (single-stepped)"),
            };
            let site = format!(
                "+{} {} ({}){rets}",
                function.site_offset, function.site_instruction, function.site_handling
            );
            [name, function.kind.to_owned(), format!("{:#x}", function.address), site, called]
        });
        layout.table(std::iter::once(header).chain(rows).collect());
        left_out(layout, target.left_out.iter().filter(|it| it.path == file.path));
    }
    let elsewhere = |it: &&LeftOut| target.files.iter().all(|file| file.path != it.path);
    let mut others: Vec<&Path> = target.left_out.iter().filter(elsewhere).map(|it| &*it.path).collect();
    others.dedup();
    for path in others {
        layout.subheading(&shown(path));
        left_out(layout, target.left_out.iter().filter(|it| it.path == path));
    }
}

/// That nothing was called, where calls were counted.
fn calls(layout: &mut Layout, target: &TargetReport) {
    let Some(seconds) = target.counted_seconds else { return };
    let calls: u64 =
        target.files.iter().flat_map(|file| &file.functions).filter_map(|function| function.calls).sum();
    layout.paragraph(&match calls {
        0 => format!(
            "In {seconds} s none of these functions was called. If the process grows, it gets its memory by others: \
             --alloc and --free of `memtrace record` name them."
        ),
        calls => format!("In {seconds} s these functions were called {} times.", units::count(calls.into())),
    });
}

fn file_title(file: &FileReport) -> String {
    let allocator = file.allocator.map(|name| format!(" ({name})"));
    format!("{}{}", shown(&file.path), allocator.unwrap_or_default())
}

/// What was left out for the same reason stands together.
fn left_out<'a>(layout: &mut Layout, items: impl Iterator<Item = &'a LeftOut>) {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for item in items {
        let names = by_reason.entry(&item.reason).or_default();
        names.extend(item.symbol.as_deref().map(|symbol| printable(&demangled(symbol)).into_owned()));
    }
    for (reason, mut names) in by_reason {
        names.sort_unstable();
        let reason = printable(reason);
        layout.paragraph(&match &*names {
            [] => format!("left out: {reason}"),
            names => format!("left out: {}: {reason}", names.join(", ")),
        });
    }
}

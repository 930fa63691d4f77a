//! What it costs to walk a stack: memtrace's walk by unwind tables beside the kernel's own by frame pointers.
//!
//! All stacks are as deep, and each walk ends after a number of frames. What more frames cost than one is what the
//! frames cost: everything else (the probes, the books) is the same and goes out.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::cases::{Case, memtrace};
use super::rows::{Row, Unmeasured};
use super::target::compile_as;
use super::tracer::{Bench, Tracer};
use super::{Arguments, Code, Turn, start, take_turns};

/// The name by which this is chosen on the command line.
pub(crate) const NAME: &str = "walks";

/// How many functions are below the pairs: more than any walk here takes down.
const DEPTH: &str = "110";

/// What is compared: frames beyond the first one.
const FRAMES: [usize; 3] = [10, 30, 100];

/// How a stack is walked, and through which code.
struct Series {
    name: &'static str,
    frame_pointers: bool,
    /// Walks that end after 1, 11, 31 and 101 frames.
    cases: [Case; 4],
}

const KERNEL: &str = "the kernel's walk by frame pointers";
/// The names of memtrace's walks.
pub(crate) const WITH: &str = "memtrace, through code with frame pointers";
pub(crate) const WITHOUT: &str = "memtrace, through code without";

const SERIES: [Series; 3] = [
    Series {
        name: KERNEL,
        frame_pointers: true,
        cases: [
            Case { name: "walks: the kernel's, 1 frame", tracer: Tracer::KernelWalk(1) },
            Case { name: "walks: the kernel's, 11 frames", tracer: Tracer::KernelWalk(11) },
            Case { name: "walks: the kernel's, 31 frames", tracer: Tracer::KernelWalk(31) },
            Case { name: "walks: the kernel's, 101 frames", tracer: Tracer::KernelWalk(101) },
        ],
    },
    Series {
        name: WITH,
        frame_pointers: true,
        cases: [
            Case { name: "walks: frame pointers, 1 frame", tracer: memtrace(&["-s=1", "--max-frames=1"]) },
            Case { name: "walks: frame pointers, 11 frames", tracer: memtrace(&["-s=1", "--max-frames=11"]) },
            Case { name: "walks: frame pointers, 31 frames", tracer: memtrace(&["-s=1", "--max-frames=31"]) },
            Case {
                name: "walks: frame pointers, 101 frames",
                tracer: memtrace(&["-s=1", "--max-frames=101"]),
            },
        ],
    },
    Series {
        name: WITHOUT,
        frame_pointers: false,
        cases: [
            Case { name: "walks: 1 frame", tracer: memtrace(&["-s=1", "--max-frames=1"]) },
            Case { name: "walks: 11 frames", tracer: memtrace(&["-s=1", "--max-frames=11"]) },
            Case { name: "walks: 31 frames", tracer: memtrace(&["-s=1", "--max-frames=31"]) },
            Case { name: "walks: 101 frames", tracer: memtrace(&["-s=1", "--max-frames=101"]) },
        ],
    },
];

/// What was found.
#[derive(Serialize)]
pub(crate) struct Walks {
    walks: Vec<Walk>,
    /// What was measured, each pair with its probes.
    cases: Vec<Row>,
}

/// One way to walk.
#[derive(Serialize)]
struct Walk {
    name: &'static str,
    /// What a sample takes with one frame, in nanoseconds, and with it its pair and the probes.
    one_frame: Option<f64>,
    /// What it takes more with so many more frames, in nanoseconds.
    more: Vec<More>,
}

#[derive(Serialize)]
struct More {
    frames: usize,
    nanoseconds: Option<f64>,
    /// As a multiple of the kernel's.
    times_kernel: Option<f64>,
}

impl Walks {
    /// Measures all of them on two builds of `source`.
    ///
    /// # Errors
    /// When a target does not compile or start.
    pub(crate) fn measure(
        arguments: &Arguments,
        source: &Path,
        memtrace: &Path,
        directory: &Path,
    ) -> Result<Self> {
        let command = |name, frame_pointers| -> Result<Vec<String>> {
            let program = compile_as(source, &directory.join(name), frame_pointers)?;
            Ok(vec![program.to_string_lossy().into_owned(), arguments.batch_ms.to_string(), DEPTH.to_owned()])
        };
        let with = command("frame_pointers", "-fno-omit-frame-pointer")?;
        let without = command("no_frame_pointers", "-fomit-frame-pointer")?;
        let targets = [start(&with)?, start(&without)?];
        let codes = [Code::of(targets[0].pid())?, Code::of(targets[1].pid())?];
        let bench = |number: usize, command| Bench {
            target: &targets[number],
            code: &codes[number],
            command,
            memtrace,
            directory,
            round: 0,
        };
        let benches = [bench(0, &*with), bench(1, &*without)];
        let of = |series: &Series| benches[usize::from(!series.frame_pointers)];
        let mut turns: Vec<_> = SERIES
            .iter()
            .flat_map(|series| series.cases.iter().map(move |case| Turn::new(case, of(series))))
            .collect();
        take_turns(arguments, &mut turns);
        Ok(Self::new(turns.into_iter().map(|turn| turn.row).collect()))
    }

    /// From what was measured, in the order of [`SERIES`].
    fn new(cases: Vec<Row>) -> Self {
        let figures: Vec<_> =
            cases.iter().map(|row| row.fastest().filter(|_| row.unmeasured.is_none())).collect();
        let mut walks: Vec<Walk> = Vec::new();
        for (series, figures) in SERIES.iter().zip(figures.chunks(SERIES[0].cases.len())) {
            let more = FRAMES.into_iter().enumerate().map(|(number, frames)| {
                let nanoseconds = figures[number + 1].zip(figures[0]).map(|(many, one)| many - one);
                let kernel = match walks.first() {
                    Some(kernel) => kernel.more[number].nanoseconds,
                    None => nanoseconds,
                };
                let times_kernel = nanoseconds
                    .zip(kernel)
                    .filter(|(_, kernel)| *kernel > 0.0)
                    .map(|(nanoseconds, kernel)| nanoseconds / kernel);
                More { frames, nanoseconds, times_kernel }
            });
            let more = more.collect();
            walks.push(Walk { name: series.name, one_frame: figures[0], more });
        }
        Self { walks, cases }
    }

    /// Names of the cases that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &'static str> {
        let failed = |row: &&Row| matches!(row.unmeasured, Some(Unmeasured::Failed(_)));
        self.cases.iter().filter(failed).map(|row| row.name)
    }

    /// The worst multiple of the kernel's walk, of the walk `name`.
    pub(crate) fn worst(&self, name: &str) -> Option<f64> {
        let walk = self.walks.iter().find(|walk| walk.name == name)?;
        let times: Option<Vec<_>> = walk.more.iter().map(|more| more.times_kernel).collect();
        times?.into_iter().max_by(f64::total_cmp)
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        let width = self.walks.iter().map(|walk| walk.name.len()).max().unwrap_or(0);
        let mut text = format!("{:width$}  {:>9}", "walks", "1 frame");
        for frames in FRAMES {
            text += &format!("  {:>16}", format!("+ {frames} frames"));
        }
        text += &format!("  {:>9}\n", "a frame");
        for walk in &self.walks {
            text += &format!("{:width$}  {:>9}", walk.name, or_dash(walk.one_frame, 1));
            for more in &walk.more {
                let times = more.times_kernel.map_or(String::new(), |times| format!(" ({times:.2}x)"));
                text += &format!("  {:>16}", or_dash(more.nanoseconds, 1) + &times);
            }
            let last = walk.more.last();
            let frame = last.and_then(|more| Some(more.nanoseconds? / more.frames as f64));
            text += &format!("  {:>9}\n", or_dash(frame, 2));
        }
        text += "ns of the target's CPU time: for a pair of malloc and free with its probes and everything that is done \
                 for a\nsample, where the walk ends after one frame; and what is added when it ends that many frames \
                 later (and as a\nmultiple of the kernel's). The kernel's stands alone on malloc's return; memtrace \
                 records every allocation.\n";
        for row in &self.cases {
            if let Some(Unmeasured::Failed(error)) = &row.unmeasured {
                text += &format!("{}: failed: {error}\n", row.name);
            }
        }
        text
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::row;
    use super::*;

    fn walks(figures: [f64; 12]) -> Walks {
        let names = SERIES.iter().flat_map(|series| series.cases.iter().map(|case| case.name));
        Walks::new(names.zip(figures).map(|(name, figure)| row(name, &[figure])).collect())
    }

    #[test]
    fn frames_are_compared_with_the_kernels() {
        let walks = walks([
            1000.0, 1100.0, 1300.0, 2000.0, //
            4000.0, 4250.0, 4600.0, 6000.0, //
            4000.0, 4150.0, 4300.0, 5000.0,
        ]);
        assert_eq!(walks.worst(KERNEL), Some(1.0));
        assert_eq!(walks.worst(WITH), Some(2.5));
        assert_eq!(walks.worst(WITHOUT), Some(1.5));
        let text = walks.text();
        assert!(
            text.lines().any(|line| line.starts_with(WITH) && line.ends_with("2000.0 (2.00x)      20.00"))
        );
    }

    #[test]
    fn a_walk_that_failed_is_compared_with_nothing() {
        let mut walks = walks([1000.0; 12]);
        walks.cases[5].unmeasured = Some(Unmeasured::Failed("no permission".to_owned()));
        let walks = Walks::new(walks.cases);
        assert_eq!(walks.worst(WITH), None);
        assert_eq!(walks.failed().count(), 1);
    }
}

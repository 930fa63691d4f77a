//! One stack of two: the native frames, and the Python functions that some of them run.

use memtrace_common::python::{PythonFrame, PythonFrames};

use super::Interpreter;
use crate::{collect::PythonStack, symbolize::Frame};

/// A frame of which only the address of its code object was known, and that is another object by now.
const GONE: &str = "[Python function that is gone]";

/// A stack of native and Python frames.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The innermost first.
    pub frames: Vec<Frame>,
    /// Of the Python frames, those whose code object was gone.
    pub gone: u64,
    /// Whether it is certain of all Python frames which native frame runs them. Those of which it is not
    /// stand below the next of which it is, or above all native frames.
    pub certain: bool,
}

/// Puts the Python functions to the native frames of the interpreter that run them.
///
/// One call of the interpreter's C function runs one or several Python functions: a *run*. Where a shim ends it
/// (since 3.12), the shim's address on the stack tells which native frame that is. Otherwise it is the next one
/// whose code is known to be that function. Where its code is known, the run takes the native frame's place; it
/// would say nothing more.
pub fn join(
    native: Vec<Frame>,
    is_whole: bool,
    python: &PythonStack,
    interpreter: &mut Interpreter,
) -> Joined {
    let mut gone = 0;
    let mut place = |frame: &PythonFrame| {
        interpreter.place(frame).map_or_else(
            || {
                gone += 1;
                Frame::Pseudo(GONE)
            },
            Frame::Python,
        )
    };
    let mut runs = Vec::new();
    for frames in python.frames.split_inclusive(PythonFrame::is_outermost) {
        let shim = frames.last().filter(|frame| frame.code == 0).map(|shim| shim.fingerprint);
        let frames = frames.iter().filter(|frame| frame.code != 0).map(&mut place).collect();
        runs.push(Run { frames, shim: shim.filter(|distance| *distance != PythonFrames::OFF_THE_STACK) });
    }
    let native: Vec<_> = native
        .into_iter()
        .enumerate()
        .map(|(index, frame)| Native {
            is_loop: matches!(&frame, Frame::Code { address, .. } if interpreter.runs_python(*address)),
            begin: python.stack_pointers.get(index).copied(),
            end: match python.stack_pointers.get(index + 1) {
                Some(end) => Some(*end),
                None => is_whole.then_some(PythonFrames::OFF_THE_STACK),
            },
            frame,
        })
        .collect();
    let (frames, certain) = interleave(native, runs);
    Joined { frames, gone, certain }
}

/// What one call of the interpreter's C function runs.
struct Run {
    frames: Vec<Frame>,
    /// Where on the stack its shim is.
    shim: Option<u32>,
}

/// A native frame, and from where to where on the stack it is.
struct Native {
    frame: Frame,
    is_loop: bool,
    begin: Option<u32>,
    end: Option<u32>,
}

impl Native {
    fn runs(&self, run: &Run) -> bool {
        match (run.shim, self.begin, self.end) {
            (Some(shim), Some(begin), Some(end)) => (begin..end).contains(&shim),
            (Some(_), ..) => false,
            (None, ..) => self.is_loop,
        }
    }
}

/// Puts each run to the native frame that runs it. The second value is whether one was found for each.
fn interleave(native: Vec<Native>, runs: Vec<Run>) -> (Vec<Frame>, bool) {
    let mut at: Vec<Vec<Frame>> = native.iter().map(|_| Vec::new()).collect();
    let (mut from, mut waiting, mut certain) = (0, Vec::new(), true);
    for run in runs {
        let found = (from..native.len()).find(|&index| native[index].runs(&run));
        // A run without a function shows nothing, wherever it is.
        certain &= found.is_some() || run.frames.is_empty();
        waiting.extend(run.frames);
        if let Some(index) = found {
            at[index].append(&mut waiting);
            // A shim's native frame may stand for others that the walk has passed over; a known one may not.
            from = if run.shim.is_some() { index } else { index + 1 };
        }
    }
    let mut frames = Vec::new();
    for (native, mut run) in native.into_iter().zip(at) {
        if !native.is_loop || run.is_empty() {
            frames.push(native.frame);
        }
        frames.append(&mut run);
    }
    frames.append(&mut waiting);
    (frames, certain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: u64 = 100;

    /// A run of one or several names, with the place of its shim.
    fn run(names: &str, shim: Option<u32>) -> Run {
        let names: &'static str = names.to_owned().leak();
        Run { frames: names.split_whitespace().map(Frame::Pseudo).collect(), shim }
    }

    /// Joins native addresses, each frame 10 bytes large, with runs; `L` is a loop's frame in what comes out.
    fn joined(addresses: &[u64], runs: Vec<Run>) -> (String, bool) {
        let native = addresses.iter().enumerate().map(|(index, &address)| Native {
            frame: Frame::Code { address, region: None },
            is_loop: address == LOOP,
            begin: Some(index as u32 * 10),
            end: Some(index as u32 * 10 + 10),
        });
        let (frames, certain) = interleave(native.collect(), runs);
        let name = |frame: &Frame| match frame {
            Frame::Code { address: LOOP, .. } => "L".to_owned(),
            Frame::Code { address, .. } => address.to_string(),
            Frame::Pseudo(name) => (*name).to_owned(),
            Frame::Python(place) => place.function.name.clone(),
        };
        (frames.iter().map(name).collect::<Vec<_>>().join(" "), certain)
    }

    #[test]
    fn each_known_loop_becomes_what_it_ran() {
        let runs = vec![run("key", None), run("sort main", None)];
        assert_eq!(joined(&[1, LOOP, 2, 3, LOOP, 4], runs), ("1 key 2 3 sort main 4".to_owned(), true));
        let runs = vec![run("", None), run("main", None)];
        assert_eq!(joined(&[1, LOOP, 2, LOOP], runs), ("1 L 2 main".to_owned(), true));
    }

    #[test]
    fn a_shim_tells_the_frame_whatever_its_code_is_called() {
        let runs = || vec![run("key", Some(15)), run("sort main", Some(31))];
        assert_eq!(joined(&[1, 2, 3, 4, 5], runs()), ("1 2 key 3 4 sort main 5".to_owned(), true));
        assert_eq!(joined(&[1, LOOP, 3, 4, 5], runs()), ("1 key 3 4 sort main 5".to_owned(), true));
        // The frames between were passed over.
        let runs = vec![run("key", Some(12)), run("sort main", Some(18))];
        assert_eq!(joined(&[1, 2, 3], runs), ("1 2 key sort main 3".to_owned(), true));
    }

    #[test]
    fn what_was_not_found_stands_below_what_was_or_above_all() {
        let runs = vec![run("key", None), run("main", None)];
        assert_eq!(joined(&[1], runs), ("1 key main".to_owned(), false));
        let runs = vec![run("key", Some(99)), run("main", Some(15)), run("outer", Some(77))];
        assert_eq!(joined(&[1, 2, 3], runs), ("1 2 key main 3 outer".to_owned(), false));
    }
}

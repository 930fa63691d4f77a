//! One stack of two: the native frames, and the Python functions that some of them run.

use memtrace_common::python::PythonFrame;

use super::Interpreter;
use crate::symbolize::Frame;

/// A frame of which only the address of its code object was known, and that is another object by now.
pub(super) const GONE: &str = "[Python function that is gone]";

/// A stack of native and Python frames.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The innermost first.
    pub frames: Vec<Frame>,
    /// Of the Python frames, those whose code object was gone.
    pub gone: u64,
    /// Whether every call of the interpreter's C function was replaced by the functions that it ran. Where
    /// not, the Python frames that belong to none that was found stand above all native frames.
    pub whole: bool,
}

/// Puts the Python functions in the place of the native frames of the interpreter that run them.
///
/// One call of the interpreter's C function runs one or several Python functions; the kernel program marks the
/// outermost of each. So the n-th such native frame, from the inside, runs the functions up to the n-th mark.
pub fn join(native: Vec<Frame>, python: &[PythonFrame], interpreter: &mut Interpreter) -> Joined {
    let mut gone = 0;
    let mut frame = |frame: &PythonFrame| {
        interpreter.place(frame).map_or_else(
            || {
                gone += 1;
                Frame::Pseudo(GONE)
            },
            Frame::Python,
        )
    };
    let mut runs: Vec<Vec<Frame>> = python
        .split_inclusive(PythonFrame::is_outermost)
        .map(|run| run.iter().filter(|frame| frame.code != 0).map(&mut frame).collect())
        .collect();
    // Since 3.15 a thread has a shim at the very end that no C function has put there.
    runs.pop_if(|run| run.is_empty());
    let is_loop =
        |frame: &Frame| matches!(frame, Frame::Code { address, .. } if interpreter.runs_python(*address));
    let (frames, whole) = interleave(native, runs, is_loop);
    Joined { frames, gone, whole }
}

/// Replaces each native frame that is a loop by the next run; an empty run leaves it as it is. The second
/// value is whether there were as many of the one as of the other.
fn interleave(
    native: Vec<Frame>,
    runs: Vec<Vec<Frame>>,
    is_loop: impl Fn(&Frame) -> bool,
) -> (Vec<Frame>, bool) {
    let mut runs = runs.into_iter();
    let mut frames = Vec::new();
    let mut whole = true;
    for frame in native {
        match is_loop(&frame).then(|| runs.next()) {
            Some(Some(run)) if !run.is_empty() => frames.extend(run),
            Some(None) => {
                whole = false;
                frames.push(frame);
            }
            _ => frames.push(frame),
        }
    }
    let above = frames.len();
    frames.extend(runs.flatten());
    whole &= frames.len() == above;
    (frames, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: u64 = 100;

    fn code(address: u64) -> Frame {
        Frame::Code { address, region: None }
    }

    /// Joins native addresses with runs of names; `L` is a loop's frame in what comes out.
    fn joined(native: &[u64], runs: &[&[&'static str]]) -> (String, bool) {
        let native = native.iter().copied().map(code).collect();
        let runs = runs.iter().map(|run| run.iter().copied().map(Frame::Pseudo).collect()).collect();
        let (frames, whole) =
            interleave(native, runs, |frame| matches!(frame, Frame::Code { address: LOOP, .. }));
        let name = |frame: &Frame| match frame {
            Frame::Code { address: LOOP, .. } => "L".to_owned(),
            Frame::Code { address, .. } => address.to_string(),
            Frame::Pseudo(name) => (*name).to_owned(),
            Frame::Python(place) => place.function.name.clone(),
        };
        (frames.iter().map(name).collect::<Vec<_>>().join(" "), whole)
    }

    #[test]
    fn each_loop_becomes_what_it_ran() {
        let text = joined(&[1, LOOP, 2, 3, LOOP, 4], &[&["key"], &["sort", "main"]]);
        assert_eq!(text, ("1 key 2 3 sort main 4".to_owned(), true));
    }

    #[test]
    fn a_native_stack_that_was_cut_has_the_rest_above() {
        assert_eq!(joined(&[1], &[&["key"], &["main"]]), ("1 key main".to_owned(), false));
        assert_eq!(joined(&[1, LOOP, 2], &[&["key"], &["main"]]), ("1 key 2 main".to_owned(), false));
    }

    #[test]
    fn a_loop_without_a_function_stays() {
        assert_eq!(joined(&[1, LOOP, 2, LOOP], &[&[], &["main"]]), ("1 L 2 main".to_owned(), true));
        assert_eq!(joined(&[1, LOOP, LOOP], &[&["main"]]), ("1 main L".to_owned(), false));
    }
}

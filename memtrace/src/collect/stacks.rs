//! Stacks by id, made into frames as soon as they arrive: while the process is there.

use std::{collections::HashMap, sync::Arc};

use memtrace_common::{StackEnd, python::PythonEnd};

use super::PythonStack;
use crate::{
    python::{self, Interpreter},
    symbolize::{AddressSpace, Frame},
};

/// A stack that was announced.
#[derive(Clone, Debug)]
pub struct RecordedStack {
    /// The innermost frame, the direct caller of the allocation function, first.
    pub frames: Vec<Frame>,
    /// How the walk ended.
    pub end: StackEnd,
    /// How the walk of the Python interpreter's frames ended.
    pub python_end: PythonEnd,
    /// The thread that has allocated, where threads are told apart.
    pub thread: Option<Arc<Thread>>,
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id, as memtrace's PID namespace numbers it.
    pub tid: u32,
    /// Its name when its first stack arrived; empty where it had ended by then.
    pub name: String,
}

impl RecordedStack {
    /// Whether the stack reaches the thread's first function.
    pub fn is_complete(&self) -> bool {
        self.end == StackEnd::Root
    }

    /// How the walk ended, in one word.
    pub fn end_name(&self) -> &'static str {
        match self.end {
            StackEnd::Root => "complete",
            StackEnd::Truncated => "truncated",
            StackEnd::NoMapping => "no_mapping",
            StackEnd::NoTable => "no_table",
            StackEnd::Unreadable => "bad_read",
            StackEnd::Unsupported => "unsupported_rule",
            StackEnd::TooDeep => "too_deep",
        }
    }
}

/// A stack as the kernel program sent it.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// Its identity.
    pub stack_id: u64,
    /// The thread whose stack it is, where threads are told apart.
    pub tid: Option<u32>,
    /// How the walk ended.
    pub end: StackEnd,
    /// Return addresses, the innermost first.
    pub frames: &'a [u64],
    /// What the Python interpreter runs there.
    pub python: Option<&'a PythonStack>,
}

/// All stacks that were announced.
#[derive(Debug, Default)]
pub struct Stacks {
    by_id: HashMap<u64, RecordedStack>,
    threads: HashMap<u32, Arc<Thread>>,
    /// Python frames whose code object was gone when it was to be read.
    pub python_frames_gone: u64,
    /// Stacks that reach their root, and whose Python frames have no certain place among the native ones.
    pub python_unjoined: u64,
}

impl Stacks {
    /// Takes in a stack of the process with this address space and Python interpreter.
    pub fn add(
        &mut self,
        space: &mut AddressSpace,
        interpreter: Option<&mut Interpreter>,
        announced: &Announced<'_>,
    ) {
        let Announced { stack_id, tid, mut end, python, .. } = *announced;
        if self.by_id.contains_key(&stack_id) {
            return;
        }
        let mut frames = space.normalize(announced.frames);
        // A caller that is in no executable mapping is none, and nor is what comes after it.
        let is_code = |frame: &Frame| matches!(frame, Frame::Code { region: Some(_), .. });
        if let Some(broken) = frames.iter().skip(1).position(|frame| !is_code(frame)) {
            frames.truncate(broken + 1);
            end = StackEnd::NoMapping;
        }
        let python_end = python.map_or(PythonEnd::NoPython, |python| python.end);
        if let (Some(interpreter), Some(python)) = (interpreter, python) {
            let is_whole = end == StackEnd::Root;
            let joined = python::join(frames, is_whole, python, interpreter);
            frames = joined.frames;
            self.python_frames_gone += joined.gone;
            self.python_unjoined += u64::from(!joined.certain && is_whole && python_end.is_complete());
        }
        let thread = tid.map(|tid| self.thread(space.pid(), tid));
        self.by_id.insert(stack_id, RecordedStack { frames, end, python_end, thread });
    }

    fn thread(&mut self, pid: u32, tid: u32) -> Arc<Thread> {
        let thread = self.threads.entry(tid).or_insert_with(|| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
            Arc::new(Thread { tid, name: name.trim_end_matches('\n').to_owned() })
        });
        Arc::clone(thread)
    }

    /// The stack with this id, if it was announced.
    pub fn get(&self, stack_id: u64) -> Option<&RecordedStack> {
        self.by_id.get(&stack_id)
    }

    /// How many stacks are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Every frame of every stack.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.by_id.values().flat_map(|stack| &stack.frames)
    }
}

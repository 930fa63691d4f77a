//! Python functions in stacks: what the interpreter's C functions run.
//!
//! ```text
//! mapped files --Interpreter::find--> PythonRuntime --> [kernel: walks the interpreter's frames]
//! code object + instruction --Interpreter::place--> function, file, line --join--> frames of the stack
//! ```
//!
//! CPython keeps a linked list of frames for each thread. The kernel program walks that list when it walks
//! the stack, because both together are the stack's identity; it sends the addresses of code objects. What
//! these are is read here, at once, while the process lives. Nothing is ever written into the process.
//!
//! # What is not attempted
//! Interpreters other than CPython, versions before 3.11 (they have another kind of frames), and lines of
//! free-threaded builds from 3.14 on where a thread runs a copy of the code (PEP 703).

mod code;
mod find;
mod join;
mod layout;
mod line_table;
mod memory;
mod object;

pub use find::{Interpreter, NotSupported};
pub use join::{Joined, join};
pub use layout::Version;

use std::sync::Arc;

/// A Python function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PythonFunction {
    /// The qualified name: `Class.method`, `outer.<locals>.inner`.
    pub name: String,
    /// The source file as the code object has it.
    pub file: String,
    /// The line of the `def` or of its first decorator; 0 for none.
    pub first_line: u32,
}

/// A place in a Python function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PythonPlace {
    /// The function.
    pub function: Arc<PythonFunction>,
    /// The line that runs, or 0 where that is not known.
    pub line: u32,
}

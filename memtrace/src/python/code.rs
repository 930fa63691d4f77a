//! Code objects: the name, the file and the lines of a Python function.

use std::{io, sync::Arc};

use memtrace_common::python::PythonFrame;

use super::{PythonFunction, PythonPlace, layout::ObjectLayout, line_table, memory::Memory, object};

/// What is kept of a code object.
#[derive(Debug)]
pub(super) struct Code {
    function: Arc<PythonFunction>,
    line_table: Vec<u8>,
    /// Distance in bytes from the code object to its first instruction.
    instructions: u64,
}

impl Code {
    /// Reads the code object of `frame`, if it is still the one that the kernel program saw: its fingerprint
    /// is the same, and so is its type, where the address of that (`PyCode_Type`) is known.
    pub(super) fn read(
        memory: &Memory,
        layout: &ObjectLayout,
        code_type: Option<u64>,
        frame: &PythonFrame,
    ) -> io::Result<Self> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let read_names = || memory.words::<4>(frame.code.wrapping_add(layout.names_of_code));
        let names = read_names()?;
        let object_type = memory.u64(frame.code.wrapping_add(layout.type_of_object))?;
        if PythonFrame::fingerprint_of(names) != frame.fingerprint
            || code_type.is_some_and(|known| known != object_type)
        {
            return Err(gone());
        }
        let [file, _, name, line_table] = names;
        let function = PythonFunction {
            name: object::string(memory, layout, name)?,
            file: object::string(memory, layout, file)?,
            first_line: memory.u32(frame.code.wrapping_add(layout.first_line_of_code))?,
        };
        let line_table = object::bytes(memory, layout, line_table)?;
        // The process runs on meanwhile: what was read belongs together only if the object is still there.
        if read_names()? != names {
            return Err(gone());
        }
        Ok(Self { function: Arc::new(function), line_table, instructions: layout.instructions_of_code })
    }

    /// The place of a frame that runs this code.
    pub(super) fn place(&self, frame: &PythonFrame) -> PythonPlace {
        let first_line = self.function.first_line;
        let line = frame.distance().and_then(|distance| {
            // A frame that has just been made stands before its first instruction.
            let Some(offset) = u64::from(distance).checked_sub(self.instructions) else {
                return Some(first_line);
            };
            line_table::line_at(&self.line_table, first_line, offset)
        });
        PythonPlace { function: Arc::clone(&self.function), line: line.unwrap_or(0) }
    }
}

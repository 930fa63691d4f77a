//! How the versions of CPython lay out their structures.
//!
//! Up to 3.12 the offsets are those that a C compiler gives for the version's headers; they have not changed
//! within a minor version. From 3.13 on `_PyRuntime` begins with a table of offsets, made for tools like this
//! one (`_Py_DebugOffsets`); only the order of the table is taken from the headers.

use std::fmt;

use memtrace_common::python::{NO_FIELD, PYTHON_FRAME_WORDS, PythonRuntime};

/// A version of CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 in 3.11.
    pub major: u8,
    /// 11 in 3.11.
    pub minor: u8,
}

impl Version {
    /// The first version that is known.
    pub const OLDEST: Self = Self { major: 3, minor: 11 };
    /// The last version that is known.
    pub const NEWEST: Self = Self { major: 3, minor: 15 };

    /// From `PY_VERSION_HEX` (Include/patchlevel.h).
    pub(super) fn from_hex(hex: u64) -> Self {
        Self { major: (hex >> 24) as u8, minor: (hex >> 16) as u8 }
    }

    /// Whether frames of this version can be read.
    pub fn is_supported(self) -> bool {
        (Self::OLDEST..=Self::NEWEST).contains(&self)
    }

    /// Whether `_PyRuntime` begins with a table of offsets.
    pub(super) fn has_debug_offsets(self) -> bool {
        self >= Self { major: 3, minor: 13 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Byte offsets in the objects that userspace reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ObjectLayout {
    pub(super) type_of_object: u64,
    pub(super) names_of_code: u64,
    pub(super) first_line_of_code: u64,
    /// Where the instructions begin (`co_code_adaptive`).
    pub(super) instructions_of_code: u64,
    pub(super) size_of_bytes: u64,
    pub(super) data_of_bytes: u64,
    pub(super) length_of_string: u64,
    pub(super) state_of_string: u64,
    /// The bit of the state at which `kind` begins.
    pub(super) state_shift: u32,
    /// Size of `PyASCIIObject`: ASCII text follows it.
    pub(super) ascii_header: u64,
    /// Size of `PyCompactUnicodeObject`: other text follows it.
    pub(super) compact_header: u64,
}

/// All offsets of one version. Those of the runtime's own fields are not addresses yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) runtime: PythonRuntime,
    pub(super) objects: ObjectLayout,
}

/// Size of `PyUnicodeObject` less that of `PyCompactUnicodeObject`, before it: a pointer.
const DATA_POINTER: u64 = 8;

/// `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13, `FRAME_OWNED_BY_INTERPRETER` from 3.14 on
/// (Include/internal/pycore_frame.h, `enum _frameowner`). Higher owners are shims as well.
const FIRST_SHIM_OWNER: u32 = 3;

/// CPython 3.11.
pub(super) const PYTHON_3_11: Layout = Layout {
    runtime: PythonRuntime {
        pid_namespace_dev: 0,
        pid_namespace_ino: 0,
        current_thread: 576,
        interpreters: 40,
        next_of_interpreter: 0,
        threads_of_interpreter: 16,
        lock_of_interpreter: NO_FIELD,
        holder_of_lock: 0,
        next_of_thread: 8,
        id_of_thread: 160,
        frame_of_thread: 56,
        frame_of_cframe: 8,
        code_of_frame: 32,
        previous_of_frame: 48,
        instruction_of_frame: 56,
        owner_of_frame: 69,
        entry_of_frame: 68,
        first_shim_owner: FIRST_SHIM_OWNER,
        names_of_code: 112,
        reserved: 0,
    },
    objects: ObjectLayout {
        type_of_object: 8,
        names_of_code: 112,
        first_line_of_code: 72,
        instructions_of_code: 184,
        size_of_bytes: 16,
        data_of_bytes: 32,
        length_of_string: 16,
        state_of_string: 32,
        state_shift: 2,
        ascii_header: 48,
        compact_header: 72,
    },
};

/// CPython 3.12.
pub(super) const PYTHON_3_12: Layout = Layout {
    runtime: PythonRuntime {
        current_thread: 0,
        threads_of_interpreter: 72,
        lock_of_interpreter: 384,
        holder_of_lock: 8,
        id_of_thread: 144,
        frame_of_cframe: 0,
        code_of_frame: 0,
        previous_of_frame: 8,
        owner_of_frame: 70,
        entry_of_frame: NO_FIELD,
        ..PYTHON_3_11.runtime
    },
    objects: ObjectLayout {
        first_line_of_code: 68,
        instructions_of_code: 192,
        ascii_header: 40,
        compact_header: 56,
        ..PYTHON_3_11.objects
    },
};

/// What the table of offsets begins with (`_Py_Debug_Cookie`).
pub(super) const COOKIE: &[u8; 8] = b"xdebugpy";

/// How many words of the table are read: more than any version needs.
pub(super) const TABLE_WORDS: usize = 128;

/// At which word of the table each group of offsets begins, and where in it a field is that has moved.
struct Groups {
    interpreter: usize,
    /// From here on, the fields of the interpreter are one further since 3.14.
    lock: usize,
    thread: usize,
    thread_id: usize,
    frame: usize,
    code: usize,
    object: usize,
    bytes: usize,
}

/// Include/internal/pycore_runtime.h of 3.13, pycore_debug_offsets.h of the later versions.
fn groups(version: Version) -> Groups {
    match version.minor {
        13 => Groups {
            interpreter: 6,
            lock: 14,
            thread: 19,
            thread_id: 25,
            frame: 28,
            code: 34,
            object: 44,
            bytes: 64,
        },
        14 => Groups {
            interpreter: 6,
            lock: 15,
            thread: 22,
            thread_id: 28,
            frame: 31,
            code: 39,
            object: 50,
            bytes: 74,
        },
        _ => Groups {
            interpreter: 6,
            lock: 15,
            thread: 22,
            thread_id: 31,
            frame: 39,
            code: 47,
            object: 58,
            bytes: 86,
        },
    }
}

/// The layout that the table at the beginning of `_PyRuntime` describes; `None` where it is none, or one that
/// the kernel program could not use.
pub(super) fn from_table(version: Version, table: &[u64; TABLE_WORDS]) -> Option<Layout> {
    let at = groups(version);
    if table[0].to_ne_bytes() != *COOKIE || Version::from_hex(table[1]) != version {
        return None;
    }
    let offset = |word: usize| u32::try_from(table[word]).ok().filter(|offset| *offset < 1 << 24);
    let free_threaded = table[2] != 0;
    let lock = at.lock;
    let names = at.code + 1;
    // The kernel program reads these four at once.
    let together = (0..3).all(|index| table[names + index].checked_add(8) == Some(table[names + index + 1]));
    let runtime = PythonRuntime {
        current_thread: 0,
        interpreters: offset(5)?.into(),
        next_of_interpreter: offset(at.interpreter + 2)?,
        threads_of_interpreter: offset(at.interpreter + 3)?,
        lock_of_interpreter: if free_threaded { NO_FIELD } else { offset(lock)? },
        holder_of_lock: offset(lock + 4)?.checked_sub(offset(lock + 1)?)?,
        next_of_thread: offset(at.thread + 2)?,
        id_of_thread: offset(at.thread_id)?,
        frame_of_thread: offset(at.thread + 4)?,
        frame_of_cframe: NO_FIELD,
        previous_of_frame: offset(at.frame + 1)?,
        code_of_frame: offset(at.frame + 2)?,
        instruction_of_frame: offset(at.frame + 3)?,
        owner_of_frame: offset(at.frame + 5)?,
        entry_of_frame: NO_FIELD,
        names_of_code: offset(names)?,
        ..PYTHON_3_12.runtime
    };
    let word = |offset: u32| offset.is_multiple_of(8) && offset < PYTHON_FRAME_WORDS as u32 * 8;
    let words = [runtime.previous_of_frame, runtime.code_of_frame, runtime.instruction_of_frame];
    let owner = runtime.owner_of_frame & !7;
    if !together || !words.into_iter().all(word) || !word(owner) {
        return None;
    }
    let string = at.bytes + 3;
    let objects = ObjectLayout {
        type_of_object: table[at.object + 1],
        names_of_code: table[names],
        first_line_of_code: table[at.code + 5],
        instructions_of_code: table[at.code + 9],
        size_of_bytes: table[at.bytes + 1],
        data_of_bytes: table[at.bytes + 2],
        state_of_string: table[string + 1],
        length_of_string: table[string + 2],
        // `interned` takes a byte instead of two bits where threads change it without a lock.
        state_shift: if free_threaded && version.minor >= 14 { 8 } else { 2 },
        ascii_header: table[string + 3],
        compact_header: table[string].checked_sub(DATA_POINTER)?,
    };
    Some(Layout { runtime, objects })
}

//! The frames of the Python interpreter, as the kernel program finds them.
//!
//! CPython keeps a frame of its own for each Python function that runs (`_PyInterpreterFrame`, linked by
//! `previous`). Userspace finds out where the interpreter's state stands in a process and how its version lays
//! these structures out ([`PythonRuntime`]); the kernel program walks the frames of the sampled thread
//! ([`PythonFrames`]) and makes them a part of the stack's identity.

/// The most frames of the interpreter that are kept of a stack, the innermost ones.
pub const MAX_PYTHON_FRAMES: usize = 100;

/// The most interpreters and thread states, together, that are looked at to find a thread's own.
pub const MAX_PYTHON_THREADS: u32 = 128;

/// In [`PythonRuntime`]: this version has no such field.
pub const NO_FIELD: u32 = u32::MAX;

/// Room for the stack pointers of [`MAX_FRAMES`](crate::MAX_FRAMES) native frames; a power of two.
pub const STACK_POINTERS: usize = 256;

/// Fields of a frame that the kernel program needs stand in its first so many words. No frame is shorter: the
/// fixed fields take nine words at least, and room for one value follows.
pub const PYTHON_FRAME_WORDS: usize = 10;

/// Where a process's Python interpreter keeps its state. Names with `_of` are byte offsets in a structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PythonRuntime {
    /// Device number of the process's own PID namespace: the interpreter knows its threads by its numbers.
    pub pid_namespace_dev: u64,
    /// Inode of that namespace.
    pub pid_namespace_ino: u64,
    /// Address of the pointer to the thread state that holds the interpreter's lock, or 0 where there is none
    /// for all interpreters.
    pub current_thread: u64,
    /// Address of the pointer to the first interpreter.
    pub interpreters: u64,
    /// `PyInterpreterState.next`.
    pub next_of_interpreter: u32,
    /// `PyInterpreterState.threads.head`.
    pub threads_of_interpreter: u32,
    /// The pointer to the interpreter's lock, or [`NO_FIELD`].
    pub lock_of_interpreter: u32,
    /// In the lock: the pointer to the thread state that took it last.
    pub holder_of_lock: u32,
    /// `PyThreadState.next`.
    pub next_of_thread: u32,
    /// `PyThreadState.native_thread_id`.
    pub id_of_thread: u32,
    /// The pointer to the innermost frame, or to the structure that holds it.
    pub frame_of_thread: u32,
    /// Where in that structure (`_PyCFrame`) it is, or [`NO_FIELD`] where there is none.
    pub frame_of_cframe: u32,
    /// The pointer to the code object; of its bits, the lowest three are tags.
    pub code_of_frame: u32,
    /// `_PyInterpreterFrame.previous`.
    pub previous_of_frame: u32,
    /// The pointer to the instruction.
    pub instruction_of_frame: u32,
    /// `_PyInterpreterFrame.owner`, one byte.
    pub owner_of_frame: u32,
    /// `_PyInterpreterFrame.is_entry`, one byte in the same word as the owner, or [`NO_FIELD`].
    pub entry_of_frame: u32,
    /// Frames with this owner or a higher one belong to no function: the interpreter's C function puts one
    /// below those that it runs.
    pub first_shim_owner: u32,
    /// `PyCodeObject.co_filename`, with `co_name`, `co_qualname` and `co_linetable` behind it.
    pub names_of_code: u32,
    /// Always 0: the record has no hidden padding.
    pub reserved: u32,
}

/// A frame of the interpreter: a Python function that runs, or a shim.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Address of the code object; 0 for a shim, which is no function and only marks the outermost end of
    /// what one call of the interpreter's C function runs.
    pub code: u64,
    /// [`OUTERMOST`](Self::OUTERMOST), and the distance in bytes from the code object to the instruction.
    pub place: u32,
    /// See [`fingerprint_of`](Self::fingerprint_of): tells a code object from a later one at its address. Of a
    /// shim, where on the thread's stack it stands ([`PythonFrames::distance_to`]): no part of the identity.
    pub fingerprint: u32,
}

impl PythonFrame {
    /// Bit of `place`: the outermost frame of those that one call of the interpreter's C function runs. A shim
    /// always has it.
    pub const OUTERMOST: u32 = 1 << 31;

    /// The distance where the instruction does not stand in the code object.
    pub const ELSEWHERE: u32 = Self::OUTERMOST - 1;

    /// Whether the frames that follow are run by another call of the interpreter's C function.
    pub const fn is_outermost(&self) -> bool {
        self.place & Self::OUTERMOST != 0
    }

    /// The distance in bytes from the code object to the instruction.
    pub const fn distance(&self) -> Option<u32> {
        match self.place & !Self::OUTERMOST {
            Self::ELSEWHERE => None,
            distance => Some(distance),
        }
    }

    /// What tells one code object from another: of the addresses of its file's name, its name, its qualified
    /// name and its line table, which are objects of their own.
    #[inline(always)]
    pub const fn fingerprint_of(names: [u64; 4]) -> u32 {
        let mut hash = names[0];
        hash = (hash ^ names[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 32 ^ names[2]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 32 ^ names[3]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as u32
    }
}

/// How the walk of the interpreter's frames ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PythonEnd {
    /// The process has no Python interpreter that is known, or the thread runs no Python code.
    NoPython = 0,
    /// The thread's first Python function.
    Root = 1,
    /// Memory could not be read.
    Unreadable = 2,
    /// [`MAX_PYTHON_FRAMES`] frames were found and there are more.
    TooDeep = 3,
    /// The thread's state was not among the first [`MAX_PYTHON_THREADS`].
    TooManyThreads = 4,
}

impl PythonEnd {
    /// The end with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::NoPython, Self::Root, Self::Unreadable, Self::TooDeep, Self::TooManyThreads]
            .into_iter()
            .find(|end| *end as u32 == number)
    }

    /// Whether no frame is missing.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::NoPython | Self::Root)
    }
}

/// The Python part of a stack.
///
/// A shim stands on the stack of the C function that has put it there. So where the stack pointers of the native
/// frames are known, too, it is certain which of them runs which Python functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PythonFrames {
    /// How many of `frames` are in use.
    pub len: u32,
    /// [`PythonEnd`] as a number.
    pub end: u32,
    /// The innermost native frame's stack pointer.
    pub base: u64,
    /// By native frame: its stack pointer when it goes on, as a distance to `base`.
    pub stack_pointers: [u32; STACK_POINTERS],
    /// The innermost first.
    pub frames: [PythonFrame; MAX_PYTHON_FRAMES],
}

impl PythonFrames {
    /// In place of a distance: the address does not stand on this stack.
    pub const OFF_THE_STACK: u32 = u32::MAX;

    /// Says at which stack pointer the native frame `index` goes on: the address above the return address that
    /// leads to it. To be called for index 0 first.
    #[inline(always)]
    pub fn set_stack_pointer(&mut self, index: usize, stack_pointer: u64) {
        if index == 0 {
            self.base = stack_pointer;
        }
        self.stack_pointers[index & (STACK_POINTERS - 1)] = self.distance_to(stack_pointer);
    }

    /// How far up the stack an address is, counted from the innermost native frame.
    #[inline(always)]
    pub fn distance_to(&self, address: u64) -> u32 {
        let distance = address.wrapping_sub(self.base);
        if distance < Self::OFF_THE_STACK as u64 { distance as u32 } else { Self::OFF_THE_STACK }
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
unsafe impl aya::Pod for PythonRuntime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<PythonRuntime>(), 4 * 8 + 16 * 4);
        assert_eq!(size_of::<PythonFrame>(), 16);
        assert_eq!(size_of::<PythonFrames>(), 16 + STACK_POINTERS * 4 + MAX_PYTHON_FRAMES * 16);
        const { assert!(crate::MAX_FRAMES <= STACK_POINTERS) };
    }

    #[test]
    fn a_place_is_a_distance_and_a_mark() {
        let frame = PythonFrame { place: 300 | PythonFrame::OUTERMOST, ..PythonFrame::default() };
        assert_eq!((frame.is_outermost(), frame.distance()), (true, Some(300)));
        let frame = PythonFrame { place: PythonFrame::ELSEWHERE, ..PythonFrame::default() };
        assert_eq!((frame.is_outermost(), frame.distance()), (false, None));
    }

    #[test]
    fn every_name_changes_the_fingerprint() {
        let names = [0x7f00_1000, 0x7f00_2000, 0x7f00_3000, 0x7f00_4000];
        for index in 0..4 {
            let mut other = names;
            other[index] += 16;
            assert_ne!(PythonFrame::fingerprint_of(names), PythonFrame::fingerprint_of(other));
        }
    }
}

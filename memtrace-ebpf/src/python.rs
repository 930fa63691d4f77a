//! Walking the frames of a Python interpreter: which Python functions the sampled thread runs in.
//!
//! The frames are those of the thread itself, which stands still in its allocation function: nobody changes
//! them meanwhile, whether or not the thread holds the interpreter's lock. They are looked up under the
//! thread's own id, so no thread gets the frames of another.

use aya_ebpf::{
    helpers::{bpf_probe_read_user, generated},
    macros::map,
    maps::HashMap,
};
use memtrace_common::Counter;
use memtrace_common::python::{
    MAX_PYTHON_FRAMES, MAX_PYTHON_THREADS, NO_FIELD, PYTHON_FRAME_WORDS, PythonEnd, PythonFrame,
    PythonFrames, PythonRuntime,
};

use crate::{counters::count, task, unwind::mix};

/// By process: its Python interpreter.
#[map]
static PYTHON: HashMap<u32, PythonRuntime> = HashMap::with_max_entries(1024, 0);

/// The first words of a frame, with room up to a power of two: an offset need only be masked.
type FrameWords = [u64; 16];

/// What is read of a frame: in map memory, because a program's functions have 512 bytes of stack together
/// (before Linux 6.13).
#[repr(C)]
pub(crate) struct Read {
    words: FrameWords,
    /// The code object's, where its names are.
    names: [u64; 4],
}

/// Lowest bits of a pointer to a code object that are tags since CPython 3.14 (`Py_TAG_BITS`,
/// Include/internal/pycore_stackref.h); code objects are aligned to more.
const TAGS: u64 = 7;

/// Walks the Python frames of the current thread into `python` and mixes them into `hash`, the identity of
/// its stack. Without an interpreter, or where the thread runs no Python code, there are none.
#[inline(always)]
pub(crate) fn walk(pid_tgid: u64, python: &mut PythonFrames, read: &mut Read, hash: u64) -> u64 {
    python.len = 0;
    python.end = PythonEnd::NoPython as u32;
    let tgid = task::tgid(pid_tgid);
    // SAFETY: userspace replaces the value as a whole when the process has another interpreter; a mixture of
    // two could only end the walk, and what it finds is checked against the code objects in userspace.
    let Some(runtime) = (unsafe { PYTHON.get(&tgid) }) else { return hash };
    walk_frames(runtime, python, read, hash)
}

/// A function of its own: otherwise the verifier would follow it from each state of its caller's.
#[inline(never)]
fn walk_frames(runtime: &PythonRuntime, python: &mut PythonFrames, read: &mut Read, hash: u64) -> u64 {
    let mut len = 0;
    let mut hash = hash;
    let end = match innermost(runtime) {
        Ok(0) => PythonEnd::NoPython,
        Ok(frame) => follow(runtime, frame, python, read, &mut len, &mut hash),
        Err(end) => end,
    };
    match end {
        PythonEnd::Unreadable => count(Counter::PythonUnreadable),
        PythonEnd::TooDeep => count(Counter::PythonTruncated),
        PythonEnd::TooManyThreads => count(Counter::PythonTooManyThreads),
        PythonEnd::NoPython | PythonEnd::Root => {}
    }
    python.len = len as u32;
    python.end = end as u32;
    if len == 0 && end.is_complete() { hash } else { mix(hash, end as u64) }
}

/// Reads a word of user memory.
#[inline(always)]
fn read(address: u64) -> Result<u64, PythonEnd> {
    // SAFETY: a read of user memory through the helper, which checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.map_err(|_| PythonEnd::Unreadable)
}

#[inline(always)]
fn field(base: u64, offset: u32) -> Result<u64, PythonEnd> {
    read(base.wrapping_add(u64::from(offset)))
}

/// The thread's innermost frame, 0 where it has none.
#[inline(always)]
fn innermost(runtime: &PythonRuntime) -> Result<u64, PythonEnd> {
    // The thread's id as the process itself sees it.
    let Some(ids) = task::ids_in(runtime.pid_namespace_dev, runtime.pid_namespace_ino) else { return Ok(0) };
    let thread = own_state(runtime, u64::from(ids.pid))?;
    if thread == 0 {
        return Ok(0);
    }
    let frame = field(thread, runtime.frame_of_thread)?;
    if frame == 0 || runtime.frame_of_cframe == NO_FIELD {
        return Ok(frame);
    }
    field(frame, runtime.frame_of_cframe)
}

/// The state that the interpreter keeps of this thread, 0 where it keeps none. Most often the thread holds
/// the interpreter's lock, and then it is found at once.
#[inline(always)]
fn own_state(runtime: &PythonRuntime, tid: u64) -> Result<u64, PythonEnd> {
    if runtime.current_thread != 0 {
        let thread = read(runtime.current_thread)?;
        if belongs(runtime, thread, tid) {
            return Ok(thread);
        }
    }
    let mut interpreter = read(runtime.interpreters)?;
    let mut thread = 0;
    let mut steps = 0;
    while steps < MAX_PYTHON_THREADS {
        steps += 1;
        if thread != 0 {
            if belongs(runtime, thread, tid) {
                return Ok(thread);
            }
            thread = field(thread, runtime.next_of_thread)?;
            continue;
        }
        if interpreter == 0 {
            return Ok(0);
        }
        if runtime.lock_of_interpreter != NO_FIELD {
            // An interpreter that is being made has no lock yet.
            let lock = field(interpreter, runtime.lock_of_interpreter)?;
            let holder = field(lock, runtime.holder_of_lock).unwrap_or(0);
            if belongs(runtime, holder, tid) {
                return Ok(holder);
            }
        }
        thread = field(interpreter, runtime.threads_of_interpreter)?;
        interpreter = field(interpreter, runtime.next_of_interpreter)?;
    }
    Err(PythonEnd::TooManyThreads)
}

/// Whether the thread state at `thread` is that of the thread `tid`.
#[inline(always)]
fn belongs(runtime: &PythonRuntime, thread: u64, tid: u64) -> bool {
    thread != 0 && matches!(field(thread, runtime.id_of_thread), Ok(id) if id == tid)
}

/// Goes from frame to frame. Each one that is met takes one place, that of a shim as well: so the verifier sees
/// one state in each round, and not one for each way to get there.
#[inline(always)]
fn follow(
    runtime: &PythonRuntime,
    innermost: u64,
    python: &mut PythonFrames,
    read: &mut Read,
    len: &mut usize,
    hash: &mut u64,
) -> PythonEnd {
    let mut frame = innermost;
    let mut index = 0;
    let Read { words, names } = read;
    while index < MAX_PYTHON_FRAMES {
        if frame == 0 {
            return PythonEnd::Root;
        }
        // SAFETY: a read of user memory through the helper, which checks the address, into `words`, which is
        // larger.
        let failed = unsafe {
            generated::bpf_probe_read_user(
                words.as_mut_ptr().cast(),
                PYTHON_FRAME_WORDS as u32 * 8,
                frame as *const _,
            )
        };
        if failed != 0 {
            return PythonEnd::Unreadable;
        }
        let flags = word(words, runtime.owner_of_frame);
        let entry = runtime.entry_of_frame != NO_FIELD && byte(flags, runtime.entry_of_frame) != 0;
        let outermost = if entry { PythonFrame::OUTERMOST } else { 0 };
        let found = if byte(flags, runtime.owner_of_frame) >= runtime.first_shim_owner {
            PythonFrame { code: 0, place: PythonFrame::OUTERMOST, fingerprint: python.distance_to(frame) }
        } else {
            let code = word(words, runtime.code_of_frame) & !TAGS;
            let names_of_code = code.wrapping_add(u64::from(runtime.names_of_code));
            // SAFETY: as above.
            let failed = unsafe {
                generated::bpf_probe_read_user(
                    names.as_mut_ptr().cast(),
                    size_of_val(names) as u32,
                    names_of_code as *const _,
                )
            };
            if failed != 0 {
                return PythonEnd::Unreadable;
            }
            let distance = word(words, runtime.instruction_of_frame).wrapping_sub(code);
            let elsewhere = distance >= u64::from(PythonFrame::ELSEWHERE);
            let distance = if elsewhere { PythonFrame::ELSEWHERE } else { distance as u32 };
            PythonFrame {
                code,
                place: distance | outermost,
                fingerprint: PythonFrame::fingerprint_of(*names),
            }
        };
        python.frames[index] = found;
        *hash = mix(*hash, found.code);
        let fingerprint = if found.code == 0 { 0 } else { found.fingerprint };
        *hash = mix(*hash, u64::from(fingerprint) << 32 | u64::from(found.place));
        index += 1;
        *len = index;
        frame = word(words, runtime.previous_of_frame);
    }
    if frame == 0 { PythonEnd::Root } else { PythonEnd::TooDeep }
}

/// The word at a byte offset, which userspace has checked.
#[inline(always)]
fn word(words: &FrameWords, offset: u32) -> u64 {
    words[(offset as usize >> 3) & 15]
}

/// The byte at an offset of which `word` holds the surroundings.
#[inline(always)]
fn byte(word: u64, offset: u32) -> u32 {
    (word >> ((offset & 7) * 8)) as u32 & 0xff
}

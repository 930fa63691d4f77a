//! Reading records of the ring buffer.

use memtrace_common::{
    Block, BlockEvent, EVENT_ALLOCATED, EVENT_APPEARED, EVENT_CAPTURE, EVENT_EXEC, EVENT_FORK, EVENT_FREED,
    EVENT_LOADER, EVENT_NEW_STACK, ImageChanged, MAX_FRAMES, NewStack, StackEnd,
    python::{MAX_PYTHON_FRAMES, PythonEnd, PythonFrame, PythonFrames, STACK_POINTERS},
};

use super::CapturedWalk;

/// What changed in a process's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageChange {
    /// It has executed another program.
    Exec,
    /// Its dynamic loader is at work.
    Loader,
}

/// What happened to a recorded block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockChange {
    /// The process.
    pub pid: u32,
    /// The thread that did it.
    pub tid: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The block's address.
    pub address: u64,
    /// The block.
    pub block: Block,
    /// Whether it was freed; otherwise allocated.
    pub freed: bool,
}

/// The Python part of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonStack {
    /// The frames of the interpreter, the innermost first.
    pub frames: Vec<PythonFrame>,
    /// How the walk ended.
    pub end: PythonEnd,
    /// By native frame: how far up the stack its stack pointer is ([`PythonFrames::distance_to`]).
    pub stack_pointers: Vec<u32>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stack that was seen for the first time.
    NewStack {
        /// The process.
        tgid: u32,
        /// The stack's identity.
        stack_id: u64,
        /// The thread whose stack it is, where threads are told apart.
        tid: Option<u32>,
        /// How the walk ended.
        end: StackEnd,
        /// Return addresses, the innermost first.
        frames: Vec<u64>,
        /// What the Python interpreter runs there, if the process has one.
        python: Option<PythonStack>,
    },
    /// Something happened to a recorded allocation.
    Block(BlockChange),
    /// A stack was walked; only where that was asked for.
    Captured(CapturedWalk),
    /// There is a process that was not watched before.
    Newcomer {
        /// The process.
        tgid: u32,
        /// The watched process that has created it; none where it has executed a program and is not watched yet.
        parent: Option<u32>,
        /// When it was created, or has executed the program: nanoseconds of `CLOCK_MONOTONIC`.
        time_ns: u64,
        /// Its name then, as `/proc/PID/comm` has it.
        comm: String,
    },
    /// The code of a watched process may be another one from here on.
    ImageChanged {
        /// The process.
        tgid: u32,
        /// What happened.
        change: ImageChange,
        /// When: nanoseconds of `CLOCK_MONOTONIC`.
        time_ns: u64,
    },
}

/// A number at a byte offset of the record.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// The same.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

/// The Python part of a new stack with this many native frames; the record may end before it.
fn python(bytes: &[u8], native: usize) -> Option<Option<PythonStack>> {
    let start = std::mem::offset_of!(NewStack, python);
    if bytes.len() <= start {
        return Some(None);
    }
    let number = |offset| u32_at(bytes, start + offset);
    let len = number(std::mem::offset_of!(PythonFrames, len))? as usize;
    let end = PythonEnd::from_number(number(std::mem::offset_of!(PythonFrames, end))?)?;
    let first = std::mem::offset_of!(PythonFrames, stack_pointers);
    let stack_pointers = (0..native.min(STACK_POINTERS)).map(|index| number(first + index * 4));
    let first = start + std::mem::offset_of!(PythonFrames, frames);
    let frame = |index| {
        let at = first + index * size_of::<PythonFrame>();
        Some(PythonFrame {
            code: u64_at(bytes, at + std::mem::offset_of!(PythonFrame, code))?,
            place: u32_at(bytes, at + std::mem::offset_of!(PythonFrame, place))?,
            fingerprint: u32_at(bytes, at + std::mem::offset_of!(PythonFrame, fingerprint))?,
        })
    };
    let frames = (0..len.min(MAX_PYTHON_FRAMES)).map(frame).collect::<Option<_>>()?;
    Some(Some(PythonStack { frames, end, stack_pointers: stack_pointers.collect::<Option<_>>()? }))
}

impl Event {
    /// Reads one record; `None` where it is none that this version knows.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let tgid = u32_at(bytes, std::mem::offset_of!(NewStack, tgid))?;
        let image_changed = |change| {
            let time_ns = u64_at(bytes, std::mem::offset_of!(ImageChanged, time_ns))?;
            Some(Self::ImageChanged { tgid, change, time_ns })
        };
        let newcomer = |parent| {
            let time_ns = u64_at(bytes, std::mem::offset_of!(ImageChanged, time_ns))?;
            let start = std::mem::offset_of!(ImageChanged, comm);
            let name = bytes.get(start..start + 16)?.split(|&byte| byte == 0).next()?;
            let comm = String::from_utf8_lossy(name).into_owned();
            Some(Self::Newcomer { tgid, parent, time_ns, comm })
        };
        match u32_at(bytes, 0)? {
            EVENT_NEW_STACK => {
                let stack_id = u64_at(bytes, std::mem::offset_of!(NewStack, stack_id))?;
                let len = u32_at(bytes, std::mem::offset_of!(NewStack, len))? as usize;
                let end = StackEnd::from_number(u32_at(bytes, std::mem::offset_of!(NewStack, end))?)?;
                let tid = u32_at(bytes, std::mem::offset_of!(NewStack, tid))?;
                let tid = (tid != 0).then_some(tid);
                let first = std::mem::offset_of!(NewStack, frames);
                let frames = (0..len.min(MAX_FRAMES)).map(|index| u64_at(bytes, first + index * 8));
                let frames: Vec<u64> = frames.collect::<Option<_>>()?;
                let python = python(bytes, frames.len())?;
                Some(Self::NewStack { tgid, stack_id, tid, end, frames, python })
            }
            EVENT_LOADER => image_changed(ImageChange::Loader),
            kind @ (EVENT_ALLOCATED | EVENT_FREED) => {
                let start = std::mem::offset_of!(BlockEvent, block);
                let field = |offset| u64_at(bytes, start + offset);
                Some(Self::Block(BlockChange {
                    pid: tgid,
                    tid: u32_at(bytes, std::mem::offset_of!(BlockEvent, tid))?,
                    time_ns: u64_at(bytes, std::mem::offset_of!(BlockEvent, time_ns))?,
                    address: u64_at(bytes, std::mem::offset_of!(BlockEvent, address))?,
                    freed: kind == EVENT_FREED,
                    block: Block {
                        stack_id: field(std::mem::offset_of!(Block, stack_id))?,
                        size: field(std::mem::offset_of!(Block, size))?,
                        objects: field(std::mem::offset_of!(Block, objects))?,
                        bytes: field(std::mem::offset_of!(Block, bytes))?,
                        time_ns: field(std::mem::offset_of!(Block, time_ns))?,
                        tid: u32_at(bytes, start + std::mem::offset_of!(Block, tid))?,
                        present: 1,
                    },
                }))
            }
            EVENT_CAPTURE => CapturedWalk::parse(bytes).map(Self::Captured),
            EVENT_EXEC => image_changed(ImageChange::Exec),
            EVENT_FORK => newcomer(Some(u32_at(bytes, std::mem::offset_of!(ImageChanged, parent))?)),
            EVENT_APPEARED => newcomer(None),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_stack(len: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(EVENT_NEW_STACK.to_ne_bytes());
        bytes.extend(42u32.to_ne_bytes());
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(len.to_ne_bytes());
        bytes.extend((StackEnd::Root as u32).to_ne_bytes());
        bytes.extend(43u64.to_ne_bytes());
        for frame in 0..MAX_FRAMES as u64 {
            bytes.extend((0x1000 + frame).to_ne_bytes());
        }
        assert_eq!(bytes.len(), std::mem::offset_of!(NewStack, python));
        bytes
    }

    #[test]
    fn a_stack_has_as_many_frames_as_it_says() {
        let event = Event::parse(&new_stack(2));
        let frames = vec![0x1000, 0x1001];
        let end = StackEnd::Root;
        assert_eq!(
            event,
            Some(Event::NewStack { tgid: 42, stack_id: 7, tid: Some(43), end, frames, python: None })
        );
    }

    #[test]
    fn a_stack_may_have_a_python_part() {
        let mut bytes = new_stack(2);
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend((PythonEnd::Root as u32).to_ne_bytes());
        bytes.extend(0x7fff_0000_u64.to_ne_bytes());
        bytes.extend((0..STACK_POINTERS as u32).flat_map(|index| (index * 32).to_ne_bytes()));
        for index in 0..MAX_PYTHON_FRAMES as u64 {
            bytes.extend((0x7000 + index).to_ne_bytes());
            bytes.extend(200u32.to_ne_bytes());
            bytes.extend(0xabcd_u32.to_ne_bytes());
        }
        assert_eq!(bytes.len(), size_of::<NewStack>());
        let Some(Event::NewStack { python, .. }) = Event::parse(&bytes) else { panic!("no stack") };
        let frames = vec![PythonFrame { code: 0x7000, place: 200, fingerprint: 0xabcd }];
        let stack = PythonStack { frames, end: PythonEnd::Root, stack_pointers: vec![0, 32] };
        assert_eq!(python, Some(stack));
        assert_eq!(Event::parse(&bytes[..std::mem::offset_of!(NewStack, python) + 12]), None);
    }

    #[test]
    fn records_that_are_cut_or_unknown_are_refused() {
        assert_eq!(Event::parse(&new_stack(2)[..25]), None);
        assert_eq!(Event::parse(&[0xff; 64]), None);
        assert_eq!(Event::parse(&[]), None);
    }
}

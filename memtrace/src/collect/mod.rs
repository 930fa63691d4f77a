//! Taking in what the kernel program sends: stacks that were seen for the first time, and news of the
//! process's code.

mod captured;
mod event;
mod stacks;

pub use captured::CapturedWalk;
pub use event::{BlockChange, Event, ImageChange, PythonStack};
pub use stacks::{Announced, RecordedStack, Stacks, Thread};

//! Waiting for a descriptor to become readable.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// A type that owns one descriptor and gives that very one from `as_raw_fd` for as long as it lives.
pub(crate) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for OwnedFd {}
impl OwnsDescriptor for RingBuf<MapData> {}
impl<T> OwnsDescriptor for EbpfLogger<T> {}

/// Registers a descriptor with the runtime that this is called in.
pub(crate) fn readable<T: OwnsDescriptor>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the type owns the descriptor for as long as it lives, see `OwnsDescriptor`.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(Into::into)
}

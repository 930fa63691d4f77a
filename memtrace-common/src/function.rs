//! What a probed function does with its arguments, packed into the probe's cookie.

/// The shape of an allocator function: where its size is, and what its result means.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    /// `void *malloc(size_t size)`; also `operator new`, `valloc`, and `pvalloc`, which rounds its size up to
    /// whole pages, but whose caller asked for what it asked for.
    Malloc = 1,
    /// `void *calloc(size_t count, size_t size)`.
    Calloc = 2,
    /// `void *realloc(void *old, size_t size)`.
    Realloc = 3,
    /// `void *reallocarray(void *old, size_t count, size_t size)`.
    ReallocArray = 4,
    /// `void *aligned_alloc(size_t alignment, size_t size)`; also `memalign`.
    AlignedAlloc = 5,
    /// `int posix_memalign(void **result, size_t alignment, size_t size)`.
    PosixMemalign = 6,
    /// `void free(void *block)`; also `operator delete`.
    Free = 7,
}

impl FunctionKind {
    /// The kind with this number.
    #[inline(always)]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Malloc,
            2 => Self::Calloc,
            3 => Self::Realloc,
            4 => Self::ReallocArray,
            5 => Self::AlignedAlloc,
            6 => Self::PosixMemalign,
            7 => Self::Free,
            _ => return None,
        })
    }
}

/// What the kernel program has to know of the probe that fired. It travels in the probe's cookie
/// (`bpf_get_attach_cookie`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The shape of the function.
    pub kind: FunctionKind,
    /// Whether this function may hand the whole call on to another allocation function by a jump, which
    /// leaves no return address behind: glibc's `memalign` family jumps to `malloc` for small alignments
    /// (malloc/malloc.c, `_mid_memalign`), `reallocarray` to `realloc`. `realloc` does so only for a null
    /// pointer; the kernel program knows that by itself.
    pub may_jump: bool,
    /// Whether the kernel single-steps the probed instruction, which makes a hit many times dearer.
    pub stepped: bool,
}

impl Probe {
    /// The cookie that stands for this probe.
    pub fn cookie(self) -> u64 {
        u64::from(self.kind as u8) | u64::from(self.may_jump) << 8 | u64::from(self.stepped) << 9
    }

    /// The probe behind a cookie.
    #[inline(always)]
    pub fn from_cookie(cookie: u64) -> Option<Self> {
        let kind = FunctionKind::from_number(cookie as u8)?;
        Some(Self { kind, may_jump: cookie & 1 << 8 != 0, stepped: cookie & 1 << 9 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_lead_back_to_their_probe() {
        for number in 1..=7 {
            let kind = FunctionKind::from_number(number).expect("numbers 1 to 7 are kinds");
            for (may_jump, stepped) in [(false, false), (true, false), (false, true), (true, true)] {
                let probe = Probe { kind, may_jump, stepped };
                assert_eq!(Probe::from_cookie(probe.cookie()), Some(probe));
            }
        }
        assert_eq!(Probe::from_cookie(0), None);
        assert_eq!(Probe::from_cookie(8), None);
    }
}

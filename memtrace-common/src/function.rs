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
    /// An allocation function whose arguments are where [`Arguments`] says.
    Other = 8,
    /// A free function whose block is where [`Arguments::block`] says.
    OtherFree = 9,
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
            8 => Self::Other,
            9 => Self::OtherFree,
            _ => return None,
        })
    }

    /// Whether it frees a block and allocates none.
    pub fn frees(self) -> bool {
        matches!(self, Self::Free | Self::OtherFree)
    }
}

/// The number of an argument, from 0; the System V ABI for x86-64 (3.2.3) passes six of them in registers.
pub const MAX_ARGUMENTS: u8 = 6;

/// Where a function of an uncommon shape has what matters: numbers of arguments, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arguments {
    /// The size in bytes, or that of one element.
    pub size: u8,
    /// The number of elements, if the size is that of one.
    pub count: Option<u8>,
    /// The block to be freed, or to be resized.
    pub block: Option<u8>,
    /// The pointer through which the new block is stored, if it is not the function's result. The result is
    /// 0 then where the call has succeeded.
    pub result: Option<u8>,
}

/// What stands in a cookie for an argument that there is not.
const NO_ARGUMENT: u64 = 7;

impl Arguments {
    fn bits(self) -> u64 {
        let number = |argument: Option<u8>| argument.map_or(NO_ARGUMENT, |number| u64::from(number) & 7);
        number(Some(self.size)) | number(self.count) << 3 | number(self.block) << 6 | number(self.result) << 9
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        let number = |shift: u64| Some((bits >> shift) as u8 & 7).filter(|number| *number < MAX_ARGUMENTS);
        Self { size: bits as u8 & 7, count: number(3), block: number(6), result: number(9) }
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
    /// Whether the function's return is seen by probes on its `ret` instructions, because it may throw: a
    /// return probe would break the exception.
    pub at_ret: bool,
    /// For the kinds [`Other`](FunctionKind::Other) and [`OtherFree`](FunctionKind::OtherFree).
    pub arguments: Arguments,
    /// The function's number, below [`MAX_FUNCTIONS`]: its calls are counted under it, and its stacks carry it.
    pub function: u16,
    /// The number of the [`UsdtPlaces`](crate::UsdtPlaces) of a statically defined probe, which has its
    /// arguments there instead of where a function has them; 0 for functions.
    pub places: u16,
}

/// How many functions can have numbers of their own, in all processes that are recorded together.
pub const MAX_FUNCTIONS: u16 = 4096;

/// The number of allocation functions for which there is none left.
pub const OTHER_ALLOCATIONS: u16 = 0;

/// The number of free functions for which there is none left.
pub const OTHER_FREES: u16 = 1;

impl Probe {
    /// One of a function of this kind, without anything special.
    pub fn new(kind: FunctionKind) -> Self {
        let function = if kind.frees() { OTHER_FREES } else { OTHER_ALLOCATIONS };
        let arguments = Arguments::default();
        Self { kind, may_jump: false, stepped: false, at_ret: false, arguments, function, places: 0 }
    }

    /// The cookie that stands for this probe.
    pub fn cookie(self) -> u64 {
        u64::from(self.kind as u8)
            | u64::from(self.may_jump) << 8
            | u64::from(self.stepped) << 9
            | u64::from(self.at_ret) << 10
            | self.arguments.bits() << 16
            | u64::from(self.function) << 32
            | u64::from(self.places) << 48
    }

    /// The probe behind a cookie.
    #[inline(always)]
    pub fn from_cookie(cookie: u64) -> Option<Self> {
        let kind = FunctionKind::from_number(cookie as u8)?;
        Some(Self {
            kind,
            may_jump: cookie & 1 << 8 != 0,
            stepped: cookie & 1 << 9 != 0,
            at_ret: cookie & 1 << 10 != 0,
            arguments: Arguments::from_bits(cookie >> 16),
            function: (cookie >> 32) as u16,
            places: (cookie >> 48) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_USDT_PLACES;

    #[test]
    fn cookies_lead_back_to_their_probe() {
        let shapes = [
            Arguments::default(),
            Arguments { size: 1, count: Some(2), block: Some(0), result: None },
            Arguments { size: 5, count: None, block: None, result: Some(3) },
        ];
        for number in 1..=9 {
            let kind = FunctionKind::from_number(number).expect("numbers 1 to 9 are kinds");
            for flags in 0..8 {
                for arguments in shapes {
                    let [may_jump, stepped, at_ret] = [1, 2, 4].map(|flag| flags & flag != 0);
                    let function = MAX_FUNCTIONS - 1;
                    for places in [0, 1, MAX_USDT_PLACES - 1] {
                        let probe = Probe { kind, may_jump, stepped, at_ret, arguments, function, places };
                        assert_eq!(Probe::from_cookie(probe.cookie()), Some(probe));
                    }
                }
            }
        }
        assert_eq!(Probe::from_cookie(0), None);
        assert_eq!(Probe::from_cookie(10), None);
    }
}

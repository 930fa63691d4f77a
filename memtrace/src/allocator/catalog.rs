//! The table of known allocator functions. Adding an allocator is adding rows, and a test.
//!
//! A row applies wherever an ELF exports a function of that name: `malloc` has the same shape in glibc,
//! musl, jemalloc, tcmalloc and mimalloc, and which of them a process uses is a question of where the
//! symbol is found, not of this table.

use memtrace_common::{FunctionKind, Probe};

use super::site::{Handling, Site};

/// One known function.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The symbol's name, mangled where it is a C++ one.
    pub symbol: &'static str,
    /// What it does with its arguments.
    pub kind: FunctionKind,
    /// See [`Probe::may_jump`].
    pub may_jump: bool,
    /// Whether it is a C++ `operator new`, which may be a wrapper of another allocation function.
    pub operator_new: bool,
    /// Whether it reports failure by an exception. Such a function never gets a return probe, see
    /// [`Discovery`](super::Discovery).
    pub throws: bool,
}

impl Row {
    /// What the kernel program is told of it when its probe sits at this site.
    pub fn probe(&self, site: &Site) -> Probe {
        Probe { kind: self.kind, may_jump: self.may_jump, stepped: site.handling == Handling::SingleStepped }
    }
}

const fn row(symbol: &'static str, kind: FunctionKind) -> Row {
    Row { symbol, kind, may_jump: false, operator_new: false, throws: false }
}

const fn jumps(symbol: &'static str, kind: FunctionKind) -> Row {
    Row { symbol, kind, may_jump: true, operator_new: false, throws: false }
}

const fn operator_new(symbol: &'static str, throws: bool) -> Row {
    Row { symbol, kind: FunctionKind::Malloc, may_jump: false, operator_new: true, throws }
}

/// Every known function.
pub const ROWS: &[Row] = &[
    // The C library's interface (C17 7.22.3, POSIX, and glibc's manual, "Allocating Storage").
    row("malloc", FunctionKind::Malloc),
    row("calloc", FunctionKind::Calloc),
    row("realloc", FunctionKind::Realloc),
    jumps("reallocarray", FunctionKind::ReallocArray),
    row("free", FunctionKind::Free),
    row("cfree", FunctionKind::Free),
    row("free_sized", FunctionKind::Free),
    row("free_aligned_sized", FunctionKind::Free),
    jumps("posix_memalign", FunctionKind::PosixMemalign),
    jumps("aligned_alloc", FunctionKind::AlignedAlloc),
    jumps("memalign", FunctionKind::AlignedAlloc),
    jumps("valloc", FunctionKind::Malloc),
    jumps("pvalloc", FunctionKind::Malloc),
    // C++ operator new (Itanium C++ ABI mangling): plain, array; nothrow; aligned; aligned nothrow.
    operator_new("_Znwm", true),
    operator_new("_Znam", true),
    operator_new("_ZnwmRKSt9nothrow_t", false),
    operator_new("_ZnamRKSt9nothrow_t", false),
    operator_new("_ZnwmSt11align_val_t", true),
    operator_new("_ZnamSt11align_val_t", true),
    operator_new("_ZnwmSt11align_val_tRKSt9nothrow_t", false),
    operator_new("_ZnamSt11align_val_tRKSt9nothrow_t", false),
    // C++ operator delete: plain, array; sized; nothrow; aligned, alone and with each of these.
    row("_ZdlPv", FunctionKind::Free),
    row("_ZdaPv", FunctionKind::Free),
    row("_ZdlPvm", FunctionKind::Free),
    row("_ZdaPvm", FunctionKind::Free),
    row("_ZdlPvRKSt9nothrow_t", FunctionKind::Free),
    row("_ZdaPvRKSt9nothrow_t", FunctionKind::Free),
    row("_ZdlPvSt11align_val_t", FunctionKind::Free),
    row("_ZdaPvSt11align_val_t", FunctionKind::Free),
    row("_ZdlPvmSt11align_val_t", FunctionKind::Free),
    row("_ZdaPvmSt11align_val_t", FunctionKind::Free),
    row("_ZdlPvSt11align_val_tRKSt9nothrow_t", FunctionKind::Free),
    row("_ZdaPvSt11align_val_tRKSt9nothrow_t", FunctionKind::Free),
];

/// The row of a symbol, if it is a known function.
pub fn find(symbol: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.symbol == symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_stands_once() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.symbol != row.symbol), "{}", row.symbol);
        }
    }
}

//! memtrace from outside: its binary on the real kernel, against real programs.
//!
//! One binary, a module per topic. The tests need root and some Debian packages; `cargo xtask test` sees to both.
//!
//! - what is said is true: [`books`] and [`ground_truth`] (exact), [`sampling`] and [`estimates`] (estimates),
//!   [`regressions`] and [`bookkeeping`] (mistakes of other tools), [`faults`]
//! - stacks are whole: [`unwinding`]
//! - what is written can be read: [`go_pprof`], [`formats`], [`files`], [`events`], [`labels`]
//! - functions have the names that they have: [`symbols`], [`containers`]
//! - what runs in an interpreter has its names: [`python`]
//! - the right process is found: [`selection`]
//! - all processes that are meant are found, and each has its own books: [`several`]
//! - the target comes first: [`serving`], [`stopping`], [`pausing`]
//! - what is said to the user: [`summary`], [`verbose`], [`wrong_input`], [`doctor`]
//! - the tests themselves: [`harness`]

mod allocators;
mod bookkeeping;
mod books;
mod containers;
mod doctor;
mod estimates;
mod events;
mod faults;
mod files;
mod formats;
mod go_pprof;
mod ground_truth;
mod harness;
mod labels;
mod pausing;
mod python;
mod regressions;
mod sampling;
mod selection;
mod serving;
mod several;
mod stopping;
mod summary;
mod symbols;
mod unwinding;
mod usdt;
mod verbose;
mod wrong_input;

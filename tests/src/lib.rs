//! What the tests share: the tools they need, fixtures, guarded processes, and readers of what
//! memtrace leaves behind.
//!
//! The tests drive the `memtrace` binary as a user does, and judge it from outside: by its profiles,
//! its words and its exit status, by what the target goes on doing, and by what is left in the kernel
//! and in the target's memory. Nothing here uses memtrace's own code, so a mistake in it cannot hide
//! itself in the test.
//!
//! Everything panics with a sentence when it cannot do its work: a test never passes by not running.
//!
//! | module | what it gives |
//! |---|---|
//! | [`tools`] | where `memtrace`, `go` and the other programs are |
//! | [`fixture`] | the C and C++ programs under `fixtures/`, compiled once |
//! | [`process`] | a child process that is watched, timed out, and killed when dropped |
//! | [`container`] | containers, run by runc |
//! | [`debuginfod`] | a server of debug files |
//! | [`family`] | processes that create others, of which each knows its truth |
//! | [`target`] | processes to trace: fixtures that serve, redis, python3 |
//! | [`python`] | Python interpreters, and the script that they run |
//! | [`record`] | `memtrace record`: started, tracing, stopped, and what it left |
//! | [`servers`] | PostgreSQL and nginx |
//! | [`stacks`] | stacks with values, from whichever format they were read |
//! | [`pprof`], [`json`] | readers of those two formats |
//! | [`gopprof`] | `go tool pprof` as the judge |
//! | [`residue`] | probes that are still in the target or in the kernel |

pub mod container;
pub mod debuginfod;
pub mod family;
pub mod fixture;
pub mod gopprof;
pub mod json;
pub mod pprof;
pub mod process;
pub mod python;
pub mod record;
pub mod residue;
pub mod servers;
pub mod stacks;
pub mod target;
pub mod tools;

//! What is known of the walks of stacks: how they ended, and what they were done with.

use memtrace_common::Counter;

use crate::{kernel::Counters, profile::Statistic, unwind};

/// How many walks ended in which way, and how large the unwind tables are.
pub(super) fn statistics(counters: &Counters, tables: &unwind::Stats) -> Vec<Statistic> {
    let walks = |name, counter| Statistic::count(name, counters.get(counter));
    vec![
        walks("walks_complete", Counter::WalksComplete),
        walks("walks_truncated", Counter::WalksTruncated),
        walks("walks_no_mapping", Counter::WalksNoMapping),
        walks("walks_no_table", Counter::WalksNoTable),
        walks("walks_bad_read", Counter::WalksBadRead),
        walks("walks_unsupported_rule", Counter::WalksUnsupportedRule),
        walks("walks_too_deep", Counter::WalksTooDeep),
        walks("frames_walked", Counter::FramesWalked),
        Statistic::count("unwind_tables", tables.tables),
        Statistic::count("unwind_rows", tables.rows),
        Statistic::count("unwind_tables_compiled", tables.compiled),
        Statistic::count("unwind_tables_from_cache", tables.cache_hits),
        Statistic::bytes("unwind_tables_size", tables.bytes),
        Statistic::seconds("unwind_tables_time", tables.time),
    ]
}

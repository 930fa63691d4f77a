//! What is known of the walks of stacks: how they ended, and what they were done with.

use memtrace_common::Counter;

use crate::{kernel::Counters, profile::Statistic, unwind};

/// How many walks ended in which way, and how large the unwind tables are.
pub(super) fn statistics(counters: &Counters, tables: &unwind::Stats) -> Vec<Statistic> {
    let count = |name, value: u64| Statistic { name, unit: "count", value: value as f64 };
    let walks = |name, counter| count(name, counters.get(counter));
    vec![
        walks("walks_complete", Counter::WalksComplete),
        walks("walks_truncated", Counter::WalksTruncated),
        walks("walks_no_mapping", Counter::WalksNoMapping),
        walks("walks_no_table", Counter::WalksNoTable),
        walks("walks_bad_read", Counter::WalksBadRead),
        walks("walks_unsupported_rule", Counter::WalksUnsupportedRule),
        walks("walks_too_deep", Counter::WalksTooDeep),
        walks("frames_walked", Counter::FramesWalked),
        count("unwind_tables", tables.tables),
        count("unwind_rows", tables.rows),
        count("unwind_tables_compiled", tables.compiled),
        count("unwind_tables_from_cache", tables.cache_hits),
        Statistic { name: "unwind_tables_size", unit: "bytes", value: tables.bytes as f64 },
        Statistic { name: "unwind_tables_time", unit: "seconds", value: tables.time.as_secs_f64() },
    ]
}

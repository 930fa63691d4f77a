//! The entry of a free function.

use aya_ebpf::programs::ProbeContext;
use memtrace_common::{Block, Counter, FunctionKind, Probe};

use crate::{
    arch, books, control,
    counters::{count, count_call},
    task,
};

/// Handles the entry of a free function. When free functions call each other, the first one finds the
/// block and the others nothing.
#[inline(always)]
pub(crate) fn entry(ctx: &ProbeContext, probe: Probe) {
    if !control::running() {
        return;
    }
    count_call(probe.function);
    if probe.stepped {
        count(Counter::SteppedHits);
    }
    let address = match (probe.kind, probe.arguments.block) {
        (FunctionKind::OtherFree, Some(number)) => arch::argument(ctx, number),
        _ => ctx.arg(0).unwrap_or_default(),
    };
    block(address);
}

/// Takes a block off the books that is being freed, if it is on them.
#[inline(always)]
pub(crate) fn block(address: u64) {
    if address == 0 || !books::may_hold(address) {
        return;
    }
    let mut block = Block::default();
    let pid_tgid = task::pid_tgid();
    books::take_out(pid_tgid, address, &mut block);
    if block.present != 0 {
        books::freed(pid_tgid, address, &block);
        count(Counter::FreesMatched);
    }
}

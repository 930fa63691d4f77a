//! Tables in the kernel's maps, read back as the kernel program reads them. Making maps takes root.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use memtrace_common::unwind::{
    BLOCK_SHIFT, BlockRows, CfaRule, Mapping, NO_TABLE, PAGE_RULES, PAGE_SHIFT, PAGE_WORDS, PackedRule,
    RegisterRule, Row,
};

use super::super::cache::Cache;
use super::super::{DEFAULT_LIMIT, Unwinder};
use crate::kernel::UnwindMaps;
use crate::symbolize::{AddressSpace, Modules};

const PLACES: u32 = 1000;

fn unwinder(limit: u64, cache: Option<Cache>) -> Unwinder {
    Unwinder::new(UnwindMaps::create(64, PLACES).unwrap(), limit, cache)
}

fn own(modules: &Arc<Modules>) -> AddressSpace {
    AddressSpace::open(std::process::id(), modules).unwrap()
}

/// A function of libc.
fn qsort() -> u64 {
    libc::qsort as *const () as u64
}

/// A process that maps little but libc. It is ended when it is dropped.
struct Waiting(Child);

impl Waiting {
    fn start() -> Self {
        let mut child =
            Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // What it has read it has written, so it has loaded its libraries.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn mappings(unwinder: &Unwinder, pid: u32) -> Vec<Mapping> {
    let Some(of) = unwinder.maps().mappings_of(pid) else { return Vec::new() };
    (of.first..of.first + of.len).map(|place| unwinder.maps().mapping(place).unwrap()).collect()
}

/// What the kernel program finds.
fn rule(unwinder: &Unwinder, pid: u32, address: u64) -> Option<PackedRule> {
    let mappings = mappings(unwinder, pid);
    let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address))?;
    if mapping.table == NO_TABLE {
        return None;
    }
    let page = |page| unwinder.maps().page(mapping.table, page);
    let offset = address.wrapping_sub(mapping.bias);
    let block = offset >> BLOCK_SHIFT;
    let rows = BlockRows::from_word(page((block >> PAGE_SHIFT) as u32)?[block as usize % PAGE_WORDS]);
    let words = &page(rows.page)?[rows.first as usize..=(rows.first + rows.more) as usize];
    let row = words
        .iter()
        .rev()
        .map(|word| Row::from_word(*word))
        .find(|row| row.offset <= offset as u32 & 0xff)?;
    let rules = page(mapping.rules + row.rule / PAGE_RULES as u32)?;
    let at = row.rule as usize % PAGE_RULES * 2;
    Some(PackedRule(u64::from(rules[at]) | u64::from(rules[at + 1]) << 32))
}

/// At the first instruction of a function the return address is all that is on the stack.
fn assert_is_entry(rule: Option<PackedRule>) {
    let rule = rule.unwrap();
    assert_eq!((rule.cfa(), rule.cfa_offset()), (CfaRule::StackPointer as u64, 8));
    assert_eq!(rule.frame_pointer(), RegisterRule::Same as u64);
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn rules_are_found_where_the_code_is() {
    let mut unwinder = unwinder(DEFAULT_LIMIT, None);
    let space = own(&Modules::new());
    let pid = std::process::id();
    unwinder.update(pid, &space).unwrap();
    for function in [rules_are_found_where_the_code_is as *const () as u64, qsort()] {
        assert_is_entry(rule(&unwinder, pid, function));
    }
    let vdso = space.regions().find(|region| region.module().path().as_os_str() == "[vdso]").unwrap();
    // SAFETY: getauxval only reads.
    let entry = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    assert_eq!(entry, vdso.start());
    let found = (vdso.start()..vdso.end()).step_by(64).filter(|address| {
        rule(&unwinder, pid, *address).is_some_and(|rule| rule.cfa() == CfaRule::StackPointer as u64)
    });
    assert!(found.count() > 2, "the vDSO has a table");
    let stats = unwinder.stats();
    assert!(stats.tables >= 4 && stats.rows > 10_000, "{stats:?}");
    assert_eq!(stats.left_out.total(), 0);
    let sorted = mappings(&unwinder, pid);
    assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let lower_half = space.regions().filter(|region| region.end() < 1 << 63);
    let expected: u64 = lower_half.map(|region| region.end() - region.start()).sum();
    assert_eq!(sorted.iter().map(|mapping| mapping.end - mapping.start).sum::<u64>(), expected);
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn a_file_has_one_table_that_stays_for_later_processes() {
    let mut unwinder = unwinder(DEFAULT_LIMIT, None);
    let modules = Modules::new();
    let processes = [Waiting::start(), Waiting::start()];
    let pids = processes.each_ref().map(|process| process.0.id());
    let spaces = pids.map(|pid| AddressSpace::open(pid, &modules).unwrap());
    unwinder.update(pids[0], &spaces[0]).unwrap();
    let first = unwinder.stats();
    unwinder.update(pids[1], &spaces[1]).unwrap();
    assert_eq!(unwinder.stats(), first);
    let tables = |pid| mappings(&unwinder, pid).iter().map(|mapping| mapping.table).collect::<Vec<_>>();
    let (mut one, mut two) = (tables(pids[0]), tables(pids[1]));
    one.sort_unstable();
    two.sort_unstable();
    assert_eq!(one, two);

    unwinder.forget(pids[0]);
    assert_eq!(unwinder.maps().mappings_of(pids[0]), None);
    assert_eq!(unwinder.stats().tables, first.tables);
    unwinder.forget(pids[1]);
    assert_eq!(unwinder.stats(), first);
    unwinder.update(pids[0], &spaces[0]).unwrap();
    assert_eq!(unwinder.stats(), first);
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn many_tables_that_nobody_uses_are_freed() {
    let process = Waiting::start();
    let pid = process.0.id();
    let space = AddressSpace::open(pid, &Modules::new()).unwrap();
    let mut measured = unwinder(DEFAULT_LIMIT, None);
    measured.update(pid, &space).unwrap();
    let mut small = unwinder(measured.stats().bytes, None);
    small.update(pid, &space).unwrap();
    assert_eq!(small.stats().tables, measured.stats().tables);
    let tables: Vec<_> = mappings(&small, pid).iter().map(|mapping| mapping.table).collect();
    small.forget(pid);
    let stats = small.stats();
    assert_eq!((stats.tables, stats.rows, stats.bytes), (0, 0, 0));
    assert!(tables.iter().all(|table| small.maps().page(*table, 0).is_none()));
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn a_change_goes_to_places_that_nobody_reads() {
    let mut unwinder = unwinder(DEFAULT_LIMIT, None);
    let pid = std::process::id();
    let space = own(&Modules::new());
    unwinder.update(pid, &space).unwrap();
    let before = unwinder.maps().mappings_of(pid).unwrap();
    let content = mappings(&unwinder, pid);
    let runs = PLACES / before.len;
    for round in 1..runs {
        unwinder.update(pid, &space).unwrap();
        let now = unwinder.maps().mappings_of(pid).unwrap();
        // Used again only when all others have been used.
        assert_eq!((now.first, now.len), (round * before.len, before.len));
        assert_eq!(unwinder.maps().mapping(before.first), Some(content[0]));
    }
    assert_eq!(mappings(&unwinder, pid), content);
    // Tables are not made anew.
    assert_eq!(unwinder.stats().compiled, unwinder.stats().tables);
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn what_exceeds_the_limit_is_left_out_and_counted() {
    let mut unwinder = unwinder(100 << 10, None);
    let pid = std::process::id();
    unwinder.update(pid, &own(&Modules::new())).unwrap();
    let stats = unwinder.stats();
    assert!(stats.bytes <= 100 << 10);
    assert!(stats.left_out.no_room >= 2, "libc and this program are larger: {stats:?}");
    assert_eq!(rule(&unwinder, pid, qsort()), None);
    let mappings = mappings(&unwinder, pid);
    assert!(mappings.iter().any(|mapping| mapping.table == NO_TABLE));
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn mappings_that_do_not_fit_are_an_error_and_the_earlier_ones_stay() {
    let space = own(&Modules::new());
    let places = space.regions().count() as u32;
    let mut unwinder = Unwinder::new(UnwindMaps::create(64, places + 2).unwrap(), 0, None);
    unwinder.update(1, &space).unwrap();
    let before = mappings(&unwinder, 1);
    unwinder.update(1, &space).unwrap_err();
    assert_eq!(mappings(&unwinder, 1), before);
}

#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn the_second_time_tables_come_from_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = || Some(Cache::at(&directory.path().join("cache"), DEFAULT_LIMIT).unwrap());
    let mut first = unwinder(DEFAULT_LIMIT, cache());
    let pid = std::process::id();
    let space = own(&Modules::new());
    first.update(pid, &space).unwrap();
    let mut second = unwinder(DEFAULT_LIMIT, cache());
    second.update(pid, &space).unwrap();
    let (first_stats, second_stats) = (first.stats(), second.stats());
    assert_eq!(first_stats.cache_hits, 0);
    assert_eq!((second_stats.cache_hits, second_stats.compiled), (first_stats.tables, 0));
    assert_eq!(rule(&first, pid, qsort()), rule(&second, pid, qsort()));
    assert_eq!(first_stats.rows, second_stats.rows);
}

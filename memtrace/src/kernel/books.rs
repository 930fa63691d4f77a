//! Opening, closing and reading the books.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    sys::SyscallError,
};
use memtrace_common::{Block, InFlight, InFlightKey, LiveKey, StackTotals};

use super::{Counters, Kernel, LoadError, multi, sys};

/// What the books say of a process.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Each stack's totals, by stack id.
    pub totals: Vec<(u64, StackTotals)>,
    /// The live blocks.
    pub live: Vec<Block>,
    /// Calls that are between their entry and their return, or never returned.
    pub in_flight: Vec<InFlight>,
}

impl Kernel {
    /// Opens the books: from here on allocations and frees are counted.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn open_books(&mut self) -> Result<(), LoadError> {
        self.set_running(1)
    }

    /// Closes the books: nothing that happens from here on is counted. Safe to repeat.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn close_books(&mut self) -> Result<(), LoadError> {
        self.set_running(0)
    }

    fn set_running(&mut self, value: u64) -> Result<(), LoadError> {
        let mut running: Array<&mut MapData, u64> = self.map_mut("RUNNING")?;
        Ok(running.set(0, value, 0)?)
    }

    /// Takes what process `pid` has allocated before `before_ns` (`CLOCK_MONOTONIC`) off the books, as freed:
    /// it has executed another program at that time. Probes may run meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write.
    pub fn forget_live(&mut self, pid: u32, before_ns: u64) -> Result<(), LoadError> {
        let mut forgotten = std::mem::take(&mut self.forgotten);
        let of_process = |key: &LiveKey, block: &Block| key.tgid == pid && block.time_ns < before_ns;
        let result = self
            .take_all("LIVE", of_process)
            .map(|blocks| blocks.iter().for_each(|(_, block)| forgotten.block(block)))
            .and_then(|()| {
                let of_process = |key: &InFlightKey, call: &InFlight| {
                    key.pid_tgid >> 32 == u64::from(pid) && call.time_ns < before_ns
                };
                self.take_all("IN_FLIGHT", of_process)
            })
            .map(|calls| calls.iter().for_each(|(_, call)| forgotten.call(call)));
        self.forgotten = forgotten;
        result
    }

    /// Removes those entries of a hash map that are `wanted` while the kernel program goes on using it, and returns
    /// them. An entry that the kernel program removes first is not among them.
    fn take_all<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        wanted: impl Fn(&K, &V) -> bool,
    ) -> Result<Vec<(K, V)>, LoadError> {
        let fd = self.ebpf.map(name).and_then(multi::descriptor).ok_or(LoadError::Missing(name))?;
        let refused = |call| move |io_error| MapError::SyscallError(SyscallError { call, io_error });
        let all = sys::entries::<K, V>(fd).map_err(refused("bpf_map_lookup_batch"))?;
        let mut taken = Vec::new();
        for (key, _) in all.into_iter().filter(|(key, value)| wanted(key, value)) {
            // Between these two looks the kernel program may remove the entry. That it also makes another one under
            // the same key is all but impossible: the key is an address, or a thread's stack pointer, of memory that
            // the exec, or the end of the process, has made an end of.
            let value = sys::take::<K, V>(fd, &key).map_err(refused("bpf_map_lookup_and_delete_elem"))?;
            taken.extend(value.map(|value| (key, value)));
        }
        Ok(taken)
    }

    /// The counters as they are now.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        let map: PerCpuArray<&MapData, u64> = self.map("COUNTERS")?;
        let calls = self.functions.sums(&self.calls()?);
        Ok(Counters::read(&map, calls)?.since(&self.baseline))
    }

    /// How many sampled calls had not returned when their process executed another program.
    pub fn calls_cut_off(&self) -> u64 {
        self.forgotten.sampled_calls()
    }

    /// What the books say of each process, by its id. What could not be entered under any stack is under 0.
    ///
    /// While the books are open, one stack's numbers may be an allocation apart, and a block that is freed meanwhile
    /// may be missing among the live ones.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn books(&self) -> Result<BTreeMap<u32, Books>, LoadError> {
        let mut books: BTreeMap<u32, Books> = BTreeMap::new();
        let map: HashMap<&MapData, u64, StackTotals> = self.map("STACKS")?;
        for entry in &map {
            let (stack_id, mut totals) = entry?;
            self.forgotten.add_to(stack_id, &mut totals);
            books.entry(totals.tgid).or_default().totals.push((stack_id, totals));
        }
        let map: HashMap<&MapData, LiveKey, Block> = self.map("LIVE")?;
        // A block that is freed between the two system calls that read it is no longer live.
        for (key, block) in map.iter().filter_map(Result::ok) {
            books.entry(key.tgid).or_default().live.push(block);
        }
        let map: HashMap<&MapData, InFlightKey, InFlight> = self.map("IN_FLIGHT")?;
        for (key, call) in map.iter().filter_map(Result::ok) {
            books.entry((key.pid_tgid >> 32) as u32).or_default().in_flight.push(call);
        }
        Ok(books)
    }

    /// Takes what the books say of processes that have ended off them, so that there is room for others, and so that
    /// a later process of the same number begins with empty ones.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write.
    pub fn take_books(&mut self, pids: &BTreeSet<u32>) -> Result<BTreeMap<u32, Books>, LoadError> {
        let mut books: BTreeMap<u32, Books> = BTreeMap::new();
        let stacks = self.take_all("STACKS", |_: &u64, totals: &StackTotals| pids.contains(&totals.tgid))?;
        for (stack_id, mut totals) in stacks {
            self.forgotten.take_to(stack_id, &mut totals);
            books.entry(totals.tgid).or_default().totals.push((stack_id, totals));
        }
        for (key, block) in self.take_all("LIVE", |key: &LiveKey, _: &Block| pids.contains(&key.tgid))? {
            books.entry(key.tgid).or_default().live.push(block);
        }
        let tgid = |key: &InFlightKey| (key.pid_tgid >> 32) as u32;
        for (key, call) in self.take_all("IN_FLIGHT", |key, _: &InFlight| pids.contains(&tgid(key)))? {
            books.entry(tgid(&key)).or_default().in_flight.push(call);
        }
        Ok(books)
    }
}

//! Opening, closing and reading the books.

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    sys::SyscallError,
};
use memtrace_common::{Block, InFlight, InFlightKey, LiveKey, StackTotals};

use super::{Counters, Kernel, LoadError, multi, sys};

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
        let result = self
            .take_all("LIVE", |key: &LiveKey| key.tgid == pid, |block: &Block| block.time_ns < before_ns)
            .map(|blocks| blocks.iter().for_each(|block| forgotten.block(block)))
            .and_then(|()| {
                let of_process = |key: &InFlightKey| key.pid_tgid >> 32 == u64::from(pid);
                self.take_all("IN_FLIGHT", of_process, |call: &InFlight| call.time_ns < before_ns)
            })
            .map(|calls| calls.iter().for_each(|call| forgotten.call(call)));
        self.forgotten = forgotten;
        result
    }

    /// Removes those entries of a hash map whose key and value are `wanted` while the kernel program goes on
    /// using it, and returns their values. An entry that the kernel program removes first is not among them.
    fn take_all<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        wanted_key: impl Fn(&K) -> bool,
        wanted: impl Fn(&V) -> bool,
    ) -> Result<Vec<V>, LoadError> {
        let fd = self.ebpf.map(name).and_then(multi::descriptor).ok_or(LoadError::Missing(name))?;
        let refused = |call| move |io_error| MapError::SyscallError(SyscallError { call, io_error });
        let all = sys::entries::<K, V>(fd).map_err(refused("bpf_map_lookup_batch"))?;
        let mut taken = Vec::new();
        for (key, _) in all.iter().filter(|(key, value)| wanted_key(key) && wanted(value)) {
            // Between these two looks the kernel program may remove the entry. That it also makes another one under
            // the same key is all but impossible: the key is an address, or a thread's stack pointer, of memory that
            // the exec has made an end of.
            let value = sys::take::<K, V>(fd, key).map_err(refused("bpf_map_lookup_and_delete_elem"))?;
            taken.extend(value);
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

    /// Every live block.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn live(&self) -> Result<Vec<(LiveKey, Block)>, LoadError> {
        let map: HashMap<&MapData, LiveKey, Block> = self.map("LIVE")?;
        // A block that is freed between the two system calls that read it is no longer live.
        Ok(map.iter().filter_map(Result::ok).collect())
    }

    /// How many sampled calls are between their entry and their return, or never returned.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn in_flight(&self) -> Result<Vec<InFlight>, LoadError> {
        let map: HashMap<&MapData, InFlightKey, InFlight> = self.map("IN_FLIGHT")?;
        Ok(map.iter().filter_map(Result::ok).map(|(_, call)| call).collect())
    }

    /// How many sampled calls had not returned when their process executed another program.
    pub fn calls_cut_off(&self) -> u64 {
        self.forgotten.sampled_calls()
    }

    /// Every stack's totals as they are now. While the books are open, one stack's numbers may be an
    /// allocation apart.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn totals(&self) -> Result<Vec<(u64, StackTotals)>, LoadError> {
        let map: HashMap<&MapData, u64, StackTotals> = self.map("STACKS")?;
        let mut all = map.iter().collect::<Result<Vec<_>, _>>()?;
        all.iter_mut().for_each(|(stack_id, totals)| self.forgotten.add_to(*stack_id, totals));
        Ok(all)
    }
}

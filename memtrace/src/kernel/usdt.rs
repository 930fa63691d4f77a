//! Telling the kernel program where statically defined probes have their arguments.

use aya::maps::{Array, MapData};
use memtrace_common::{MAX_USDT_PLACES, UsdtPlaces};

use super::{
    Kernel, LoadError,
    sys::{self, PerfProbe, Uprobe},
};

impl Kernel {
    /// The number of these places, for a probe that has its arguments there
    /// ([`Probe::places`](memtrace_common::Probe::places)). When there is none left, 0: the kernel program then counts
    /// each hit as one whose arguments could not be read.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn number_places(&mut self, places: &UsdtPlaces) -> Result<u16, LoadError> {
        let known = self.usdt_places.iter().position(|known| known == places);
        // 0 is for probes that are none.
        let number = known.unwrap_or(self.usdt_places.len()) + 1;
        let Some(number) = u16::try_from(number).ok().filter(|number| *number < MAX_USDT_PLACES) else {
            return Ok(0);
        };
        if known.is_none() {
            let mut map: Array<&mut MapData, UsdtPlaces> = self.map_mut("USDT_PLACES")?;
            map.set(number.into(), *places, 0)?;
            self.usdt_places.push(*places);
        }
        Ok(number)
    }

    /// Sets a probe by a perf event of memtrace's own making, which can have a semaphore raised.
    ///
    /// # Errors
    /// The outer one where the program is not to be had, the inner one where the kernel refuses the probe.
    pub(crate) fn attach_perf(
        &mut self,
        program: &'static str,
        probe: &Uprobe<'_>,
    ) -> Result<std::io::Result<PerfProbe>, LoadError> {
        let loaded = self.uprobe(program)?;
        let fd = loaded.fd().map_err(|source| LoadError::Program { name: program, source })?;
        Ok(sys::uprobe_pmu().and_then(|pmu| sys::link_perf(fd, pmu, probe)))
    }
}

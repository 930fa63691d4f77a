//! The tables that are in the kernel, each file's once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::cache::Cache;
use super::image::Image;
use super::load::{self, LeftOut, Loaded, Wanted};
use super::stats::Stats;
use crate::kernel::UnwindMaps;
use crate::symbolize::{Module, ModuleId};

/// A table in the kernel.
#[derive(Debug)]
pub(super) struct Table {
    /// Its place in the map of tables.
    pub(super) place: u32,
    /// The address in the file's counting where its first block begins.
    pub(super) base: u64,
    /// How many bytes of code from there on may be looked up in it.
    pub(super) span: u64,
    /// Its first page of rules.
    pub(super) rule_page: u32,
    bytes: u64,
    rows: u64,
    /// How many processes map the file.
    users: u32,
    /// As long as it is held, the file and copies of it are known by the same id.
    _module: Arc<Module>,
}

/// All tables, and the modules that have none: by the id of their content, which copies of a file share.
#[derive(Debug)]
pub(super) struct Tables {
    tables: HashMap<ModuleId, Table>,
    left_out: HashMap<ModuleId, (Arc<Module>, LeftOut)>,
    /// Free places; the one that was freed last is used last.
    free: VecDeque<u32>,
    /// How many bytes all may take.
    limit: u64,
    cache: Option<Cache>,
    pub(super) stats: Stats,
}

impl Tables {
    /// No tables yet; there can be `places`, which take at most `limit` bytes together.
    pub(super) fn new(places: u32, limit: u64, cache: Option<Cache>) -> Self {
        Self {
            tables: HashMap::new(),
            left_out: HashMap::new(),
            free: (0..places).collect(),
            limit,
            cache,
            stats: Stats::default(),
        }
    }

    /// The table of a module.
    pub(super) fn get(&self, module: ModuleId) -> Option<&Table> {
        self.tables.get(&module)
    }

    /// Whether it is known what table the module has, or that it has none.
    pub(super) fn knows(&self, module: ModuleId) -> bool {
        self.tables.contains_key(&module) || self.left_out.contains_key(&module)
    }

    /// Loads the tables of modules that are not known yet. Nobody uses them so far.
    pub(super) fn load(&mut self, wanted: Vec<Wanted>, maps: &mut UnwindMaps) {
        if wanted.is_empty() {
            return;
        }
        let begun = Instant::now();
        let cache = self.cache.take();
        let compiled = self.stats.compiled;
        load::load_all(wanted, cache.as_ref(), |wanted, loaded| self.take_in(&wanted.0, loaded, maps));
        if let Some(cache) = cache.as_ref().filter(|_| self.stats.compiled != compiled)
            && let Err(error) = cache.trim()
        {
            tracing::debug!("failed to look through the cache of unwind tables: {error}");
        }
        self.cache = cache;
        self.stats.time += begun.elapsed();
    }

    fn take_in(&mut self, module: &Arc<Module>, loaded: Loaded, maps: &mut UnwindMaps) {
        let (hit, compiled) = (loaded.cached, loaded.image.is_ok() && !loaded.cached);
        self.stats.cache_hits += u64::from(hit);
        self.stats.compiled += u64::from(compiled);
        if let Err(reason) = loaded.image.and_then(|image| self.put(module, &image, maps)) {
            tracing::debug!("no unwind table for {}: {reason}", module.path().display());
            self.stats.left_out.add(&reason);
            self.left_out.insert(module.content(), (Arc::clone(module), reason));
        }
    }

    fn put(&mut self, module: &Arc<Module>, image: &Image, maps: &mut UnwindMaps) -> Result<(), LeftOut> {
        let bytes = image.bytes();
        if self.stats.bytes + bytes > self.limit || self.free.is_empty() {
            self.free_unused(maps);
        }
        if self.stats.bytes + bytes > self.limit {
            return Err(LeftOut::NoRoom);
        }
        let place = self.free.pop_front().ok_or(LeftOut::NoRoom)?;
        if let Err(error) = maps.put_table(place, &image.pages) {
            tracing::debug!("the kernel refused an unwind table of {bytes} bytes: {error}");
            self.free.push_back(place);
            return Err(LeftOut::Refused);
        }
        self.stats.tables += 1;
        self.stats.bytes += bytes;
        self.stats.rows += image.rows;
        self.stats.functions_malformed += image.counts.malformed;
        self.stats.rows_unsupported += image.counts.unsupported;
        let table = Table {
            place,
            base: image.base,
            span: image.span(),
            rule_page: image.rule_page,
            bytes,
            rows: image.rows,
            users: 0,
            _module: Arc::clone(module),
        };
        self.tables.insert(module.content(), table);
        Ok(())
    }

    /// One more process uses these modules.
    pub(super) fn use_by_one_more(&mut self, modules: &[ModuleId]) {
        for module in modules {
            if let Some(table) = self.tables.get_mut(module) {
                table.users += 1;
            }
        }
    }

    /// One process less uses these modules.
    pub(super) fn use_by_one_less(&mut self, modules: &[ModuleId]) {
        for module in modules {
            if let Some(table) = self.tables.get_mut(module) {
                table.users = table.users.saturating_sub(1);
            }
        }
    }

    /// Takes what no process uses out of the kernel, if it has become much: a program that is executed again and
    /// again has its table there, and the kernel waits for a grace period with each one that goes.
    pub(super) fn trim_unused(&mut self, maps: &mut UnwindMaps) {
        let unused = self.tables.values().filter(|table| table.users == 0);
        if unused.map(|table| table.bytes).sum::<u64>() > self.limit / 4 {
            self.free_unused(maps);
        }
        self.forget_left_out(false);
    }

    /// Takes out of the kernel what no process uses.
    fn free_unused(&mut self, maps: &mut UnwindMaps) {
        let unused: Vec<_> = self.tables.extract_if(|_, table| table.users == 0).collect();
        for (_, table) in &unused {
            if let Err(error) = maps.remove_table(table.place) {
                // The next table that is put there replaces it.
                tracing::debug!("failed to remove an unwind table: {error}");
            }
            self.free.push_back(table.place);
            self.stats.tables -= 1;
            self.stats.bytes -= table.bytes;
            self.stats.rows -= table.rows;
        }
        self.forget_left_out(!unused.is_empty());
    }

    /// Forgets why modules have no table that nobody maps any more, or, if others were `freed`, that may have one now.
    fn forget_left_out(&mut self, freed: bool) {
        // Who else holds a module may map it again; otherwise its id is of no more use.
        self.left_out.retain(|_, (module, reason)| {
            Arc::strong_count(module) > 1 && !(freed && matches!(reason, LeftOut::NoRoom | LeftOut::Refused))
        });
    }
}

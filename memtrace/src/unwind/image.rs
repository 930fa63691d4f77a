//! Rows laid out as the kernel program reads them.

use std::collections::HashMap;

use memtrace_common::unwind::{
    BLOCK_SHIFT, BlockRows, PAGE_RULES, PAGE_SHIFT, PAGE_WORDS, PackedRule, Page, Row,
};

use super::compile::{Counts, Rows};

/// The kernel program looks no further than this many blocks.
const MAX_BLOCKS: u64 = 1 << 24;

/// How many pages the index can tell apart.
pub(super) const MAX_PAGES: usize = 1 << 16;

const BLOCK: u64 = 1 << BLOCK_SHIFT;

/// How many bytes of code one page of the index covers.
pub(super) const INDEX_PAGE_CODE: u64 = BLOCK << PAGE_SHIFT;

/// A file's unwind table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The address in the file's own counting where the table's first block begins.
    pub base: u64,
    /// The index, the rows and the rules.
    pub pages: Vec<Page>,
    /// How many pages of index there are.
    pub index_pages: u32,
    /// The first page of rules.
    pub rule_page: u32,
    /// How many rows the code has, without those that are repeated for each block.
    pub rows: u64,
    /// How many different rules.
    pub rules: u32,
    /// What was found in the file.
    pub counts: Counts,
}

/// Why there is no image of a file's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// From the first row to the last there are more than 4 GiB.
    #[error("its code spans {0} bytes, and the limit is 4 GiB")]
    Code(u64),
    /// The pages do not suffice.
    #[error("its unwind table would be larger than 64 MiB")]
    Rows,
    /// A row cannot say which rule holds.
    #[error("it has {0} different unwind rules, and the limit is 2^24")]
    Rules(usize),
}

impl Image {
    /// Lays rows out.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(rows: &Rows) -> Result<Self, TooLarge> {
        let (Some(first), Some(last)) = (rows.rows.first(), rows.rows.last()) else {
            return Ok(Self::empty(rows.counts));
        };
        let base = first.0 & !(BLOCK - 1);
        let span = last.0 - base;
        // The last row says that there is no rule, as does what is behind the last block.
        let blocks = span / BLOCK + 1;
        if blocks > MAX_BLOCKS {
            return Err(TooLarge::Code(span));
        }
        if rows.rules.len() > Row::MAX_RULES as usize {
            return Err(TooLarge::Rules(rows.rules.len()));
        }
        let index_pages = blocks.div_ceil(PAGE_WORDS as u64) as usize;
        let mut layout =
            Layout { pages: vec![[0; PAGE_WORDS]; index_pages], next: PAGE_WORDS, whole: HashMap::new() };
        let (mut at, mut rule) = (0, 0);
        let mut of_block = Vec::with_capacity(PAGE_WORDS);
        for block in 0..index_pages * PAGE_WORDS {
            let start = base + block as u64 * BLOCK;
            of_block.clear();
            if rows.rows.get(at).is_none_or(|(address, _)| *address != start) {
                of_block.push(Row { offset: 0, rule }.word());
            }
            while let Some(&(address, new)) =
                rows.rows.get(at).filter(|(address, _)| *address < start + BLOCK)
            {
                of_block.push(Row { offset: (address - start) as u32, rule: new }.word());
                (at, rule) = (at + 1, new);
            }
            let place = layout.place(&of_block)?;
            layout.pages[block / PAGE_WORDS][block % PAGE_WORDS] = place.word();
        }
        let rule_page = layout.pages.len() as u32;
        for rules in rows.rules.chunks(PAGE_RULES) {
            let mut page = [0; PAGE_WORDS];
            for (words, rule) in page.chunks_exact_mut(2).zip(rules) {
                (words[0], words[1]) = (*rule as u32, (*rule >> 32) as u32);
            }
            layout.pages.push(page);
        }
        if layout.pages.len() > MAX_PAGES {
            return Err(TooLarge::Rows);
        }
        Ok(Self {
            base,
            pages: layout.pages,
            index_pages: index_pages as u32,
            rule_page,
            rows: rows.rows.len() as u64,
            rules: rows.rules.len() as u32,
            counts: rows.counts,
        })
    }

    fn empty(counts: Counts) -> Self {
        Self { base: 0, pages: Vec::new(), index_pages: 0, rule_page: 0, rows: 0, rules: 0, counts }
    }

    /// How many bytes of code from `base` on the kernel program may look up.
    pub fn span(&self) -> u64 {
        u64::from(self.index_pages) * INDEX_PAGE_CODE
    }

    /// How many bytes the table takes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.pages.as_slice()) as u64
    }

    /// The rule for the code at `offset` from `base`, found as the kernel program finds it; `None` where it
    /// would find no page.
    pub fn lookup(&self, offset: u64) -> Option<PackedRule> {
        let block = offset >> BLOCK_SHIFT;
        if block >= self.span() >> BLOCK_SHIFT {
            return None;
        }
        let index = self.pages.get((block >> PAGE_SHIFT) as usize)?;
        let place = BlockRows::from_word(index[block as usize % PAGE_WORDS]);
        let page = self.pages.get(place.page as usize)?;
        let rows = page.get(place.first as usize..=(place.first + place.more) as usize)?;
        let limit = Row { offset: offset as u32 & 0xff, rule: Row::MAX_RULES - 1 }.word();
        let word = rows[rows.partition_point(|row| *row <= limit).checked_sub(1)?];
        let number = Row::from_word(word).rule as usize;
        let page = self.pages.get(self.rule_page as usize + number / PAGE_RULES)?;
        let half = |place: usize| u64::from(page[number % PAGE_RULES * 2 + place]);
        Some(PackedRule(half(0) | half(1) << 32))
    }
}

/// Pages in the making.
struct Layout {
    pages: Vec<Page>,
    /// The next free word of the last page.
    next: usize,
    /// By rule: where a row stands that says that it holds from the first byte of its block on. A block with
    /// no other row needs none of its own.
    whole: HashMap<u32, BlockRows>,
}

impl Layout {
    /// Finds or makes a place for the rows of a block.
    fn place(&mut self, rows: &[u32]) -> Result<BlockRows, TooLarge> {
        if let [row] = rows
            && let Some(known) = self.whole.get(row)
        {
            return Ok(*known);
        }
        if self.next + rows.len() > PAGE_WORDS {
            if self.pages.len() == MAX_PAGES {
                return Err(TooLarge::Rows);
            }
            self.pages.push([0; PAGE_WORDS]);
            self.next = 0;
        }
        let page = self.pages.len() - 1;
        self.pages[page][self.next..self.next + rows.len()].copy_from_slice(rows);
        let place = BlockRows { page: page as u32, first: self.next as u32, more: rows.len() as u32 - 1 };
        self.next += rows.len();
        self.whole.entry(rows[0]).or_insert(BlockRows { more: 0, ..place });
        Ok(place)
    }
}

//! An image as a file: a header and the pages, in the byte order of the machine.

use bytemuck::{Pod, Zeroable};
use memtrace_common::unwind::Page;

use super::compile::Counts;
use super::image::{Image, MAX_PAGES};

/// To be raised with every change of the tables' form and of what is compiled into them, so that no image of
/// an earlier memtrace is taken for one of this.
const VERSION: u32 = 2;

/// On a machine of the other byte order it reads differently.
const MAGIC: u64 = u64::from_ne_bytes(*b"mtunwind");

/// What stands before the pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct Header {
    magic: u64,
    version: u32,
    /// CRC-32 of the header, with 0 here, and the pages.
    checksum: u32,
    base: u64,
    rows: u64,
    functions: u64,
    malformed: u64,
    outside: u64,
    unsupported: u64,
    rules: u32,
    index_pages: u32,
    rule_page: u32,
    pages: u32,
}

impl Header {
    /// The header of an image.
    pub(super) fn new(image: &Image) -> Self {
        let Counts { functions, malformed, outside, unsupported } = image.counts;
        let mut header = Self {
            magic: MAGIC,
            version: VERSION,
            checksum: 0,
            base: image.base,
            rows: image.rows,
            functions,
            malformed,
            outside,
            unsupported,
            rules: image.rules,
            index_pages: image.index_pages,
            rule_page: image.rule_page,
            pages: image.pages.len() as u32,
        };
        header.checksum = header.checksum_with(&image.pages);
        header
    }

    fn checksum_with(mut self, pages: &[Page]) -> u32 {
        self.checksum = 0;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.bytes());
        hasher.update(bytes(pages));
        hasher.finalize()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::bytes_of_mut(self)
    }

    /// Room for the pages, if the header is this version's and fits the size of its file.
    pub(super) fn pages(&self, file_size: u64) -> Option<Vec<Page>> {
        let size = size_of::<Self>() as u64 + u64::from(self.pages) * size_of::<Page>() as u64;
        let is_good = self.magic == MAGIC
            && self.version == VERSION
            && self.pages as usize <= MAX_PAGES
            && self.index_pages <= self.rule_page
            && self.rule_page <= self.pages
            && size == file_size;
        is_good.then(|| vec![Page::zeroed(); self.pages as usize])
    }

    /// The image, if nothing is damaged.
    pub(super) fn image(self, pages: Vec<Page>) -> Option<Image> {
        if self.checksum_with(&pages) != self.checksum {
            return None;
        }
        let Self { base, rows, functions, malformed, outside, unsupported, .. } = self;
        Some(Image {
            base,
            pages,
            index_pages: self.index_pages,
            rule_page: self.rule_page,
            rows,
            rules: self.rules,
            counts: Counts { functions, malformed, outside, unsupported },
        })
    }
}

/// The pages as bytes.
pub(super) fn bytes(pages: &[Page]) -> &[u8] {
    bytemuck::cast_slice(pages)
}

/// The pages as bytes.
pub(super) fn bytes_mut(pages: &mut [Page]) -> &mut [u8] {
    bytemuck::cast_slice_mut(pages)
}

//! Sections with call frame information, made by hand.

use std::ops::Range;

use gimli::BaseAddresses;
use object::Architecture;

use super::super::arch::Arch;
use super::super::sections::{Cfi, Section};

/// Where the code of all made-up files is.
pub(super) const CODE: Range<u64> = 0x1000..0x10_0000;

pub(super) const DEF_CFA: u8 = 0x0c;
pub(super) const DEF_CFA_EXPRESSION: u8 = 0x0f;
pub(super) const EXPRESSION: u8 = 0x10;
pub(super) const UNDEFINED: u8 = 0x07;
pub(super) const SAME: u8 = 0x08;
pub(super) const VAL_OFFSET: u8 = 0x14;
pub(super) const OFFSET: u8 = 0x80;
pub(super) const ADVANCE: u8 = 0x40;
pub(super) const DEREF: u8 = 0x06;

/// A section in the making: of kind `.eh_frame`, with absolute addresses.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) data: Vec<u8>,
}

impl Builder {
    fn entry(&mut self, id: u32, content: &[u8]) -> usize {
        let at = self.data.len();
        let padded = (4 + content.len()).next_multiple_of(8);
        self.data.extend((padded as u32).to_le_bytes());
        self.data.extend(id.to_le_bytes());
        self.data.extend(content);
        self.data.resize(at + 4 + padded, 0);
        at
    }

    /// Code alignment 1, data alignment -8.
    pub(super) fn cie(&mut self, augmentation: &str, return_address: u8, instructions: &[u8]) -> usize {
        let mut content = vec![1];
        content.extend(augmentation.as_bytes());
        content.extend([0, 1, 0x78, return_address]);
        if augmentation.starts_with('z') {
            content.push(0);
        }
        content.extend(instructions);
        self.entry(0, &content)
    }

    pub(super) fn fde(&mut self, cie: usize, code: Range<u64>, instructions: &[u8]) {
        let augmented = self.data.get(cie + 9) == Some(&b'z');
        let mut content = Vec::new();
        content.extend(code.start.to_le_bytes());
        content.extend((code.end - code.start).to_le_bytes());
        if augmented {
            content.push(0);
        }
        content.extend(instructions);
        self.entry((self.data.len() + 4 - cie) as u32, &content);
    }

    pub(super) fn cfi(self, architecture: Architecture) -> Cfi<'static> {
        let section = Section { address: 0, data: self.data.into(), ends_at_terminator: false };
        Cfi {
            arch: Arch::of(architecture).unwrap(),
            eh_frame: Some(section),
            debug_frame: None,
            entry: None,
            executable: vec![CODE],
            bases: BaseAddresses::default().set_eh_frame(0),
        }
    }
}

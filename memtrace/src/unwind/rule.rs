//! From a row of an unwind table to a rule.

use gimli::{
    Encoding, Reader, Register, RegisterRule as Column, UnwindContextStorage, UnwindSection, UnwindTableRow,
};
use memtrace_common::unwind::{CfaRule, RegisterRule, Rule};

use super::arch::{Arch, ReturnAddress};
use super::expression;

/// What a row is to be understood with.
pub(super) struct Reading<'a, S> {
    pub(super) arch: &'a Arch,
    pub(super) section: &'a S,
    pub(super) encoding: Encoding,
}

const UNSUPPORTED: Rule = Rule {
    cfa: CfaRule::Unsupported,
    cfa_offset: 0,
    frame_pointer: RegisterRule::Same,
    frame_pointer_offset: 0,
    third: RegisterRule::Same,
    third_offset: 0,
};

impl<S> Reading<'_, S> {
    /// The rule of a row, packed. What the kernel program cannot follow is [`CfaRule::Unsupported`].
    pub(super) fn rule<R, T>(&self, row: &UnwindTableRow<R::Offset, T>) -> Rule
    where
        R: Reader,
        S: UnwindSection<R>,
        T: UnwindContextStorage<R::Offset>,
    {
        let arch = self.arch;
        let return_address = row.register(arch.return_address);
        if return_address == Some(Column::Undefined) {
            return Rule { cfa: CfaRule::Root, ..Rule::default() };
        }
        let rule = || {
            let (cfa, cfa_offset, plt) = self.cfa::<R>(row.cfa())?;
            match (arch.return_address_at, return_address) {
                (ReturnAddress::AtCfa(expected), Some(Column::Offset(offset))) if offset == expected => {}
                (ReturnAddress::Third, None | Some(Column::SameValue | Column::Offset(_))) => {}
                _ => return None,
            }
            let (frame_pointer, frame_pointer_offset) = self.register::<R, T>(row, arch.frame_pointer);
            let (third, third_offset) = if cfa == CfaRule::Plt {
                (RegisterRule::Same, plt)
            } else {
                self.register::<R, T>(row, arch.third)
            };
            let frame_pointer_offset = frame_pointer_offset.try_into().ok()?;
            let (cfa_offset, third_offset) = (cfa_offset.try_into().ok()?, third_offset.try_into().ok()?);
            Some(Rule { cfa, cfa_offset, frame_pointer, frame_pointer_offset, third, third_offset })
        };
        rule().filter(|rule| rule.packed().is_some()).unwrap_or(UNSUPPORTED)
    }

    fn cfa<R>(&self, cfa: &gimli::CfaRule<R::Offset>) -> Option<(CfaRule, i64, i64)>
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        match cfa {
            gimli::CfaRule::RegisterAndOffset { register, offset } => {
                let kind = match *register {
                    register if register == self.arch.stack_pointer => CfaRule::StackPointer,
                    register if register == self.arch.frame_pointer => CfaRule::FramePointer,
                    register if register == self.arch.third => CfaRule::Third,
                    _ => return None,
                };
                Some((kind, *offset, 0))
            }
            gimli::CfaRule::Expression(expression) => {
                expression::cfa(self.arch, expression.get(self.section).ok()?, self.encoding)
            }
        }
    }

    /// The rule for one of the registers that callees preserve: where the table is silent, they have.
    fn register<R, T>(&self, row: &UnwindTableRow<R::Offset, T>, register: Register) -> (RegisterRule, i64)
    where
        R: Reader,
        S: UnwindSection<R>,
        T: UnwindContextStorage<R::Offset>,
    {
        let (kind, offset) = match row.register(register) {
            None | Some(Column::SameValue) => return (RegisterRule::Same, 0),
            Some(Column::Offset(offset)) => (RegisterRule::AtCfa, offset),
            Some(Column::Expression(place)) => {
                let place = place.get(self.section).ok();
                match place.and_then(|place| expression::place(place, self.encoding)) {
                    Some((base, offset)) if base == self.arch.frame_pointer => {
                        (RegisterRule::AtFramePointer, offset)
                    }
                    _ => return (RegisterRule::Undefined, 0),
                }
            }
            _ => return (RegisterRule::Undefined, 0),
        };
        // A rule holds 16 bits, in units of 8.
        let fits = offset & 7 == 0 && (-0x4_0000..0x4_0000).contains(&offset);
        if fits { (kind, offset) } else { (RegisterRule::Undefined, 0) }
    }
}

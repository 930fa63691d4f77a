//! DWARF expressions in unwind tables, of which a few shapes occur.

use gimli::{Encoding, Expression, Operation, Reader, Register};
use memtrace_common::unwind::CfaRule;

use super::arch::Arch;

/// The longest expression that is understood, in operations.
const MAX_OPERATIONS: usize = 9;

/// The expression's operations, or `None` if it is too long or malformed.
fn operations<R: Reader>(expression: Expression<R>, encoding: Encoding) -> Option<Vec<Operation<R>>> {
    let mut operations = Vec::with_capacity(MAX_OPERATIONS);
    let mut all = expression.operations(encoding);
    while let Some(operation) = all.next().ok()? {
        if operations.len() == MAX_OPERATIONS {
            return None;
        }
        operations.push(operation);
    }
    Some(operations)
}

/// A canonical frame address that is the value of an expression: the rule, its offset, and for a stub of the
/// procedure linkage table what belongs into `third_offset`.
pub(super) fn cfa<R: Reader>(
    arch: &Arch,
    expression: Expression<R>,
    encoding: Encoding,
) -> Option<(CfaRule, i64, i64)> {
    let operations = operations(expression, encoding)?;
    if let [Operation::RegisterOffset { register, offset, .. }, Operation::Deref { size, space: false, .. }] =
        operations.as_slice()
        && *size == encoding.address_size
    {
        return match *register {
            register if register == arch.frame_pointer => Some((CfaRule::AtFramePointer, *offset, 0)),
            register if register == arch.stack_pointer => Some((CfaRule::AtStackPointer, *offset, 0)),
            _ => None,
        };
    }
    let behind_push = arch.plt_behind_push(&operations)?;
    Some((CfaRule::Plt, 8, behind_push as i64 * 8))
}

/// A register that is saved where an expression says: the register that this place is counted from, and the
/// distance.
pub(super) fn place<R: Reader>(expression: Expression<R>, encoding: Encoding) -> Option<(Register, i64)> {
    match operations(expression, encoding)?.as_slice() {
        [Operation::RegisterOffset { register, offset, .. }] => Some((*register, *offset)),
        _ => None,
    }
}

//! The functions of a file that have call frame information, in order and without overlaps.

use std::ops::Range;

/// A function: its code, and which of the compiled rows are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Addresses.
    pub(super) code: Range<u64>,
    /// Places in the list of all rows; there is at least one.
    pub(super) rows: Range<usize>,
}

/// Brings functions into the order of their code. Of two that overlap the one that begins first is kept
/// whole, and the other one begins behind it.
pub(super) fn in_order(mut functions: Vec<Function>) -> Vec<Function> {
    functions.sort_by_key(|function| (function.code.start, function.rows.start));
    let mut covered = 0;
    functions.retain_mut(|function| {
        function.code.start = function.code.start.max(covered);
        covered = covered.max(function.code.end);
        !function.code.is_empty()
    });
    functions
}

/// Adds those parts of `others` that lie where `functions` has nothing. Both are in order and without
/// overlaps, and so is the result.
pub(super) fn fill_gaps(functions: Vec<Function>, others: Vec<Function>) -> Vec<Function> {
    if functions.is_empty() {
        return others;
    }
    let mut all = Vec::with_capacity(functions.len());
    let mut next = functions.iter().peekable();
    for other in others {
        let mut start = other.code.start;
        while start < other.code.end {
            while next.next_if(|function| function.code.end <= start).is_some() {}
            let Some(function) = next.peek().filter(|function| function.code.start < other.code.end) else {
                all.push(Function { code: start..other.code.end, rows: other.rows.clone() });
                break;
            };
            if start < function.code.start {
                all.push(Function { code: start..function.code.start, rows: other.rows.clone() });
            }
            start = function.code.end;
        }
    }
    all.extend(functions);
    all.sort_by_key(|function| function.code.start);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function(code: Range<u64>, row: usize) -> Function {
        Function { code, rows: row..row + 1 }
    }

    #[test]
    fn gaps_are_filled_and_nothing_else() {
        let first = vec![function(10..20, 0), function(30..40, 1)];
        let second = vec![function(5..12, 2), function(15..35, 3), function(38..50, 4)];
        let expected = vec![
            function(5..10, 2),
            function(10..20, 0),
            function(20..30, 3),
            function(30..40, 1),
            function(40..50, 4),
        ];
        assert_eq!(fill_gaps(first, second), expected);
    }

    fn functions() -> impl Strategy<Value = Vec<Function>> {
        proptest::collection::vec((0..60_u64, 0..20_u64), 0..12).prop_map(|ranges| {
            let numbered = ranges.into_iter().enumerate();
            numbered.map(|(row, (start, len))| function(start..start + len, row)).collect()
        })
    }

    fn owner(functions: &[Function], address: u64) -> Option<usize> {
        functions.iter().find(|function| function.code.contains(&address)).map(|function| function.rows.start)
    }

    proptest! {
        #[test]
        fn every_address_keeps_its_function(first in functions(), second in functions()) {
            let (first, second) = (in_order(first), in_order(second));
            let all = fill_gaps(first.clone(), second.clone());
            prop_assert!(all.windows(2).all(|pair| pair[0].code.end <= pair[1].code.start));
            for address in 0..80 {
                let expected = owner(&first, address).or_else(|| owner(&second, address));
                prop_assert_eq!(owner(&all, address), expected);
            }
        }
    }
}

//! Whether a process meets what is asked for.

use super::process::Unseen;

/// The answer to a question about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does, for these reasons: clauses that can follow "the process".
    Yes(Vec<String>),
    /// It does not, or it has ended.
    No,
    /// Not permitted to look.
    Unknown,
}

impl Verdict {
    /// It does, for this reason.
    pub(super) fn yes(reason: String) -> Self {
        Self::Yes(vec![reason])
    }

    /// Both. `No` wins over `Unknown`, so that only those count as unseen that may match; after a `No` there is
    /// no further question.
    pub(super) fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Unknown => match next() {
                Self::No => Self::No,
                _ => Self::Unknown,
            },
            Self::Yes(mut reasons) => match next() {
                Self::Yes(more) => {
                    reasons.extend(more);
                    Self::Yes(reasons)
                }
                other => other,
            },
        }
    }
}

impl From<Unseen> for Verdict {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Gone => Self::No,
            Unseen::NotPermitted => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_wins_over_an_unknown() {
        let yes = || Verdict::yes("is so".to_owned());
        assert_eq!(yes().and(yes), Verdict::Yes(vec!["is so".to_owned(); 2]));
        assert_eq!(yes().and(|| Verdict::Unknown), Verdict::Unknown);
        assert_eq!(Verdict::Unknown.and(|| Verdict::No), Verdict::No);
        assert_eq!(Verdict::Unknown.and(yes), Verdict::Unknown);
        assert_eq!(Verdict::No.and(|| panic!("asked")), Verdict::No);
    }
}

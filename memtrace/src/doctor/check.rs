//! One thing that was looked at.

use std::io;

use serde::Serialize;

/// What follows when a check is not [`Outcome::Ok`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Nothing can be recorded.
    Required,
    /// Recording works, but worse, or not everywhere.
    Useful,
}

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It is there, and works as far as that can be tried.
    Ok,
    /// It is not there.
    Missing,
    /// It was tried and did not work.
    Failed {
        /// The kernel's error number, see errno(3).
        errno: Option<i32>,
        /// What happened. A failure of the verifier has many lines.
        error: String,
    },
    /// It cannot be seen from here; no conclusion is drawn from it.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A name that does not change from version to version.
    pub id: &'static str,
    /// What it is called in the field.
    pub name: String,
    /// How much depends on it.
    pub need: Need,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was seen, if there is more to say than the outcome. It may hold text that the target has chosen.
    pub detail: String,
    /// What memtrace uses it for.
    pub used_for: &'static str,
    /// What memtrace does without it; empty where that is nothing.
    pub without: &'static str,
    /// How to get it. Only where it is not there, and nothing else has to be there first.
    pub remedy: Option<String>,
}

impl Check {
    /// A check whose outcome is not known yet.
    pub(super) fn new(
        id: &'static str,
        name: impl Into<String>,
        need: Need,
        used_for: &'static str,
        without: &'static str,
    ) -> Self {
        let outcome = Outcome::Unknown;
        Self { id, name: name.into(), need, outcome, detail: String::new(), used_for, without, remedy: None }
    }

    /// Without it nothing can be recorded.
    pub(super) fn required(id: &'static str, name: impl Into<String>, used_for: &'static str) -> Self {
        Self::new(id, name, Need::Required, used_for, "")
    }

    /// Without it recording works, but worse.
    pub(super) fn useful(
        id: &'static str,
        name: impl Into<String>,
        used_for: &'static str,
        without: &'static str,
    ) -> Self {
        Self::new(id, name, Need::Useful, used_for, without)
    }

    pub(super) fn ok(self, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ok, detail: detail.into(), ..self }
    }

    pub(super) fn unknown(self, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, detail: detail.into(), ..self }
    }

    pub(super) fn missing(self, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Missing, detail: detail.into(), remedy: Some(remedy.into()), ..self }
    }

    /// It is not there because something else is not, which has a remedy of its own.
    pub(super) fn blocked(self, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Missing, detail: detail.into(), ..self }
    }

    /// `error` is what was being done, and its causes.
    pub(super) fn failed(
        self,
        error: &(dyn std::error::Error + 'static),
        remedy: impl FnOnce(Option<i32>) -> String,
    ) -> Self {
        let errno = errno(error);
        let outcome = Outcome::Failed { errno, error: chain(error) };
        Self { outcome, remedy: Some(remedy(errno)), ..self }
    }

    /// Whether it is there and works.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Whether it stands in the way of recording.
    pub fn prevents_recording(&self) -> bool {
        self.need == Need::Required && matches!(self.outcome, Outcome::Missing | Outcome::Failed { .. })
    }
}

/// The error number at the bottom of an error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// An error and its causes, without what is said twice.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for error in std::iter::successors(Some(error), |error| error.source()) {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot load the program")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_failure_carries_the_number_and_each_cause_once() {
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        let check = Check::required("x", "x", "nothing").failed(&error, |errno| format!("{errno:?}"));
        let expected = "cannot load the program: Operation not permitted (os error 1)".to_owned();
        assert_eq!(check.outcome, Outcome::Failed { errno: Some(libc::EPERM), error: expected });
        assert_eq!(check.remedy.as_deref(), Some("Some(1)"));
        assert!(check.prevents_recording());
    }

    #[test]
    fn what_cannot_be_seen_prevents_nothing() {
        assert!(!Check::required("x", "x", "nothing").unknown("").prevents_recording());
        assert!(!Check::useful("x", "x", "nothing", "").missing("", "").prevents_recording());
    }
}

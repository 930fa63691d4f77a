//! What a profile has by name.

use crate::profile::{Profile, ValueType};

/// A number about the recording.
pub(super) fn statistic(profile: &Profile, name: &str) -> Option<f64> {
    profile.statistics.iter().find(|it| it.name == name).map(|it| it.value)
}

/// `inuse` and `alloc` of Go's value types in words.
pub(super) fn state(value_type: &ValueType) -> String {
    match prefix(value_type) {
        "inuse" => "in use".to_owned(),
        "alloc" => "allocated".to_owned(),
        other => other.replace('_', " "),
    }
}

pub(super) fn prefix(value_type: &ValueType) -> &'static str {
    value_type.kind.rsplit_once('_').map_or(value_type.kind, |(prefix, _)| prefix)
}

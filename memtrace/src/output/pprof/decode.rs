//! From bytes to a message that is known to be sound.

use std::collections::HashSet;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use prost::Message;

use super::proto::Profile;

/// Why bytes are no pprof profile. The texts go on from "failed to read the profile: ".
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing to decode.
    #[error("the file is empty")]
    Empty,
    /// It begins as gzip but does not go on so.
    #[error("the file is damaged or cut off (gzip: {0})")]
    Gzip(std::io::Error),
    /// The bytes are not a message.
    #[error("this is not a pprof profile ({0})")]
    Protobuf(#[from] prost::DecodeError),
    /// It is a message, but not a sound profile.
    #[error("this is not a sound pprof profile: {0}")]
    Unsound(String),
}

/// Reads a profile, gzipped or not, and checks it as pprof does (`profile.CheckValid`): every text, id
/// and value that something refers to is there.
///
/// # Errors
///
/// [`DecodeError`] says what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Profile, DecodeError> {
    let profile = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut raw = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut raw).map_err(DecodeError::Gzip)?;
        parse(&raw)?
    } else {
        parse(bytes)?
    };
    check_texts(&profile)?;
    check_ids(&profile)?;
    Ok(profile)
}

fn parse(raw: &[u8]) -> Result<Profile, DecodeError> {
    if raw.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(Profile::decode(raw)?)
}

fn check_texts(profile: &Profile) -> Result<(), DecodeError> {
    let table = &profile.string_table;
    if table.first().is_none_or(|first| !first.is_empty()) {
        return unsound("its string table does not begin with the empty string");
    }
    let types = profile.sample_type.iter().chain(&profile.period_type);
    let types = types.flat_map(|it| [it.kind, it.unit]);
    let mappings = profile.mapping.iter().flat_map(|it| [it.filename, it.build_id]);
    let functions = profile.function.iter().flat_map(|it| [it.name, it.system_name, it.filename]);
    let labels = profile.sample.iter().flat_map(|it| &it.label);
    let labels = labels.flat_map(|it| [it.key, it.str, it.num_unit]);
    let comments = profile.comment.iter().copied();
    let others = [profile.drop_frames, profile.keep_frames, profile.default_sample_type, profile.doc_url];
    let mut all = types.chain(mappings).chain(functions).chain(labels).chain(comments).chain(others);
    match all.find(|&index| usize::try_from(index).map_or(true, |index| index >= table.len())) {
        Some(index) => unsound(format!("it refers to string {index} of {}", table.len())),
        None => Ok(()),
    }
}

fn check_ids(profile: &Profile) -> Result<(), DecodeError> {
    let mappings = unique("mapping", profile.mapping.iter().map(|it| it.id))?;
    let functions = unique("function", profile.function.iter().map(|it| it.id))?;
    let locations = unique("location", profile.location.iter().map(|it| it.id))?;
    if profile.sample_type.is_empty() {
        return unsound("it has no sample types");
    }
    for location in &profile.location {
        // 0 means that the location is in no mapping.
        if location.mapping_id != 0 {
            known("mapping", location.mapping_id, &mappings)?;
        }
        for line in &location.line {
            known("function", line.function_id, &functions)?;
        }
    }
    for sample in &profile.sample {
        let (values, types) = (sample.value.len(), profile.sample_type.len());
        if values != types {
            return unsound(format!("a sample has {values} values for {types} sample types"));
        }
        for &location in &sample.location_id {
            known("location", location, &locations)?;
        }
    }
    Ok(())
}

fn unique(what: &str, ids: impl Iterator<Item = u64>) -> Result<HashSet<u64>, DecodeError> {
    let mut seen = HashSet::new();
    for id in ids {
        if id == 0 || !seen.insert(id) {
            return unsound(format!("{what} id {id} is 0 or is used twice"));
        }
    }
    Ok(seen)
}

fn known(what: &str, id: u64, ids: &HashSet<u64>) -> Result<(), DecodeError> {
    if ids.contains(&id) {
        Ok(())
    } else {
        unsound(format!("it refers to {what} {id}, which it does not have"))
    }
}

fn unsound<T>(reason: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Unsound(reason.into()))
}

//! Whether what was recorded is true.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::system;

/// What of an allocation function's work is compared.
const VALUES: [&str; 4] = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"];

/// Losses that say nothing of the kernel: the C library has no debug symbols there.
const HARMLESS: &str = "frames_without_symbol";

/// Checks what a machine has sent into `out`. Returns what was found right.
///
/// # Errors
/// With the first thing that is not.
pub(super) fn all(out: &Path, modes: &[&str]) -> Result<String> {
    succeeded(out, "doctor")?;
    let mut done = "doctor".to_owned();
    for mode in modes {
        leak(out, &format!("leak-{mode}"))?;
        let shapes = system::shapes();
        let name = format!("frames-{mode}");
        let profile = profile(out, &name)?;
        whole(&profile, shapes as f64).with_context(|| format!("{name} is wrong"))?;
        done += &format!("; {mode}: the books, {shapes} shapes of stacks");
    }
    Ok(done)
}

/// The profile that was written by the run `name`.
fn profile(out: &Path, name: &str) -> Result<Value> {
    succeeded(out, name)?;
    let text = read(out, &format!("{name}.json"))?;
    serde_json::from_str(&text).with_context(|| format!("{name} has written a profile that is not JSON"))
}

fn succeeded(out: &Path, name: &str) -> Result<()> {
    let status = read(out, &format!("{name}.status"))?;
    if status.trim() != "0" {
        let said =
            format!("{}{}", read(out, &format!("{name}.stdout"))?, read(out, &format!("{name}.stderr"))?);
        bail!("{name} failed (status {}):\n{}", status.trim(), said.trim_end());
    }
    Ok(())
}

fn read(out: &Path, name: &str) -> Result<String> {
    fs::read_to_string(out.join(name)).with_context(|| format!("the machine has sent no {name}"))
}

/// The program prints, for each of its functions, what it has allocated (tests/fixtures/truth.h).
fn leak(out: &Path, name: &str) -> Result<()> {
    let profile = profile(out, name)?;
    let truth: BTreeMap<String, BTreeMap<String, f64>> =
        serde_json::from_str(&read(out, &format!("{name}.stdout"))?)
            .with_context(|| format!("the program of {name} does not say what it has done"))?;
    let mut samples = 0.0;
    for (function, values) in &truth {
        for value in VALUES {
            let recorded = sum(&profile, function, value);
            let done = values.get(value).copied().unwrap_or_default();
            if recorded != done {
                bail!("{name}: {value} of {function} are {recorded}, and were {done}");
            }
        }
        samples += sum(&profile, function, "alloc_objects");
    }
    whole(&profile, samples).with_context(|| format!("{name} is wrong"))
}

fn sum(profile: &Value, function: &str, value: &str) -> f64 {
    let stacks = profile["stacks"].as_array().into_iter().flatten();
    let of_function = stacks.filter(|stack| stack["frames"][0]["function"] == function);
    of_function.filter_map(|stack| stack["values"][value].as_f64()).sum()
}

/// Nothing was lost, and at least `samples` samples were taken, all with whole stacks.
fn whole(profile: &Value, samples: f64) -> Result<()> {
    let losses = profile["losses"].as_array().context("the profile states no losses")?;
    if let Some(loss) = losses.iter().find(|loss| loss["name"] != HARMLESS) {
        bail!("something was lost: {loss}");
    }
    let statistic = |name: &str| {
        profile["statistics"][name].as_f64().with_context(|| format!("the profile does not state {name}"))
    };
    let (taken, complete) = (statistic("samples_count")?, statistic("walks_complete_count")?);
    if taken < samples || complete < taken {
        bail!("{taken} samples were taken of {samples}, and {complete} have whole stacks");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(loss: &str, complete: u32) -> Value {
        serde_json::json!({
            "losses": [{ "name": loss, "count": 1 }],
            "statistics": { "samples_count": 3, "walks_complete_count": complete },
        })
    }

    #[test]
    fn losses_and_stacks_that_are_cut_short_are_noticed() {
        assert!(whole(&profile(HARMLESS, 3), 3.0).is_ok());
        assert!(whole(&profile("missed_frees", 3), 3.0).is_err());
        assert!(whole(&profile(HARMLESS, 2), 3.0).is_err());
        assert!(whole(&profile(HARMLESS, 3), 4.0).is_err());
    }
}

//! Docker: `/var/lib/docker/containers/ID/config.v2.json`.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Container, Roots, oci};

/// The part that is read here (moby, container/container.go).
#[derive(Deserialize)]
struct File {
    /// With a slash before it.
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config", default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

pub(super) fn describe(roots: &Roots, container: &mut Container) {
    let text = roots.read(&format!("/var/lib/docker/containers/{}/config.v2.json", container.id));
    let Some(file) = text.and_then(|text| serde_json::from_slice::<File>(&text).ok()) else { return };
    // Where docker serves the kubelet, the name there is the one that users know.
    oci::annotations(container, &file.config.labels.unwrap_or_default());
    container.learn([file.name.trim_start_matches('/').to_owned()], None);
}

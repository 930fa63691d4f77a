//! Kubernetes pods, as far as files of the node name them.

use std::{fmt, str::FromStr};

use super::Roots;

/// Which pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodKey {
    /// By namespace and name.
    Name(PodName),
    /// By its uid, which is a part of its cgroups' names.
    Uid(String),
}

/// The name of a pod. `NAMESPACE/NAME` as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in there.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(out),
            Self::Uid(uid) => out.write_str(uid),
        }
    }
}

impl FromStr for PodKey {
    type Err = String;

    /// Parses `NAMESPACE/NAME`, or a uid.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_label = |text: &str| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !text.is_empty() && text.bytes().all(is_part)
        };
        let hex = text.bytes().filter(u8::is_ascii_hexdigit).count();
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => {
                Ok(Self::Name(PodName { namespace: namespace.to_owned(), name: name.to_owned() }))
            }
            None if hex == 32 && is_label(text) => Ok(Self::Uid(text.to_lowercase())),
            _ => Err(format!("{text:?} is not a pod: use NAMESPACE/NAME, as in default/web-0, or its uid")),
        }
    }
}

/// Where the kubelet links the logs of each pod: `NAMESPACE_NAME_UID` (pkg/kubelet/kuberuntime/helpers.go,
/// `BuildPodLogsDirectory`).
const LOGS: &str = "/var/log/pods";
/// Where it keeps the volumes of each pod, by uid.
const PODS: &str = "/var/lib/kubelet/pods";

/// The name of the pod of this uid, if a file says it.
pub(super) fn name(roots: &Roots, uid: &str) -> Option<PodName> {
    let logs = roots.list(LOGS);
    logs.iter().find_map(|dir| named_by_logs(dir, uid)).or_else(|| named_by_volumes(roots, uid))
}

/// Neither a namespace nor a name has an underscore in it.
fn named_by_logs(dir: &str, uid: &str) -> Option<PodName> {
    let mut parts = dir.splitn(3, '_');
    let (namespace, name) = (parts.next()?, parts.next()?);
    (parts.next()? == uid).then(|| PodName { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// By the `/etc/hosts` that the kubelet writes for it, whose last line ends with its host name (mostly its own), and the
/// namespace that goes with the token of its service account.
fn named_by_volumes(roots: &Roots, uid: &str) -> Option<PodName> {
    let hosts = String::from_utf8(roots.read(&format!("{PODS}/{uid}/etc-hosts"))?).ok()?;
    let line = hosts.lines().rfind(|line| !line.is_empty() && !line.starts_with('#'))?;
    let name = line.split_whitespace().last()?.to_owned();
    let projected = format!("{PODS}/{uid}/volumes/kubernetes.io~projected");
    let namespace = roots
        .list(&projected)
        .iter()
        .find_map(|volume| String::from_utf8(roots.read(&format!("{projected}/{volume}/namespace"))?).ok())?;
    Some(PodName { namespace: namespace.trim().to_owned(), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let name = PodName { namespace: "default".to_owned(), name: "web-0".to_owned() };
        assert_eq!("default/web-0".parse(), Ok(PodKey::Name(name)));
        let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        assert_eq!(uid.parse(), Ok(PodKey::Uid(uid.to_owned())));
        for wrong in ["web-0", "", "/", "default/", "a/b/c", "a_b/c"] {
            let error = wrong.parse::<PodKey>().unwrap_err();
            assert!(error.contains("NAMESPACE/NAME"), "{error}");
        }
    }
}

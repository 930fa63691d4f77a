//! Which servers, which cache, how long and how much: from the environment, as all debuginfod clients do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What the environment variables of debuginfod clients say (debuginfod-find(1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `DEBUGINFOD_URLS`: the servers, in the order in which they are asked. Only `http` and `https`.
    pub urls: Vec<String>,
    /// `DEBUGINFOD_CACHE_PATH`, or `debuginfod_client` in `XDG_CACHE_HOME` or in `~/.cache`.
    pub cache: PathBuf,
    /// `DEBUGINFOD_TIMEOUT`: how long a server may be silent.
    pub timeout: Duration,
    /// `DEBUGINFOD_MAXTIME`: how long one file may take in all.
    pub max_time: Duration,
    /// `DEBUGINFOD_MAXSIZE`: how large one file may be, in bytes.
    pub max_bytes: u64,
}

/// Why there is nobody to ask. Full sentences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No server is named.
    #[error(
        "DEBUGINFOD_URLS names no server; set it to that of your distribution, e.g. \
         DEBUGINFOD_URLS=https://debuginfod.debian.net (sudo drops it unless told: sudo -E)"
    )]
    NoServers,
    /// A server that cannot be asked.
    #[error("DEBUGINFOD_URLS has {0:?}, which is neither an http:// nor an https:// URL")]
    Url(String),
    /// A number is none.
    #[error("{0} is {1:?}, which is not a number")]
    Number(&'static str, String),
    /// Nowhere to keep files.
    #[error("there is no place for downloaded files: set DEBUGINFOD_CACHE_PATH or HOME")]
    NoCache,
}

impl Settings {
    /// The settings that the environment has.
    ///
    /// # Errors
    /// [`SettingsError`] says which variable to set.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let urls = set("DEBUGINFOD_URLS").unwrap_or_default().to_string_lossy().into_owned();
        // `ima:enforcing` and the like are no servers but how to verify those that follow, which is
        // optional (debuginfod-find(1)); here the build-id is verified.
        let urls = urls.split_whitespace().filter(|url| !url.starts_with("ima:"));
        let urls: Vec<String> = urls.map(|url| url.trim_end_matches('/').to_owned()).collect();
        if urls.is_empty() {
            return Err(SettingsError::NoServers);
        }
        if let Some(url) = urls.iter().find(|url| !is_http(url)) {
            return Err(SettingsError::Url(url.clone()));
        }
        let path = |name| set(name).map(PathBuf::from);
        let cache = path("DEBUGINFOD_CACHE_PATH")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("debuginfod_client")))
            .or_else(|| Some(path("HOME")?.join(".cache/debuginfod_client")))
            .ok_or(SettingsError::NoCache)?;
        let number = |name: &'static str, default: u64| {
            let Some(text) = set(name) else { return Ok(default) };
            let text = text.to_string_lossy().into_owned();
            match text.trim().parse() {
                // 0 is "no limit" in elfutils; here there is always one.
                Ok(0) => Ok(default),
                Ok(number) => Ok(number),
                Err(_) => Err(SettingsError::Number(name, text)),
            }
        };
        Ok(Self {
            urls,
            cache,
            timeout: Duration::from_secs(number("DEBUGINFOD_TIMEOUT", 30)?),
            max_time: Duration::from_secs(number("DEBUGINFOD_MAXTIME", 600)?),
            max_bytes: number("DEBUGINFOD_MAXSIZE", 2 << 30)?,
        })
    }
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn servers_are_separated_by_spaces() {
        let urls = ("DEBUGINFOD_URLS", " http://a:8002/ ima:enforcing  https://b/x ");
        let found = settings(&[urls, ("HOME", "/h")]).unwrap();
        assert_eq!(found.urls, ["http://a:8002", "https://b/x"]);
    }

    #[test]
    fn the_cache_is_where_elfutils_has_it() {
        let cache = |variables: &[(&str, &str)]| {
            settings(&[variables, &[("DEBUGINFOD_URLS", "http://a")]].concat()).map(|found| found.cache)
        };
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("DEBUGINFOD_CACHE_PATH", "/d")];
        assert_eq!(cache(&all[..1]).unwrap(), PathBuf::from("/h/.cache/debuginfod_client"));
        assert_eq!(cache(&all[..2]).unwrap(), PathBuf::from("/x/debuginfod_client"));
        assert_eq!(cache(&all).unwrap(), PathBuf::from("/d"));
        assert_eq!(cache(&[("HOME", "")]), Err(SettingsError::NoCache));
    }

    #[test]
    fn limits_are_numbers() {
        let base = [("DEBUGINFOD_URLS", "http://a"), ("HOME", "/h")];
        let with = |name, value| settings(&[&base[..], &[(name, value)]].concat());
        assert_eq!(with("DEBUGINFOD_TIMEOUT", "5").unwrap().timeout, Duration::from_secs(5));
        assert_eq!(with("DEBUGINFOD_MAXTIME", "0").unwrap().max_time, Duration::from_secs(600));
        assert_eq!(with("DEBUGINFOD_MAXSIZE", "1000").unwrap().max_bytes, 1000);
        let error = with("DEBUGINFOD_MAXSIZE", "1G").unwrap_err();
        assert_eq!(error, SettingsError::Number("DEBUGINFOD_MAXSIZE", "1G".to_owned()));
    }

    #[test]
    fn without_a_usable_server_it_is_said_what_to_do() {
        assert_eq!(settings(&[("HOME", "/h")]), Err(SettingsError::NoServers));
        assert_eq!(settings(&[("DEBUGINFOD_URLS", "  ")]), Err(SettingsError::NoServers));
        for url in ["file:///srv", "debuginfod.debian.net", "https://"] {
            let found = settings(&[("DEBUGINFOD_URLS", url), ("HOME", "/h")]);
            assert!(matches!(found, Err(SettingsError::Url(_))), "{url}: {found:?}");
        }
    }
}

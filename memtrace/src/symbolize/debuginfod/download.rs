//! One request to one server.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Kind, Settings, hex};

/// How often a download looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A server, by its URL.
#[derive(Debug)]
pub(super) struct Server {
    url: String,
    agent: Agent,
}

/// What a server has said.
pub(super) enum Answer {
    /// It has the file, which was written.
    Found {
        /// Its size.
        bytes: u64,
    },
    /// It does not have it.
    NotFound,
}

/// When to stop.
pub(super) struct Limit {
    /// The largest file that is taken.
    pub(super) bytes: u64,
    /// Set when nobody wants the file any more.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// A download that goes on in a thread of its own: a server that says nothing for half a minute must not keep a
/// user waiting who has lost patience.
pub(super) struct Download {
    answer: Receiver<Result<Answer>>,
    cancelled: Arc<AtomicBool>,
}

impl Download {
    /// Waits for its end, or until nobody wants it any more. The thread then ends by itself.
    pub(super) fn wait(self) -> Result<Answer> {
        loop {
            match self.answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if self.cancelled.load(Ordering::Relaxed) => {
                    bail!("interrupted")
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the download has failed"),
            }
        }
    }
}

impl Server {
    /// Those of the settings.
    pub(super) fn all(settings: &Settings) -> Vec<Self> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(settings.max_time))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .http_status_as_error(false)
            .user_agent(concat!("memtrace/", env!("CARGO_PKG_VERSION")));
        if settings.urls.iter().any(|url| url.starts_with("https:")) {
            config = config.tls_config(TlsConfig::builder().root_certs(root_certificates()).build());
        }
        let agent = Agent::new_with_config(config.build());
        let servers = settings.urls.iter();
        servers.map(|url| Self { url: url.clone(), agent: agent.clone() }).collect()
    }

    /// Downloads a file into `file`. Whether it is the right one is for the caller to find out.
    pub(super) fn start(&self, build_id: &[u8], kind: Kind, file: File, limit: Limit) -> Result<Download> {
        let url = format!("{}/buildid/{}/{}", self.url, hex(build_id), kind.name());
        let (sender, answer) = mpsc::channel();
        let (agent, cancelled) = (self.agent.clone(), Arc::clone(&limit.cancelled));
        let thread = std::thread::Builder::new().name("debuginfod".to_owned());
        // Nobody listens any more if it was cancelled.
        let work = move || drop(sender.send(Self::download(&agent, &url, file, &limit)));
        thread.spawn(work).context("cannot start a thread")?;
        Ok(Download { answer, cancelled })
    }

    fn download(agent: &Agent, url: &str, mut file: File, limit: &Limit) -> Result<Answer> {
        let mut response = agent.get(url).call()?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Answer::NotFound),
            status => bail!("the server answers with status {status}"),
        }
        let body = response.body_mut();
        let announced = body.content_length();
        let too_large = || format!("the file is larger than {} bytes (DEBUGINFOD_MAXSIZE)", limit.bytes);
        if let Some(bytes) = announced {
            ensure!(bytes <= limit.bytes, too_large());
        }
        let mut body = body.as_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            ensure!(!limit.cancelled.load(Ordering::Relaxed), "interrupted");
            let length = body.read(&mut buffer).context("the answer is not complete")?;
            if length == 0 {
                break;
            }
            bytes += length as u64;
            ensure!(bytes <= limit.bytes, too_large());
            file.write_all(&buffer[..length]).context("cannot write to the cache")?;
        }
        if let Some(announced) = announced {
            ensure!(announced == bytes, "the answer has {bytes} of {announced} bytes");
        }
        Ok(Answer::Found { bytes })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password.
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or(host);
        let slash = if path.is_empty() { "" } else { "/" };
        write!(formatter, "{scheme}://{host}{slash}{path}")
    }
}

/// The certificates that this machine trusts, or those that are built in where it has none (a container).
fn root_certificates() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("failed to read the system's certificates: {error}");
    }
    let certificates: Vec<_> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&certificates) }
}

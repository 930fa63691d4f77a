//! A debuginfod server of a few files, on the loopback interface.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A server. Its thread ends with the tests.
#[derive(Debug)]
pub struct Debuginfod {
    /// What to set `DEBUGINFOD_URLS` to.
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Debuginfod {
    /// Serves these files, each under its path in a URL (`/buildid/ID/debuginfo`); of all else it says that it
    /// is not there.
    pub fn serve(files: &[(String, &Path)]) -> Self {
        Self::start(files, true)
    }

    /// Takes requests and never answers.
    pub fn silent() -> Self {
        Self::start(&[], false)
    }

    fn start(files: &[(String, &Path)], answers: bool) -> Self {
        let files: Vec<(String, PathBuf)> =
            files.iter().map(|(url, path)| (url.clone(), path.to_path_buf())).collect();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("a socket can be cloned")).lines();
                let request = lines.next().and_then(Result::ok).unwrap_or_default();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                for _ in lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())) {}
                let file = files.iter().find(|(url, _)| *url == path);
                let body = file.map(|(_, file)| std::fs::read(file).expect("the served file is readable"));
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                seen.lock().expect("nobody panics with the lock").push(path);
                if !answers {
                    kept.push(stream);
                    continue;
                }
                let length = body.len();
                // A client that has gone away is no error of the server.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                )
                .and_then(|()| stream.write_all(&body));
            }
        });
        Self { url: format!("http://{address}"), requests }
    }

    /// The paths that were asked for, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("nobody panics with the lock").clone()
    }
}

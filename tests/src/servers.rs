//! Debian's servers that make a process for each connection, or some to share them.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::family::Named;
use crate::process::{PATIENCE, Process};
use crate::tools;

/// The processes that the main thread of `pid` has created and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|word| word.parse().expect("a process id")).collect()
}

/// Asks again and again until there is an answer.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < limit, "{what} did not come");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// PostgreSQL, with a directory and a socket of its own.
#[derive(Debug)]
pub struct Postgres {
    server: Process,
    /// Under which it runs.
    pub program: Named,
    programs: PathBuf,
    home: TempDir,
}

impl Postgres {
    /// Starts it and waits until it serves.
    pub fn serve() -> Self {
        let programs = programs();
        let home = tempfile::tempdir().expect("a temporary directory");
        let id = Command::new("id").args(["-u", "postgres"]).output().expect("id runs");
        let user = String::from_utf8_lossy(&id.stdout).trim().parse().expect("there is a user postgres");
        chown(home.path(), Some(user), None).expect("the directory can be given away");
        let program = Named::of(&programs.join("postgres"), "postgres");
        program.open_to_all();
        let data = home.path().join("data");
        let data = data.to_str().expect("the path is UTF-8");
        let mut initdb = as_postgres(&programs.join("initdb"), home.path());
        Process::spawn(initdb.args(["--no-sync", "-D", data])).finish().expect_success();
        let mut server = as_postgres(&program.path(), home.path());
        server.args(["-D", data, "-k"]).arg(home.path());
        server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "log_connections=on"]);
        // The process id, and "LOG:  connection authorized: user=...".
        server.args(["-c", "log_line_prefix=%p "]);
        let mut server = Process::spawn(&mut server);
        server.stderr_line(|line| line.contains("ready to accept connections"));
        let postgres = Self { server, program, programs, home };
        postgres.bench(&["--initialize", "--quiet", "--scale", "1"]);
        postgres
    }

    /// The id of the process that makes the others.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Runs pgbench to its end.
    pub fn bench(&self, options: &[&str]) {
        let mut bench = as_postgres(&self.programs.join("pgbench"), self.home.path());
        bench.arg("-h").arg(self.home.path()).args(options).arg("postgres");
        Process::spawn(&mut bench).finish().expect_success();
    }

    /// Ends it, and returns the ids of all processes that have served connections.
    pub fn finish(self) -> Vec<u32> {
        // A "fast shutdown" (postgres(1)).
        self.server.signal(libc::SIGINT);
        let outcome = self.server.finish().expect_success();
        let lines = outcome.stderr.lines().filter(|line| line.contains("connection authorized"));
        lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }
}

/// Where Debian has PostgreSQL's programs: by version, of which the newest is taken.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(version);
    newest.expect("there is PostgreSQL: `apt-get install postgresql`").join("bin")
}

/// A command that the user postgres runs: the server refuses to be root's.
fn as_postgres(program: &Path, home: &Path) -> Command {
    let mut command = tools::command("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]).arg(program);
    command.current_dir(home);
    command
}

/// nginx with four worker processes, and a page.
#[derive(Debug)]
pub struct Nginx {
    server: Process,
    /// Under which it runs.
    pub program: Named,
    port: u16,
    _home: TempDir,
}

impl Nginx {
    /// How many workers it has.
    pub const WORKERS: usize = 4;

    /// Starts it, and waits until it has its workers.
    pub fn serve() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        drop(listener);
        let at = home.path().to_str().expect("the path is UTF-8");
        let page = "<p>The quick brown fox jumps over the lazy dog.</p>\n".repeat(400);
        std::fs::write(home.path().join("page.html"), page).expect("the directory is writable");
        // Workers run as another user.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .collect();
        let configuration = format!(
            "daemon off;\nworker_processes {};\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n{temporary}access_log off;\ngzip on;\ngzip_types text/html;\n\
             server {{ listen 127.0.0.1:{port}; root {at}; }}\n}}\n",
            Self::WORKERS
        );
        let file = home.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("the directory is writable");
        assert!(Path::new("/usr/sbin/nginx").exists(), "there is no nginx: `apt-get install nginx`");
        let program = Named::of(Path::new("/usr/sbin/nginx"), "nginx");
        let server = Process::spawn(Command::new(program.path()).args(["-p", at, "-c"]).arg(&file));
        let nginx = Self { server, program, port, _home: home };
        nginx.wait_for_workers(&[]);
        nginx
    }

    /// The id of the process that makes the others.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Waits until there are as many workers as there should be, beside `earlier` ones.
    pub fn wait_for_workers(&self, earlier: &[u32]) -> Vec<u32> {
        wait_for("nginx's workers", || {
            let mut workers = children(self.pid());
            workers.retain(|pid| !earlier.contains(pid));
            (workers.len() == Self::WORKERS).then_some(workers)
        })
    }

    /// Has it replace its workers by new ones, and returns these.
    pub fn reload(&self) -> Vec<u32> {
        let earlier = children(self.pid());
        self.server.signal(libc::SIGHUP);
        self.wait_for_workers(&earlier)
    }

    /// Loads it with requests for a second.
    pub fn load(&self) {
        let mut wrk = tools::command("wrk");
        wrk.args(["--threads", "1", "--connections", "16", "--duration", "1s"]);
        wrk.args(["--header", "Accept-Encoding: gzip", "--header", "Connection: close"]);
        let outcome = Process::spawn(wrk.arg(format!("http://127.0.0.1:{}/page.html", self.port))).finish();
        let said = outcome.expect_success().stdout;
        assert!(said.contains("requests in") && !said.contains("Non-2xx"), "{said}");
    }

    /// Ends it.
    pub fn finish(self) {
        self.server.signal(libc::SIGTERM);
        self.server.finish().expect_success();
    }
}

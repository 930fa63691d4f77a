//! A worker process of nginx, with wrk: files, compressed on the way, from a proxy, lists of files, and files that
//! are not there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Load;
use super::service::{Service, free_port, text, wait_for};

pub(super) fn start(directory: &Path) -> Result<Load> {
    let port = free_port()?;
    let at = text(directory)?;
    let page = "<p>The quick brown fox jumps over the lazy dog.</p>\n".repeat(400);
    fs::write(directory.join("page.html"), page).context("cannot write the page")?;
    // The worker runs as another user.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).context("cannot open the directory")?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {at}/{name};\n"))
        .collect();
    let configuration = format!(
        "daemon off;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log {at}/error.log crit;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n{temporary}access_log {at}/access.log;\ngzip on;\ngzip_types text/html;\n\
         server {{ listen 127.0.0.1:{port}; root {at};\n\
         location /list/ {{ alias {at}/; autoindex on; }}\n\
         location /proxy/ {{ proxy_pass http://127.0.0.1:{port}/; }}\n}}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration).context("cannot write nginx's configuration")?;
    let server =
        Service::start(Command::new("/usr/sbin/nginx").args(["-p", at, "-c", text(&file)?]), directory)?;
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let worker = wait_for("nginx's worker process", || {
        fs::read_to_string(&children).ok()?.split_ascii_whitespace().next()?.parse().ok()
    })?;
    let mut services = vec![server];
    for page in ["page.html", "no-such-page.html", "proxy/page.html", "list/"] {
        let mut load = Command::new("wrk");
        load.args(["--threads", "1", "--connections", "4", "--duration", "10m"]);
        load.args(["--header", "Accept-Encoding: gzip", &format!("http://127.0.0.1:{port}/{page}")]);
        services.push(Service::start(&mut load, directory)?);
    }
    Ok(Load::attach(worker, services))
}

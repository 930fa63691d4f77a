//! A backend of PostgreSQL, with pgbench: its own transactions, and queries that sort and join.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Load;
use super::service::{Service, run, text, wait_for};

/// A query that takes hash tables, sorts and aggregates.
const QUERY: &str = include_str!("../../loads/query.sql");

pub(super) fn start(directory: &Path) -> Result<Load> {
    let programs = programs()?;
    let user = run(Command::new("id").args(["-u", "postgres"]))?;
    let user: u32 = user.trim().parse().context("the user postgres has no number")?;
    let home = directory.join("postgres");
    fs::create_dir(&home).context("cannot make a directory for PostgreSQL")?;
    chown(&home, Some(user), None).context("cannot give PostgreSQL its directory")?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).context("cannot open the directory")?;
    fs::write(directory.join("query.sql"), QUERY).context("cannot write the query")?;
    let (at, data) = (text(&home)?, home.join("data"));
    let of = |name: &str| as_postgres(&programs.join(name), &home);

    run(of("initdb").args(["--no-sync", "-D", text(&data)?]))?;
    let mut server = of("postgres");
    server.args(["-D", text(&data)?, "-k", at, "-c", "listen_addresses=", "-c", "fsync=off"]);
    let server = Service::start(&mut server, directory)?;
    wait_for("PostgreSQL", || run(of("pg_isready").args(["-h", at])).ok())?;
    run(of("pgbench").args(["-h", at, "--initialize", "--quiet", "--scale", "2", "postgres"]))?;

    let mut load = of("pgbench");
    load.args(["-h", at, "--client", "2", "--time", "600", "--builtin", "select-only@20"]);
    load.args([
        "--builtin",
        "simple-update@20",
        "--file",
        &format!("{}@1", text(&directory.join("query.sql"))?),
    ]);
    let load = Service::start(load.arg("postgres"), directory)?;
    let mut ask = of("psql");
    ask.args(["-h", at, "-At", "-c"]);
    // A first connection is over soon; it looks at the tables only.
    ask.arg("select max(pid) from pg_stat_activity where application_name = 'pgbench' having count(*) = 2");
    let backend = wait_for("pgbench's connection", || run(ask.arg("postgres")).ok()?.trim().parse().ok())?;
    Ok(Load::attach(backend, vec![server, load]))
}

/// Where Debian has PostgreSQL's programs: by version, of which the newest is taken.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("cannot find PostgreSQL's programs")?;
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| version(path).is_some())
        .max_by_key(version);
    Ok(newest.context("there is no version of PostgreSQL")?.join("bin"))
}

/// A command that the user postgres runs: the server refuses to be root's.
fn as_postgres(program: &Path, home: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]).arg(program);
    command.current_dir(home);
    command
}

//! redis-server, with redis-benchmark.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Load;
use super::service::{Service, text, wait_for};

pub(super) fn start(directory: &Path) -> Result<Load> {
    let socket = directory.join("redis.sock");
    let mut server = Command::new("/usr/bin/redis-server");
    server.args(["--port", "0", "--save", "", "--unixsocket", text(&socket)?, "--dir", text(directory)?]);
    let server = Service::start(&mut server, directory)?;
    wait_for("redis-server's socket", || socket.exists().then_some(()))?;
    let mut load = Command::new("redis-benchmark");
    load.args(["-s", text(&socket)?, "-l", "-q", "-c", "8", "-d", "200", "-r", "50000", "-n", "20000"]);
    load.args(["-t", "set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"]);
    let load = Service::start(&mut load, directory)?;
    Ok(Load::attach(server.pid(), vec![server, load]))
}

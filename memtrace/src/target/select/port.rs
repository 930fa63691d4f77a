//! Who listens on a port.

use std::{collections::HashSet, path::PathBuf};

use procfs::net::{TcpNetEntry, TcpState, UdpNetEntry, UdpState};

use super::{
    Roots,
    process::{Process, Unseen},
    verdict::Verdict,
};

/// The sockets that listen on a port, in every network namespace that a process is in.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tcp: HashSet<u64>,
    udp: HashSet<u64>,
}

impl Listeners {
    /// Looks for them. Inodes of sockets are unique over all network namespaces (they are on one file system, sockfs),
    /// so it does not matter in which of them the holder of a socket is.
    pub(super) fn find(roots: &Roots, port: u16) -> Self {
        let mut listeners = Self::default();
        let mut seen: HashSet<PathBuf> = HashSet::new();
        for pid in roots.pids().unwrap_or_default() {
            let Ok(Some(process)) = Process::open(roots, pid) else { continue };
            let Ok(namespace) = process.namespace("net") else { continue };
            // If the process ends before all tables are read, another one of its namespace is asked.
            if !seen.contains(&namespace) && listeners.read(&process, port).is_ok() {
                seen.insert(namespace);
            }
        }
        listeners
    }

    fn read(&mut self, process: &Process, port: u16) -> Result<(), Unseen> {
        let listens =
            |entry: &&TcpNetEntry| entry.state == TcpState::Listen && entry.local_address.port() == port;
        // Datagram sockets do not listen: those that are bound and not connected take whatever comes, as in `ss -l`.
        let is_bound =
            |entry: &&UdpNetEntry| entry.state == UdpState::Close && entry.local_address.port() == port;
        let tcp = process.network(|process| process.tcp())?;
        let udp = process.network(|process| process.udp())?;
        // Kernels without IPv6 do not have these.
        let tcp6 = process.network(|process| process.tcp6()).unwrap_or_default();
        let udp6 = process.network(|process| process.udp6()).unwrap_or_default();
        self.tcp.extend(tcp.iter().chain(&tcp6).filter(listens).map(|entry| entry.inode));
        self.udp.extend(udp.iter().chain(&udp6).filter(is_bound).map(|entry| entry.inode));
        Ok(())
    }

    /// Whether the process holds one of them: it has opened it, or has it from its parent.
    pub(super) fn verdict(&self, process: &Process, port: u16) -> Verdict {
        match process.sockets() {
            Ok(sockets) if sockets.iter().any(|inode| self.tcp.contains(inode)) => {
                Verdict::yes(format!("listens on TCP port {port}"))
            }
            Ok(sockets) if sockets.iter().any(|inode| self.udp.contains(inode)) => {
                Verdict::yes(format!("is bound to UDP port {port}"))
            }
            Ok(_) => Verdict::No,
            Err(unseen) => unseen.into(),
        }
    }
}

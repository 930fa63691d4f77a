//! Who listens, in made-up network namespaces.

use super::{
    super::Criteria,
    tree::{Machine, Made},
};

const TCP: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

/// A line of such a table: local port, state and inode.
fn line(port: u16, state: u8, inode: u64) -> String {
    format!(
        "   0: 0100007F:{port:04X} 00000000:0000 {state:02X} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

/// The tables of the network namespace that a process is in.
fn network(process: Made, tcp: &str, udp: &str) -> Made {
    process.file("net/tcp", &format!("{TCP}{tcp}")).file("net/udp", &format!("{UDP}{udp}"))
}

fn port(port: u16) -> Criteria {
    Criteria { port: Some(port), ..Criteria::default() }
}

#[test]
fn listening_bound_and_connected_sockets() {
    const LISTEN: u8 = 10;
    const ESTABLISHED: u8 = 1;
    const UNCONNECTED: u8 = 7;
    let machine = Machine::new();
    let tcp = [line(80, LISTEN, 101), line(80, ESTABLISHED, 102), line(81, LISTEN, 103)].concat();
    let udp = [line(80, UNCONNECTED, 104), line(80, ESTABLISHED, 105)].concat();
    // The wrapper that has started the server does not hold its socket.
    network(machine.process(10, "sh"), &tcp, &udp);
    network(machine.process(11, "master"), &tcp, &udp).link("fd/3", "socket:[101]");
    network(machine.process(12, "worker"), &tcp, &udp)
        .link("fd/9", "socket:[101]")
        .link("fd/10", "socket:[102]");
    network(machine.process(13, "accepted"), &tcp, &udp).link("fd/3", "socket:[102]");
    network(machine.process(14, "other"), &tcp, &udp).link("fd/3", "socket:[103]");
    network(machine.process(15, "dns"), &tcp, &udp).link("fd/3", "socket:[104]");
    network(machine.process(16, "resolver"), &tcp, &udp)
        .link("fd/3", "socket:[105]")
        .link("fd/0", "/dev/null");
    assert_eq!(machine.pids(port(80)), [11, 12, 15]);
    assert_eq!(machine.pids(port(81)), [14]);
    let found = machine.find(port(80)).unwrap().selected;
    assert_eq!(found[0].why, "listens on TCP port 80");
    assert_eq!(found[2].why, "is bound to UDP port 80");
}

#[test]
fn every_network_namespace_is_looked_into() {
    let machine = Machine::new();
    network(machine.process(10, "a"), &line(80, 10, 101), "").link("fd/3", "socket:[101]");
    network(machine.process(11, "b"), &line(80, 10, 201), "")
        .link("ns/net", "net:[2]")
        .link("fd/3", "socket:[201]");
    // Holds a socket of the other namespace.
    network(machine.process(12, "c"), &line(80, 10, 101), "").link("fd/3", "socket:[201]");
    assert_eq!(machine.pids(port(80)), [10, 11, 12]);
}

#[test]
fn a_port_of_version_6() {
    let machine = Machine::new();
    let address = "00000000000000000000000000000000";
    let v6 =
        line(443, 10, 301).replace("0100007F", address).replace("00000000:0000", &format!("{address}:0000"));
    network(machine.process(10, "a"), "", "")
        .file("net/tcp6", &format!("{TCP}{v6}"))
        .link("fd/3", "socket:[301]");
    assert_eq!(machine.pids(port(443)), [10]);
}

#[test]
fn only_a_port_has_to_be_asked_for_again() {
    let machine = Machine::new();
    assert!(machine.select(port(80)).matches_later());
    assert!(!machine.select(Criteria { all: true, ..Criteria::default() }).matches_later());
}

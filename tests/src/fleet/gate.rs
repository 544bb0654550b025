//! A loopback proxy that stands for a cable: while it is cut, connections stay open and new ones
//! open, but no byte arrives, in either direction; what was under way arrives once it is whole again,
//! as TCP would do it.
//!
//! It can be cut for one process alone. Who is at the other end of a connection, the kernel tells:
//! `/proc/net/tcp` has the socket's inode, `/proc/PID/fd` who holds it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::ports::PortLease;

const CHUNK_BYTES: usize = 64 * 1024;

/// An open port; closed with the test's process.
#[derive(Debug)]
pub struct Gate {
    port: PortLease,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cable: Mutex<Cable>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Cable {
    target: Option<SocketAddr>,
    all: bool,
    cut: BTreeSet<u32>,
}

impl Cable {
    /// Whether bytes of the client with this socket may pass.
    fn is_whole_for(&self, client: &str) -> bool {
        !self.all && !self.cut.iter().any(|pid| holds(*pid, client))
    }
}

impl Gate {
    pub fn open() -> Result<Gate> {
        let port = PortLease::take()?;
        let listener = TcpListener::bind(port.address()).context("listen for a gate")?;
        let shared = Arc::new(Shared::default());
        let through = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let through = through.clone();
                std::thread::spawn(move || serve(client, &through));
            }
        });
        Ok(Gate { port, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where new connections go from now on.
    pub fn aim(&self, target: SocketAddr) {
        self.change(|cable| cable.target = Some(target));
    }

    pub fn cut_all(&self) {
        self.change(|cable| cable.all = true);
    }

    /// For this process alone.
    pub fn cut(&self, pid: u32) {
        self.change(|cable| {
            cable.cut.insert(pid);
        });
    }

    pub fn heal(&self) {
        self.change(|cable| {
            cable.all = false;
            cable.cut.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Cable)) {
        change(&mut lock(&self.shared));
        self.shared.changed.notify_all();
    }
}

/// Changes are whole, so a panic elsewhere doesn't spoil them.
fn lock(shared: &Shared) -> MutexGuard<'_, Cable> {
    shared.cable.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns once nothing is in the way, and whither.
fn wait_whole(shared: &Shared, client: &str) -> Option<SocketAddr> {
    let mut cable = lock(shared);
    while !cable.is_whole_for(client) {
        cable = shared.changed.wait(cable).unwrap_or_else(PoisonError::into_inner);
    }
    cable.target
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let Ok(address) = client.peer_addr() else { return };
    let socket = inode_of(address);
    let Some(target) = wait_whole(shared, &socket) else { return };
    // Nobody listens: the client sees its connection end.
    let Ok(server) = TcpStream::connect(target) else { return };
    let (Ok(back), Ok(forth)) = (server.try_clone(), client.try_clone()) else { return };
    for stream in [&client, &server] {
        if stream.set_nodelay(true).is_err() {
            return;
        }
    }
    let (through, same) = (shared.clone(), socket.clone());
    std::thread::spawn(move || pump(back, forth, &through, &same));
    pump(client, server, shared, &socket);
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, client: &str) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        wait_whole(shared, client);
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    // An end doesn't pass a cut cable either.
    wait_whole(shared, client);
    for stream in [&from, &to] {
        // It may have ended already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Whether the process has this socket open.
fn holds(pid: u32, inode: &str) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(&wanted)))
}

/// Of the socket with this local address; empty when it is gone.
fn inode_of(local: SocketAddr) -> String {
    const LOCAL: usize = 1;
    const INODE: usize = 9;
    let SocketAddr::V4(local) = local else { return String::new() };
    // As the kernel writes it: the address as a number of this machine's byte order.
    let address = u32::from_ne_bytes(local.ip().octets());
    let wanted = format!("{address:08X}:{:04X}", local.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = rows.filter(|fields| fields.get(LOCAL) == Some(&wanted.as_str()));
    found.find_map(|fields| fields.get(INODE).map(|inode| (*inode).to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A gate in front of a server that sends back what it gets, and a connection through it.
    fn echo() -> (Gate, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::open().unwrap();
        gate.aim(server.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut reader = stream.try_clone().unwrap();
            std::io::copy(&mut reader, &mut stream)
        });
        let stream = TcpStream::connect(gate.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        (gate, stream)
    }

    fn says(stream: &mut TcpStream, byte: u8) -> bool {
        stream.write_all(&[byte]).unwrap();
        let mut back = [0];
        stream.read_exact(&mut back).is_ok() && back == [byte]
    }

    #[test]
    fn a_cut_cable_loses_nothing_and_ends_nothing() {
        let (gate, mut stream) = echo();
        assert!(says(&mut stream, 1));
        gate.cut_all();
        assert!(!says(&mut stream, 2));
        gate.heal();
        let mut back = [0];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [2]);
        assert!(says(&mut stream, 3));
    }

    #[test]
    fn it_can_be_cut_for_one_process_alone() {
        let (gate, mut stream) = echo();
        assert!(says(&mut stream, 1));
        gate.cut(1);
        assert!(says(&mut stream, 2), "the first process of the machine isn't us");
        gate.cut(std::process::id());
        assert!(!says(&mut stream, 3));
    }
}

//! Ports for the servers a test starts. A lease is a locked file, so two test processes on one
//! machine never hand out the same port; it ends with the process that holds it.
//!
//! Never the kernel's own choice (port 0): a broker that is killed and restarted must find its
//! port free, and an ephemeral port may meanwhile serve as some client's outgoing end.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use rand::Rng;

/// Below Linux' default ephemeral range (32768-60999) and clear of well-known servers.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 31_999;
/// Half of the range taken would mean a leak; no machine runs a tenth of that.
const ATTEMPTS_MAX: usize = 200;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _lock: Option<File>,
}

impl PortLease {
    /// Leases a free port.
    pub fn take() -> Result<PortLease> {
        let directory = std::env::temp_dir().join("lockstep-ports");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let mut rng = rand::rng();
        for _ in 0..ATTEMPTS_MAX {
            let port = rng.random_range(PORT_FIRST..=PORT_LAST);
            let path = directory.join(port.to_string());
            let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            match file.try_lock() {
                Ok(()) if is_free(port) => return Ok(PortLease { port, _lock: Some(file) }),
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
        bail!("no free port found in {PORT_FIRST}-{PORT_LAST} after {ATTEMPTS_MAX} attempts")
    }

    /// A port chosen by a person: nobody else is asked, but it must be free now.
    pub fn fixed(port: u16) -> Result<PortLease> {
        if !is_free(port) {
            bail!("port {port} on 127.0.0.1 is in use");
        }
        Ok(PortLease { port, _lock: None })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leases_never_share_a_port() {
        let leases: Vec<PortLease> = (0..50).map(|_| PortLease::take().unwrap()).collect();
        let mut ports: Vec<u16> = leases.iter().map(PortLease::port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), leases.len());
    }

    #[test]
    fn a_fixed_port_in_use_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(PortLease::fixed(port).unwrap_err().to_string().contains("in use"));
    }
}

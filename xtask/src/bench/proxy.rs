//! A TCP proxy that makes a connection longer, not narrower: every byte leaves half a round trip
//! after it came, in both directions, and as many bytes are under way as come in that time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks under way in one direction. Full ones hold 512 MiB: 40 ms of 12 GB/s, more than loopback
/// carries; so that the proxy is never what limits.
const CHUNKS_MAX: usize = 2_048;

/// Listens until the process ends.
pub struct Proxy {
    one_way_us: Arc<AtomicU64>,
}

struct Chunk {
    bytes: Vec<u8>,
    length: usize,
    due: Instant,
}

impl Proxy {
    /// Passes what comes to `listen` on to `target`, at first without delay.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
        let one_way_us = Arc::new(AtomicU64::new(0));
        let delay = one_way_us.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that can't be served sees its connection close, as without a proxy.
                if let Err(error) = serve(client, target, &delay) {
                    eprintln!("proxy: {error:#}");
                }
            }
        });
        Ok(Proxy { one_way_us })
    }

    /// For every byte that comes from now on.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let one_way_us = u64::try_from(round_trip.as_micros() / 2).unwrap_or(u64::MAX);
        self.one_way_us.store(one_way_us, Ordering::Relaxed);
    }
}

fn serve(client: TcpStream, target: SocketAddr, delay: &Arc<AtomicU64>) -> Result<()> {
    let server = TcpStream::connect(target).with_context(|| format!("connect to {target}"))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
    }
    let back = (server.try_clone().context("share a socket")?, client.try_clone().context("share a socket")?);
    for (from, to) in [(client, server), back] {
        let (full, inbox) = sync_channel(CHUNKS_MAX);
        let (empty, spare) = channel();
        let delay = delay.clone();
        std::thread::spawn(move || receive(from, &full, &spare, &delay));
        std::thread::spawn(move || deliver(to, &inbox, &empty));
    }
    Ok(())
}

/// Reads at once whatever comes, so that the sender's window never closes because of the delay.
fn receive(mut from: TcpStream, full: &SyncSender<Chunk>, spare: &Receiver<Vec<u8>>, delay: &AtomicU64) {
    loop {
        let mut bytes = spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
        let length = match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let due = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
        // Small chunks don't keep a large buffer under way.
        let bytes = if length < CHUNK_BYTES / 8 { bytes[..length].to_vec() } else { bytes };
        if full.send(Chunk { bytes, length, due }).is_err() {
            return;
        }
    }
}

fn deliver(mut to: TcpStream, inbox: &Receiver<Chunk>, empty: &Sender<Vec<u8>>) {
    while let Ok(Chunk { bytes, length, due }) = inbox.recv() {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        if bytes.len() == CHUNK_BYTES && empty.send(bytes).is_err() {
            // The receiving thread ended; what is under way is still delivered.
            continue;
        }
    }
    // The other side learns of the end when everything has arrived. It may have ended itself.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy in front of a server that sends back what it gets.
    fn echo(round_trip: Duration) -> TcpStream {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut reader = stream.try_clone().unwrap();
            std::io::copy(&mut reader, &mut stream)
        });
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Proxy::start(free, target).unwrap().set_round_trip(round_trip);
        TcpStream::connect(free).unwrap()
    }

    #[test]
    fn a_byte_comes_back_after_a_round_trip() {
        let mut stream = echo(Duration::from_millis(80));
        for _ in 0..3 {
            let started = Instant::now();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            assert!(started.elapsed() >= Duration::from_millis(80));
        }
    }

    #[test]
    fn what_is_under_way_together_arrives_together_and_in_order() {
        let mut stream = echo(Duration::from_millis(200));
        let sent: Vec<u8> = (0..8_000_000u32).map(|number| (number % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let bytes = sent.clone();
        let started = Instant::now();
        let sender = std::thread::spawn(move || writer.write_all(&bytes));
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        sender.join().unwrap().unwrap();
        assert!(received == sent, "bytes were changed");
        // One chunk a round trip would take over six seconds.
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

//! What a member that doesn't read can make a node hold.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use support::{A, Answer, B, Net, SECOND, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

fn hello(node: u64, lane: u8) -> Vec<u8> {
    let mut body = b"LSTP\0\x01\0\x01\0\x16".to_vec();
    body.extend(support::fleet().0.as_bytes());
    body.extend(node.to_be_bytes());
    body.extend([0, 0]);
    body.extend(B.0.to_be_bytes());
    body.extend([lane, 0, 0, 0, 2, 0, 0]);
    frame(1, 0, 0, &body)
}

fn frame(kind: u8, detail: u8, call: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(14 + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend([kind, detail]);
    bytes.extend(call.to_be_bytes());
    bytes.extend(60_000_u32.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// One test: they would see each other's memory.
#[tokio::test(start_paused = true)]
async fn a_member_that_doesnt_read_costs_a_bounded_amount_and_soon_nothing() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, _| async { Bytes::from(vec![1; MIB]) }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    a.call(B, "x").await.expect("answered");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();

    // Asks for a gigabyte of answers on the lane of status, and reads none of it.
    let mut stream = net.open("b:1").expect("open");
    stream.write_all(&hello(A.0, 3)).await.expect("sent");
    stream.read_exact(&mut [0; 4]).await.expect("welcome");
    for call in 0..1_000 {
        if stream.write_all(&frame(4, 3, call, b"more")).await.is_err() {
            break;
        }
        // One after the other, so that each could be served.
        tokio::time::sleep(SECOND / 1_000).await;
    }
    tokio::time::sleep(SECOND).await;
    let peak = MEMORY.peak_usage() - before;
    assert!(peak < 20 * MIB, "{} MiB", peak / MIB);
    tokio::time::sleep(6 * SECOND).await;
    let left = MEMORY.current_usage().saturating_sub(before);
    assert!(left < MIB, "{left} bytes are left");

    // Says that a request is large, and sends none of it.
    MEMORY.reset_peak_usage();
    let mut streams = Vec::new();
    // Each as another node: a newer connection replaces the one before.
    for node in 100..200 {
        let mut stream = net.open("b:1").expect("open");
        stream.write_all(&hello(node, 4)).await.expect("sent");
        stream.read_exact(&mut [0; 4]).await.expect("welcome");
        let mut header = frame(4, 1, 1, b"");
        header[..4].copy_from_slice(&8_000_000_u32.to_be_bytes());
        stream.write_all(&header).await.expect("sent");
        streams.push(stream);
    }
    tokio::time::sleep(SECOND).await;
    let peak = MEMORY.peak_usage() - before;
    assert!(peak < 40 * MIB, "{} MiB (the network in memory is most of it)", peak / MIB);
}

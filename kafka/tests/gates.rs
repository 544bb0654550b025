//! A request whose gate is shut isn't sent; one that was begun ends its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka::connection::{Api, Connection, ConnectionOptions, Gate, Reply};
use kafka::error::Error;
use kafka::frame::FramePool;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

static PROBE: Api = Api { key: 0, name: "Probe", versions: &[(8, false, &[])] };
const WITHIN: Duration = Duration::from_secs(20);
/// What the stream holds before somebody reads.
const STREAM_BYTES: usize = 400;

/// ApiVersions v0: only Produce 8.
const VERSIONS: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 8];

async fn read_request(stream: &mut DuplexStream) -> std::io::Result<(i32, Vec<u8>)> {
    let length = stream.read_i32().await?;
    let mut request = vec![0; length as usize];
    stream.read_exact(&mut request).await?;
    let correlation_id = i32::from_be_bytes(request[4..8].try_into().expect("4 bytes"));
    let client_id_bytes = usize::from(u16::from_be_bytes([request[8], request[9]]));
    Ok((correlation_id, request.split_off(10 + client_id_bytes)))
}

async fn answer(stream: &mut DuplexStream, correlation_id: i32, body: &[u8]) {
    let mut frame = (4 + body.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await.expect("answer");
}

async fn connected() -> (Connection, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(STREAM_BYTES);
    let options = ConnectionOptions {
        client_id: "test".into(),
        request_timeout: WITHIN,
        frames: FramePool::new(1 << 20),
    };
    let versions = async {
        let (id, _) = read_request(&mut far).await.expect("a request");
        answer(&mut far, id, &VERSIONS).await;
    };
    let open = Connection::open(Box::new(near), "broker:9092".into(), &options);
    let (connection, ()) = tokio::join!(open, versions);
    (connection.expect("open"), far)
}

fn gate(open: bool) -> (Arc<AtomicBool>, Gate) {
    let is_open = Arc::new(AtomicBool::new(open));
    let asked = is_open.clone();
    (is_open, Arc::new(move || asked.load(Ordering::Relaxed)))
}

async fn start(connection: &Connection, byte: u8, size: usize, gate: Option<&Gate>) -> Reply {
    let body = vec![Bytes::from(vec![byte; size])];
    connection.start_gated(&PROBE, body, 1024, WITHIN, gate.cloned()).await.expect("start")
}

#[tokio::test]
async fn a_request_with_a_shut_gate_is_not_sent_and_the_next_one_is() {
    let (connection, mut far) = connected().await;
    let (_, shut) = gate(false);
    let mut held = start(&connection, 1, 10, Some(&shut)).await;
    let mut sent = start(&connection, 2, 10, None).await;
    assert!(matches!(held.wait().await, Err(Error::NotSent { .. })));
    let (id, body) = read_request(&mut far).await.expect("a request");
    assert_eq!(body, [2; 10]);
    answer(&mut far, id, &[7]).await;
    assert_eq!(sent.wait().await.expect("answer")[..], [7]);
    assert!(connection.closed().is_none());
}

#[tokio::test]
async fn a_gate_that_shuts_behind_a_slow_stream_holds_back_what_is_not_begun() {
    let (connection, mut far) = connected().await;
    let (is_open, gate) = gate(true);
    let mut first = start(&connection, 1, 3 * STREAM_BYTES, None).await;
    let mut held = start(&connection, 2, 10, Some(&gate)).await;
    let mut last = start(&connection, 3, 10, None).await;
    is_open.store(false, Ordering::Relaxed);
    for (byte, reply) in [(1, &mut first), (3, &mut last)] {
        let (id, body) = read_request(&mut far).await.expect("a request");
        assert_eq!(body[0], byte);
        answer(&mut far, id, &[byte]).await;
        assert_eq!(reply.wait().await.expect("answer")[..], [byte]);
    }
    assert!(matches!(held.wait().await, Err(Error::NotSent { .. })));
}

#[tokio::test]
async fn a_gate_that_shuts_in_the_middle_of_a_frame_ends_the_connection_without_the_rest() {
    let (connection, mut far) = connected().await;
    let (is_open, gate) = gate(true);
    let mut begun = start(&connection, 1, 3 * STREAM_BYTES, Some(&gate)).await;
    is_open.store(false, Ordering::Relaxed);
    let end = read_request(&mut far).await.expect_err("half a frame");
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(matches!(begun.wait().await, Err(Error::Closed { .. })));
}

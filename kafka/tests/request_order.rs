//! Requests of one caller reach the broker whole and in the order in which they were started,
//! whether written at once or by the writer task.

use std::time::Duration;

use bytes::Bytes;
use kafka::connection::{Api, Connection, ConnectionOptions};
use kafka::frame::FramePool;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

static PROBE: Api = Api { key: 0, name: "Probe", versions: &[(8, false, &[])] };
const REQUESTS: u32 = 30_000;
/// Less than most requests: they are written in several steps.
const STREAM_BYTES: usize = 400;
const UNDER_WAY: usize = 60;

/// Length, then key, version, correlation id, client id: what stands before the body.
async fn read_request(stream: &mut DuplexStream) -> (i32, Vec<u8>) {
    let length = stream.read_i32().await.expect("a request");
    let mut request = vec![0; length as usize];
    stream.read_exact(&mut request).await.expect("the whole request");
    let client_id_bytes = usize::from(u16::from_be_bytes([request[8], request[9]]));
    let correlation_id = i32::from_be_bytes(request[4..8].try_into().expect("4 bytes"));
    (correlation_id, request.split_off(10 + client_id_bytes))
}

async fn answer(stream: &mut DuplexStream, correlation_id: i32, body: &[u8]) {
    let mut frame = (4 + body.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await.expect("answer");
}

/// ApiVersions v0: only Produce 8.
const VERSIONS: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 8];

/// Sizes from nothing to several times what the stream holds, in an irregular order.
fn body(number: u32) -> Vec<Bytes> {
    let size = (number.wrapping_mul(2_654_435_761) >> 23) as usize;
    let filler = Bytes::from(vec![number as u8; size]);
    vec![Bytes::copy_from_slice(&number.to_be_bytes()), filler.slice(..size / 3), filler.slice(size / 3..)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn requests_arrive_whole_and_in_the_order_of_their_start() {
    let (near, mut far) = tokio::io::duplex(STREAM_BYTES);
    let broker = tokio::spawn(async move {
        let (id, _) = read_request(&mut far).await;
        answer(&mut far, id, &VERSIONS).await;
        for number in 0..REQUESTS {
            let (id, body) = read_request(&mut far).await;
            assert_eq!(body[..4], number.to_be_bytes(), "request {number} is another");
            assert!(body[4..].iter().all(|byte| *byte == number as u8), "request {number} is mixed");
            answer(&mut far, id, &number.to_be_bytes()).await;
        }
    });
    let options = ConnectionOptions {
        client_id: "test".into(),
        request_timeout: Duration::from_secs(20),
        frames: FramePool::new(1 << 20),
    };
    let connection = Connection::open(Box::new(near), "broker:9092".into(), &options).await.expect("open");
    let mut under_way = std::collections::VecDeque::new();
    for number in 0..REQUESTS {
        if under_way.len() == UNDER_WAY {
            take_answer(&mut under_way).await;
        }
        let reply = connection.start(&PROBE, body(number), 1024, Duration::from_secs(20)).await;
        under_way.push_back((number, reply.expect("start")));
    }
    while !under_way.is_empty() {
        take_answer(&mut under_way).await;
    }
    broker.await.expect("the broker saw all in order");
}

async fn take_answer(under_way: &mut std::collections::VecDeque<(u32, kafka::connection::Reply)>) {
    let (number, mut reply) = under_way.pop_front().expect("a request under way");
    assert_eq!(reply.wait().await.expect("answer")[..], number.to_be_bytes());
}

/// The stream must not live on in what callers still hold.
#[tokio::test]
async fn an_ended_connection_closes_its_stream_though_a_handle_is_left() {
    let (near, mut far) = tokio::io::duplex(STREAM_BYTES);
    let broker = tokio::spawn(async move {
        let (id, _) = read_request(&mut far).await;
        answer(&mut far, id, &VERSIONS).await;
        let (id, _) = read_request(&mut far).await;
        answer(&mut far, id + 1, &[]).await;
        far.read_u8().await.expect_err("the stream is closed").kind()
    });
    let options = ConnectionOptions {
        client_id: "test".into(),
        request_timeout: Duration::from_secs(20),
        frames: FramePool::new(1 << 20),
    };
    let connection = Connection::open(Box::new(near), "broker:9092".into(), &options).await.expect("open");
    let mut reply = connection.start(&PROBE, body(1), 1024, Duration::from_secs(20)).await.expect("start");
    reply.wait().await.expect_err("a wrong correlation id");
    let end = tokio::time::timeout(Duration::from_secs(5), broker).await.expect("closed at once");
    assert_eq!(end.expect("broker"), std::io::ErrorKind::UnexpectedEof);
    assert!(connection.closed().is_some());
}

//! What a broken or hostile broker can do to a connection: end it with a clear error, within the
//! deadline, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use kafka::connection::{BoxedStream, Connection, ConnectionOptions};
use kafka::fetch::{self, Position, TopicPartition};
use kafka::frame::FramePool;
use kafka::{Error, offsets};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

/// ApiVersions v0 of a broker that speaks Fetch 11 and ListOffsets 5.
fn api_versions() -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 3];
    for (key, version) in [(1i16, 11i16), (2, 5), (3, 9)] {
        for field in [key, version, version] {
            body.extend_from_slice(&field.to_be_bytes());
        }
    }
    body
}

async fn read_request(stream: &mut DuplexStream) -> i32 {
    let length = stream.read_i32().await.expect("a request");
    let mut request = vec![0; length as usize];
    stream.read_exact(&mut request).await.expect("the whole request");
    i32::from_be_bytes(request[4..8].try_into().expect("correlation id"))
}

fn frame(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as i32 + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A connection to a broker that answers ApiVersions and then does `evil` with the next request's
/// correlation id: the bytes it sends, and whether it hangs up behind them.
async fn connect(evil: impl FnOnce(i32) -> (Vec<u8>, bool) + Send + 'static) -> Connection {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let correlation_id = read_request(&mut far).await;
        far.write_all(&frame(correlation_id, &api_versions())).await.expect("write");
        let correlation_id = read_request(&mut far).await;
        let (bytes, hang_up) = evil(correlation_id);
        far.write_all(&bytes).await.expect("write");
        if !hang_up {
            std::future::pending::<()>().await;
        }
    });
    let options = ConnectionOptions {
        client_id: "test".into(),
        request_timeout: REQUEST_TIMEOUT,
        frames: FramePool::new(1 << 20),
    };
    Connection::open(Box::new(near) as BoxedStream, "evil:9092".into(), &options).await.expect("open")
}

/// The error of a ListOffsets call, which must come within a second of the deadline.
async fn error_of(evil: impl FnOnce(i32) -> (Vec<u8>, bool) + Send + 'static) -> Error {
    let connection = connect(evil).await;
    let call = offsets::log_ends(&connection, "orders", 0, 3);
    let error = tokio::time::timeout(REQUEST_TIMEOUT + Duration::from_secs(1), call)
        .await
        .expect("an answer within a second of the deadline")
        .expect_err("nothing good can come of this");
    assert!(connection.closed().is_some(), "the connection must not be used again after {error}");
    error
}

#[tokio::test]
async fn a_frame_of_an_impossible_length_ends_the_connection() {
    for length in [i32::MAX, i32::MIN, -1, 0, 3, 1 << 30] {
        let error = error_of(move |_| (length.to_be_bytes().to_vec(), false)).await;
        assert!(matches!(error, Error::Protocol { .. }), "{length}: {error}");
        assert!(error.to_string().contains(&format!("a frame of {length} bytes")), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_correlation_id_ends_the_connection() {
    let error = error_of(|id| (frame(id + 1, &[0; 40]), false)).await;
    assert!(error.to_string().contains("correlation id"), "{error}");
}

#[tokio::test]
async fn half_a_frame_and_silence_is_a_missed_deadline() {
    let error = error_of(|id| (frame(id, &[0; 40])[..20].to_vec(), false)).await;
    assert!(matches!(error, Error::Deadline { what: "ListOffsets", .. }), "{error}");
}

#[tokio::test]
async fn half_a_frame_and_a_hang_up_is_a_closed_connection() {
    let error = error_of(|id| (frame(id, &[0; 40])[..20].to_vec(), true)).await;
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_socket_is_a_missed_deadline() {
    let error = error_of(|_| (Vec::new(), false)).await;
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_count_that_no_frame_could_hold_reserves_nothing() {
    // Throttle time, then two thousand million topics.
    let body = [0i32.to_be_bytes(), i32::MAX.to_be_bytes()].concat();
    let error = error_of(move |id| (frame(id, &body), false)).await;
    assert!(error.to_string().contains("a count larger than the frame"), "{error}");
}

#[tokio::test]
async fn an_answer_about_something_else_is_an_error() {
    let body = [0i32.to_be_bytes(), 0i32.to_be_bytes()].concat();
    let connection = connect(move |id| (frame(id, &body), false)).await;
    let error =
        offsets::log_ends(&connection, "orders", 0, 3).await.expect_err("no such partition in the answer");
    assert!(error.to_string().contains("without orders[0]"), "{error}");
}

#[tokio::test]
async fn a_fetch_answer_of_rubbish_is_an_error_and_not_a_share() {
    let connection = connect(|id| (frame(id, &[0xff; 64]), false)).await;
    let partition = TopicPartition { topic: Arc::from("orders"), partition: 0 };
    let position = Position { topic_id: uuid::Uuid::nil(), offset: 0, leader_epoch: -1 };
    let error = fetch::fetch_once(&connection, &partition, position, 1024).await.expect_err("rubbish");
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

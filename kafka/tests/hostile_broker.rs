//! What a broken or hostile broker can do to a connection: end it with a clear error, within a
//! second of the deadline and 16 MiB of memory, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use kafka::connection::{BoxedStream, CONTROL_FRAME_BYTES_MAX, Connection, ConnectionOptions};
use kafka::fetch::{self, Position, TopicPartition};
use kafka::frame::FramePool;
use kafka::{Error, batch, filler, offsets, producers};
use peak_alloc::PeakAlloc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);
/// Beyond it, an answer counts as not given.
const AFTER_DEADLINE_MAX: Duration = Duration::from_secs(1);
/// 170 bytes take five times the timeout.
const DRIP_EVERY: Duration = Duration::from_millis(10);
const GROWTH_BYTES_MAX: usize = 16 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Time and memory from its making on. Allocations are counted for the whole process, so tests
/// here run one at a time.
struct Measured {
    what: &'static str,
    allocated_bytes: usize,
    started: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Measured {
    async fn start(what: &'static str) -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        ALLOCATOR.reset_peak_usage();
        let allocated_bytes = ALLOCATOR.current_usage();
        Self { what, allocated_bytes, started: Instant::now(), _alone: alone }
    }

    fn check(self) {
        let growth = ALLOCATOR.peak_usage().saturating_sub(self.allocated_bytes);
        let took = self.started.elapsed();
        eprintln!("{}: {} KiB, {} ms", self.what, growth / 1024, took.as_millis());
        assert!(growth <= GROWTH_BYTES_MAX, "{}: grew by {growth} bytes", self.what);
        assert!(took <= REQUEST_TIMEOUT + AFTER_DEADLINE_MAX, "{}: took {took:?}", self.what);
    }
}

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

/// What a broker does with the request after ApiVersions.
enum Evil {
    /// Sends these bytes and goes on living.
    Send(Vec<u8>),
    SendAndHangUp(Vec<u8>),
    /// Sends these bytes one at a time.
    Drip(Vec<u8>),
}

/// A connection to a broker that answers ApiVersions and then does `evil` with the next request's
/// correlation id.
async fn connect(evil: impl FnOnce(i32) -> Evil + Send + 'static) -> Connection {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let correlation_id = read_request(&mut far).await;
        far.write_all(&frame(correlation_id, &api_versions())).await.expect("write");
        let correlation_id = read_request(&mut far).await;
        // A client that has had enough closes, and is right: errors end this and nothing more.
        match evil(correlation_id) {
            Evil::Send(bytes) => {
                let _ = far.write_all(&bytes).await;
                std::future::pending::<()>().await;
            }
            Evil::SendAndHangUp(bytes) => {
                let _ = far.write_all(&bytes).await;
            }
            Evil::Drip(bytes) => {
                for byte in bytes {
                    let _ = far.write_all(&[byte]).await;
                    tokio::time::sleep(DRIP_EVERY).await;
                }
            }
        }
    });
    open(near).await.expect("open")
}

async fn open(stream: DuplexStream) -> Result<Connection, Error> {
    let options = ConnectionOptions {
        client_id: "test".into(),
        request_timeout: REQUEST_TIMEOUT,
        frames: FramePool::new(1 << 20),
    };
    Connection::open(Box::new(stream) as BoxedStream, "evil:9092".into(), &options).await
}

/// The error of a ListOffsets call, after which the connection must not be used again.
async fn error_of(what: &'static str, evil: impl FnOnce(i32) -> Evil + Send + 'static) -> Error {
    let measured = Measured::start(what).await;
    let connection = connect(evil).await;
    let error =
        offsets::log_ends(&connection, "orders", 0, 3).await.expect_err("nothing good can come of this");
    assert!(connection.closed().is_some(), "the connection must not be used again after {error}");
    measured.check();
    assert!(error.to_string().contains("evil:9092"), "the broker isn't named: {error}");
    error
}

/// The error of one fetch.
async fn fetch_error_of(what: &'static str, evil: impl FnOnce(i32) -> Evil + Send + 'static) -> Error {
    let measured = Measured::start(what).await;
    let connection = connect(evil).await;
    let error = fetch(&connection).await.expect_err("nothing good can come of this");
    measured.check();
    error
}

async fn fetch(connection: &Connection) -> Result<fetch::Share, Error> {
    let partition = TopicPartition { topic: Arc::from("orders"), partition: 0 };
    let position = Position { topic_id: uuid::Uuid::nil(), offset: 0, leader_epoch: -1 };
    fetch::fetch_once(connection, &partition, position, 1024).await
}

/// Fetch v11 of orders[0] with these records.
fn fetch_response(records: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 10];
    body.extend_from_slice(&1i32.to_be_bytes());
    body.extend_from_slice(&6i16.to_be_bytes());
    body.extend_from_slice(b"orders");
    body.extend_from_slice(&1i32.to_be_bytes());
    body.extend_from_slice(&[0; 4 + 2 + 8 + 8 + 8 + 4 + 4]);
    body.extend_from_slice(&(records.len() as i32).to_be_bytes());
    body.extend_from_slice(records);
    body
}

fn batch_bytes(count: i32) -> Vec<u8> {
    let out = filler::filler_batch(0, count).readdress(7, 1, 0);
    [out.head, out.payload].concat()
}

#[tokio::test]
async fn a_frame_of_an_impossible_length_ends_the_connection() {
    for length in [i32::MAX, i32::MIN, -1, 0, 3, 1 << 30] {
        let error = error_of("impossible length", move |_| Evil::Send(length.to_be_bytes().to_vec())).await;
        assert!(matches!(error, Error::Protocol { .. }), "{length}: {error}");
        assert!(error.to_string().contains(&format!("a frame of {length} bytes")), "{error}");
    }
}

/// As large as a control response may be, and never there: what arrives is all that is reserved.
#[tokio::test]
async fn a_frame_that_claims_all_it_may_and_does_not_come_is_a_missed_deadline() {
    let error = error_of("1 MiB claimed, half of it sent", |id| {
        let mut bytes = (CONTROL_FRAME_BYTES_MAX as i32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.resize(CONTROL_FRAME_BYTES_MAX / 2, 0);
        Evil::Send(bytes)
    })
    .await;
    assert!(matches!(error, Error::Deadline { what: "ListOffsets", .. }), "{error}");
}

/// A batch of 128 MiB is possible; the claim of one costs nothing.
#[tokio::test]
async fn a_fetch_response_that_claims_all_it_may_and_breaks_off_is_a_closed_connection() {
    let error = fetch_error_of("128 MiB claimed, 1 MiB sent, hung up", |id| {
        let mut bytes = (128i32 << 20).to_be_bytes().to_vec();
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.resize(1 << 20, 0);
        Evil::SendAndHangUp(bytes)
    })
    .await;
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_correlation_id_ends_the_connection() {
    for wrong in [1, -1, i32::MAX] {
        let error =
            error_of("wrong correlation id", move |id| Evil::Send(frame(id.wrapping_add(wrong), &[0; 40])))
                .await;
        assert!(error.to_string().contains("correlation id"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let answers =
        |id| Evil::Send([list_offsets(id), list_offsets(id), list_offsets(id), list_offsets(id)].concat());
    let error = error_of("answers that nobody asked for", answers).await;
    let told = error.to_string();
    assert!(told.contains("nobody asked for") || told.contains("correlation id"), "{error}");
}

fn list_offsets(correlation_id: i32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&1i32.to_be_bytes());
    body.extend_from_slice(&6i16.to_be_bytes());
    body.extend_from_slice(b"orders");
    body.extend_from_slice(&1i32.to_be_bytes());
    body.extend_from_slice(&[0; 4 + 2 + 8 + 8 + 4]);
    frame(correlation_id, &body)
}

#[tokio::test]
async fn half_a_frame_and_silence_is_a_missed_deadline() {
    let error = error_of("half a frame", |id| Evil::Send(frame(id, &[0; 40])[..20].to_vec())).await;
    assert!(matches!(error, Error::Deadline { what: "ListOffsets", .. }), "{error}");
}

#[tokio::test]
async fn half_a_frame_and_a_hang_up_is_a_closed_connection() {
    let error =
        error_of("half a frame, hung up", |id| Evil::SendAndHangUp(frame(id, &[0; 40])[..20].to_vec())).await;
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_socket_is_a_missed_deadline() {
    let error = error_of("stalled", |_| Evil::Send(Vec::new())).await;
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
}

/// A deadline is the whole answer's, not the next byte's.
#[tokio::test]
async fn an_answer_that_drips_is_a_missed_deadline() {
    let error = error_of("dripping", |id| Evil::Drip(list_offsets(id).repeat(3))).await;
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_broker_that_answers_nothing_at_all_is_a_missed_deadline() {
    let measured = Measured::start("no answer to ApiVersions").await;
    let (near, _far) = tokio::io::duplex(1 << 20);
    let error = open(near).await.err().expect("no connection");
    measured.check();
    assert!(matches!(error, Error::Deadline { what: "ApiVersions", .. }), "{error}");
}

/// Requests that don't go out have their deadline too.
#[tokio::test]
async fn a_broker_that_reads_nothing_is_a_missed_deadline() {
    let measured = Measured::start("nothing read").await;
    let (near, _far) = tokio::io::duplex(8);
    let error = open(near).await.err().expect("no connection");
    measured.check();
    assert!(matches!(error, Error::Deadline { what: "ApiVersions", .. }), "{error}");
}

#[tokio::test]
async fn a_count_that_no_frame_could_hold_reserves_nothing() {
    // Throttle time, then so many topics.
    for (count, reason) in [(i32::MAX, "a count larger than the frame"), (-2, "a negative count")] {
        let body = [0i32.to_be_bytes(), count.to_be_bytes()].concat();
        let error = error_of("huge count", move |id| Evil::Send(frame(id, &body))).await;
        assert!(error.to_string().contains(reason), "{count}: {error}");
    }
}

/// In any place of any response, whatever the codec would make of it.
#[tokio::test]
async fn a_frame_of_the_largest_numbers_reserves_nothing() {
    for byte in [0xff, 0x7f] {
        let error = error_of("largest numbers", move |id| Evil::Send(frame(id, &[byte; 4096]))).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        let error =
            fetch_error_of("fetch of largest numbers", move |id| Evil::Send(frame(id, &[byte; 4096]))).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn versions_without_end_are_an_error_of_opening() {
    let measured = Measured::start("huge count of versions").await;
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let correlation_id = read_request(&mut far).await;
        let body = [&[0, 0][..], &i32::MAX.to_be_bytes()].concat();
        far.write_all(&frame(correlation_id, &body)).await.expect("write");
        std::future::pending::<()>().await;
    });
    let error = open(near).await.err().expect("no connection");
    measured.check();
    assert!(error.to_string().contains("a count larger than the frame"), "{error}");
}

#[tokio::test]
async fn an_answer_about_something_else_is_an_error() {
    let body = [0i32.to_be_bytes(), 0i32.to_be_bytes()].concat();
    let measured = Measured::start("another topic").await;
    let connection = connect(move |id| Evil::Send(frame(id, &body))).await;
    let error =
        offsets::log_ends(&connection, "orders", 0, 3).await.expect_err("no such partition in the answer");
    measured.check();
    assert!(error.to_string().contains("without orders[0]"), "{error}");
}

/// What takes the most memory for its bytes once it is decoded.
#[tokio::test]
async fn a_response_of_nothing_but_empty_elements_stays_within_the_bound() {
    // ListOffsets v5: throttle time, then topics of an empty name and no partitions each.
    let topics = (CONTROL_FRAME_BYTES_MAX - 16) / 6;
    let mut body = vec![0; 4];
    body.extend_from_slice(&(topics as i32).to_be_bytes());
    body.resize(8 + 6 * topics, 0);
    let measured = Measured::start("1 MiB of empty topics").await;
    let connection = connect(move |id| Evil::Send(frame(id, &body))).await;
    let error = offsets::log_ends(&connection, "orders", 0, 3).await.expect_err("only empty topics");
    measured.check();
    assert!(error.to_string().contains("without orders[0]"), "{error}");
}

/// A broker that speaks none of our versions isn't asked.
#[tokio::test]
async fn a_request_the_broker_does_not_know_is_not_sent() {
    let measured = Measured::start("unsupported").await;
    let connection = connect(|_| panic!("nothing was to be sent")).await;
    let error = producers::describe_producers(&connection, "orders", 0).await.expect_err("not offered");
    measured.check();
    assert!(matches!(error, Error::Unsupported { api: "DescribeProducers", .. }), "{error}");
    let told = "supports DescribeProducers in no version; lockstep needs version 0";
    assert!(error.to_string().ends_with(told), "{error}");
}

#[tokio::test]
async fn a_fetch_answer_of_rubbish_is_an_error_and_not_a_share() {
    let error = fetch_error_of("rubbish", |id| Evil::Send(frame(id, &[0xff; 64]))).await;
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

/// What is cut of a fetch response with these records.
async fn cut_of(what: &'static str, records: Vec<u8>) -> batch::Cut {
    let measured = Measured::start(what).await;
    let connection = connect(move |id| Evil::Send(frame(id, &fetch_response(&records)))).await;
    let share = fetch(&connection).await.expect("a share");
    let cut = batch::cut(&share.records, 0);
    measured.check();
    cut
}

#[tokio::test]
async fn a_batch_with_a_wrong_crc_is_an_obstacle_and_handed_to_nobody() {
    let good = cut_of("good batch", batch_bytes(3)).await;
    assert_eq!((good.batches.len(), good.obstacle), (1, None));
    let mut records = batch_bytes(3);
    *records.last_mut().expect("a byte") ^= 1;
    let cut = cut_of("wrong CRC", records).await;
    assert!(cut.batches.is_empty());
    let Some(batch::Obstacle::Corrupt { offset: 0, reason }) = cut.obstacle else { panic!("{cut:?}") };
    assert!(reason.contains("CRC32C"), "{reason}");
}

#[tokio::test]
async fn a_batch_of_a_wrong_length_or_count_is_an_obstacle_or_waited_for() {
    for length in [i32::MIN, -1, 0, 20] {
        let mut records = batch_bytes(3);
        records[8..12].copy_from_slice(&length.to_be_bytes());
        let cut = cut_of("wrong batch length", records).await;
        assert!(cut.batches.is_empty());
        assert!(
            matches!(cut.obstacle, Some(batch::Obstacle::Corrupt { offset: 0, .. })),
            "{length}: {cut:?}"
        );
    }
    let mut records = batch_bytes(3);
    records[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let cut = cut_of("batch of 2 GiB", records).await;
    assert_eq!((cut.batches.len(), cut.obstacle), (0, None), "taken for one that is cut off");
    let mut records = batch_bytes(3);
    records[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let crc = crc32c::crc32c(&records[21..]);
    records[17..21].copy_from_slice(&crc.to_be_bytes());
    let cut = cut_of("two thousand million records", records).await;
    assert!(matches!(cut.obstacle, Some(batch::Obstacle::Thinned { .. })), "{cut:?}");
}

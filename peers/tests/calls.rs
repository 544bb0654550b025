//! Calls between nodes, and what becomes of them when the other end does anything but answer.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peers::transport::CALL_BYTES_MAX;
use peers::{Call, CallError, Service};
use support::{A, Answer, B, Net, SECOND, Spec, book, echo, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_call_carries_bytes_there_and_back_and_tells_who_calls() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|from, service: Service, request: Bytes| async move {
        format!("{from} {} {}", service.name(), request.len()).into()
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    for service in [Service::Raft, Service::Fleet, Service::Status] {
        let answer = a.transport.call(B, service, "four".into(), SECOND).await.expect("answered");
        assert_eq!(answer, format!("000000000000000a {} 4", service.name()));
    }
    let large = a.call(B, vec![0; 100_000]).await.expect("answered");
    assert_eq!(large, "000000000000000a raft 100000");
    assert_eq!(net.dials(), 4, "a connection for each service, and one for what is large");
}

#[tokio::test(start_paused = true)]
async fn a_node_calls_itself_without_a_connection() {
    let net = Net::default();
    let (a, _b) = pair(&net);
    assert_eq!(a.call(A, "myself").await.expect("answered"), "myself");
    assert_eq!(net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_largest_call_passes_and_a_larger_one_is_not_sent() {
    let net = Net::default();
    let (a, _b) = pair(&net);
    let largest = Bytes::from(vec![7; CALL_BYTES_MAX]);
    assert_eq!(a.call(B, largest.clone()).await.expect("answered"), largest);
    let error = a.call(B, vec![7; CALL_BYTES_MAX + 1]).await.expect_err("too large");
    assert_eq!(error, CallError::TooLarge { bytes: CALL_BYTES_MAX + 1, max: CALL_BYTES_MAX });
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_fails_that_call_alone() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, request: Bytes| async move {
        if request == "much" { vec![0; CALL_BYTES_MAX + 1].into() } else { request }
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let (much, little) = tokio::join!(a.call(B, "much"), a.call(B, "little"));
    let error = much.expect_err("too large").to_string();
    assert_eq!(error, "node 000000000000000b gives no answer: its answer has 8388609 bytes, 8388608 at most");
    assert_eq!(little.expect("answered"), "little");
    assert_eq!(net.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_calls_share_a_connection_and_get_their_own_answers() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    // The first are answered last.
    b.serve = Arc::new(Answer(|_, _, request: Bytes| async move {
        tokio::time::sleep(Duration::from_millis(200 - u64::from(request[0]))).await;
        request
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let a = Arc::new(a);
    let calls: Vec<_> = (0..30_u8)
        .map(|i| {
            let a = a.clone();
            tokio::spawn(async move { (i, a.call(B, vec![i]).await) })
        })
        .collect();
    for call in calls {
        let (i, answer) = call.await.expect("no panic");
        assert_eq!(answer.expect("answered"), vec![i]);
    }
    assert_eq!(net.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_frees_its_place_and_its_late_answer_is_dropped() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, request: Bytes| async move {
        if request.starts_with(b"slow") {
            tokio::time::sleep(SECOND).await;
        }
        request
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let within = Duration::from_millis(500);
    // Twice as many as may be under way: those that were given up are among them.
    for _ in 0..4 {
        let slow = (0..16).map(|_| a.transport.call(B, Service::Raft, "slow".into(), within));
        for answer in futures_all(slow).await {
            assert_eq!(answer, Err(CallError::Deadline { node: B, within }));
        }
        let began = Instant::now();
        assert_eq!(a.call(B, "quick").await.expect("answered"), "quick");
        assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    }
    assert_eq!(net.dials(), 1, "late answers break nothing");
}

async fn futures_all<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.expect("no panic"));
    }
    done
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_bound_are_turned_away_at_once() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, _| std::future::pending::<Bytes>()));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let calls = (0..300).map(|_| a.transport.call(B, Service::Raft, "x".into(), SECOND));
    let answers = futures_all(calls).await;
    let busy = answers.iter().filter(|answer| **answer == Err(CallError::Busy(B))).count();
    let late = answers.iter().filter(|answer| matches!(answer, Err(CallError::Deadline { .. }))).count();
    assert_eq!((busy, late), (300 - 256, 256));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_given_up_and_its_places_come_back() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    let under_way = Arc::new(AtomicUsize::new(0));
    let counted = under_way.clone();
    b.serve = Arc::new(Answer(move |_, _, request: Bytes| {
        let counted = counted.clone();
        async move {
            if request == "hang" {
                let _one = Counted::new(&counted);
                std::future::pending::<()>().await;
            }
            request
        }
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let within = Duration::from_millis(100);
    // All the places that one caller has at the called node.
    for _ in 0..2 {
        let hung = (0..32).map(|_| a.transport.call(B, Service::Raft, "hang".into(), within));
        futures_all(hung).await;
    }
    assert_eq!(under_way.load(Ordering::SeqCst), 64);
    assert_eq!(a.call(B, "x").await, Err(CallError::Busy(B)), "it says so and doesn't hang");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(under_way.load(Ordering::SeqCst), 0);
    assert_eq!(a.call(B, "x").await.expect("answered"), "x");
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_says_nothing_costs_a_call_its_deadline() {
    let net = Net::default();
    let mut silent = net.listener("b:1");
    let a = Spec::new(&net, A, "a:1").start();
    let began = Instant::now();
    let error = a.call(B, "x").await.expect_err("no answer");
    assert_eq!(began.elapsed(), SECOND);
    assert!(error.to_string().ends_with("can't be reached: no connection to it so far"), "{error}");
    let _held = silent.next().await;
    // Later ones learn what is wrong, and don't wait for it.
    tokio::time::sleep(Duration::from_millis(1_010)).await;
    let error = a.call(B, "x").await.expect_err("no answer");
    assert!(error.to_string().ends_with("no connection within 2s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_dead_is_replaced_within_seconds() {
    let net = Net::default();
    let mut listener = net.listener("b:1");
    let a = Spec::new(&net, A, "a:1").start();
    // Welcomes, and then is gone without a trace.
    let welcoming = tokio::spawn(async move {
        let mut stream = listener.next().await;
        read_frame(&mut stream).await;
        stream.write_all(&welcome()).await.expect("sent");
        stream
    });
    for _ in 0..4 {
        a.call(B, "x").await.expect_err("no answer");
    }
    let _held = welcoming.await.expect("no panic");
    let _b = Spec::new(&net, B, "b:1").start();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(a.call(B, "x").await.expect("answered"), "x");
    assert_eq!(net.dials(), 2);
}

async fn read_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let length = stream.read_u32().await.expect("a length");
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.expect("a frame");
    frame
}

fn frame(kind: u8, detail: u8, call: u64, within_ms: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(14 + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend([kind, detail]);
    bytes.extend(call.to_be_bytes());
    bytes.extend(within_ms.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn welcome() -> Vec<u8> {
    let mut body = 1_u16.to_be_bytes().to_vec();
    text(&mut body, &support::fleet().0);
    body.extend(B.0.to_be_bytes());
    frame(2, 0, 0, 0, &body)
}

fn hello(versions: [u16; 2]) -> Vec<u8> {
    let mut body = b"LSTP".to_vec();
    body.extend(versions.iter().flat_map(|version| version.to_be_bytes()));
    text(&mut body, &support::fleet().0);
    body.extend(A.0.to_be_bytes());
    text(&mut body, "a:1");
    body.extend(B.0.to_be_bytes());
    body.push(1);
    body.extend(2_u32.to_be_bytes());
    text(&mut body, "0.1.0");
    frame(1, 0, 0, 0, &body)
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_before_it_left_is_not_sent() {
    let net = Net::default();
    let mut listener = net.listener("b:1");
    let a = Spec::new(&net, A, "a:1").start();
    let welcoming = async {
        let mut stream = listener.next().await;
        read_frame(&mut stream).await;
        stream.write_all(&welcome()).await.expect("sent");
        stream
    };
    // More than the network holds, so that the others wait behind it.
    let given_up =
        |byte: u8| a.transport.call(B, Service::Raft, vec![byte; 200_000].into(), Duration::from_millis(100));
    let (_, mut stream) = tokio::join!(given_up(0), welcoming);
    for byte in 1..5 {
        given_up(byte).await.expect_err("nobody reads");
    }
    let kept = tokio::spawn(a.transport.call(B, Service::Raft, vec![9; 200_000].into(), SECOND));
    let first = read_frame(&mut stream).await;
    assert_eq!(first.last(), Some(&0), "it was half sent");
    assert_eq!(read_frame(&mut stream).await.last(), Some(&9));
    kept.abort();
}

#[tokio::test(start_paused = true)]
async fn a_large_call_that_is_stuck_holds_up_no_small_one() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, request: Bytes| async move {
        match request.len() {
            1 => request,
            _ => std::future::pending().await,
        }
    }));
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let large = a.transport.call(B, Service::Raft, vec![0; CALL_BYTES_MAX].into(), 10 * SECOND);
    let large = tokio::spawn(large);
    tokio::time::sleep(SECOND).await;
    let began = Instant::now();
    a.call(B, "x").await.expect("answered");
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    assert!(matches!(large.await.expect("no panic"), Err(CallError::Deadline { .. })), "not cut off either");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_restarts_elsewhere_is_found_by_its_own_call() {
    let net = Net::default();
    let (a, b) = pair(&net);
    a.call(B, "x").await.expect("answered");
    b.transport.stop();
    drop(b);
    let _gone = net.listener("b:1");
    drop(_gone);
    let lost = Instant::now();
    while lost.elapsed() < 5 * SECOND {
        assert!(matches!(a.call(B, "x").await, Err(CallError::Unreachable { .. })));
    }
    let b = Spec::new(&net, B, "b:2").start();
    b.call(A, "here I am").await.expect("answered");
    assert_eq!(a.call(B, "x").await.expect("found at once, though it was lost"), "x");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_restarts_elsewhere_is_found_by_the_catalog() {
    let net = Net::default();
    let a = Spec::new(&net, A, "a:1").start();
    a.call(B, "x").await.expect_err("not there");
    let _b = Spec::new(&net, B, "b:2").start();
    a.book.send_replace(Arc::new(book(&[(A, "a:1"), (B, "b:2")])));
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.call(B, "x").await.expect("answered"), "x");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_an_address_is_said_to_be_so() {
    let net = Net::default();
    let mut a = Spec::new(&net, A, "a:1");
    a.book = book(&[(A, "a:1")]);
    let a = a.start();
    assert_eq!(a.call(B, "x").await, Err(CallError::NoAddress(B)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_dialled_ever_more_rarely_and_calls_to_it_fail_at_once() {
    let net = Net::default();
    let a = Spec::new(&net, A, "a:1").start();
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < 10 * SECOND {
        a.call(B, "x").await.expect_err("not there");
        calls += 1;
    }
    assert!((10..30).contains(&net.dials()), "{} dials", net.dials());
    assert!((400..=500).contains(&calls), "{calls} calls: neither waiting nor spinning");
}

#[tokio::test(start_paused = true)]
async fn who_was_heard_of_and_when() {
    let net = Net::default();
    let (a, b) = pair(&net);
    assert_eq!(a.transport.heard().since(B), None);
    a.call(B, "x").await.expect("answered");
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.transport.heard().since(B), Some(SECOND), "by its answer");
    assert_eq!(b.transport.heard().since(A), Some(SECOND), "by its request");
    b.call(A, "x").await.expect("answered");
    assert_eq!(a.transport.heard().since(B), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_made_again() {
    let net = Net::default();
    let (a, _b) = pair(&net);
    for (wait, dials) in [(0, 1), (30, 1), (30, 1), (70, 2)] {
        tokio::time::sleep(wait * SECOND).await;
        a.call(B, "x").await.expect("answered");
        assert_eq!(net.dials(), dials);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_says_so_and_closes_everything() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.serve = Arc::new(Answer(|_, _, request: Bytes| async move {
        if request == "hang" { std::future::pending().await } else { request }
    }));
    let (a, b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let hung = tokio::spawn(a.transport.call(B, Service::Raft, "hang".into(), 10 * SECOND));
    tokio::time::sleep(SECOND).await;
    b.transport.stop();
    let error = hung.await.expect("no panic").expect_err("in doubt");
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert_eq!(b.call(A, "x").await, Err(CallError::Stopping));
    assert!(a.call(B, "x").await.is_err(), "nobody takes connections");
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_and_then_silence_is_closed() {
    let net = Net::default();
    let (_a, _b) = pair(&net);
    for sent in [frame(4, 1, 1, 1_000, b"whole")[..12].to_vec(), 60_000_u32.to_be_bytes().to_vec()] {
        let mut stream = net.open("b:1").expect("open");
        stream.write_all(&hello([1, 1])).await.expect("sent");
        assert_eq!(read_frame(&mut stream).await[0], 2, "welcome");
        stream.write_all(&sent).await.expect("sent");
        let began = Instant::now();
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
        assert!(began.elapsed() <= 5 * SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_too_large_or_of_no_known_kind_is_closed() {
    let net = Net::default();
    let (a, _b) = pair(&net);
    let too_large = 100_000_u32.to_be_bytes().to_vec();
    for sent in [too_large, frame(99, 0, 0, 0, b""), frame(1, 0, 0, 0, b""), vec![0; 4]] {
        let mut stream = net.open("b:1").expect("open");
        stream.write_all(&hello([1, 1])).await.expect("sent");
        assert_eq!(read_frame(&mut stream).await[0], 2, "welcome");
        stream.write_all(&sent).await.expect("sent");
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
    }
    assert_eq!(a.call(B, "x").await.expect("others are served"), "x");
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_of_the_same_node_ends_the_one_before() {
    let net = Net::default();
    let _b = Spec::new(&net, B, "b:1").start();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = net.open("b:1").expect("open");
        stream.write_all(&hello([1, 1])).await.expect("sent");
        assert_eq!(read_frame(&mut stream).await[0], 2, "welcome");
        streams.push(stream);
    }
    let began = Instant::now();
    assert_eq!(streams[0].read(&mut [0]).await.expect("closed"), 0);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    streams[1].write_all(&frame(4, 1, 6, 1_000, b"x")).await.expect("sent");
    assert_eq!(read_frame(&mut streams[1]).await[0], 5, "answered");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_told_so_and_the_connection_stays() {
    let net = Net::default();
    let (_a, _b) = pair(&net);
    let mut stream = net.open("b:1").expect("open");
    stream.write_all(&hello([1, 1])).await.expect("sent");
    read_frame(&mut stream).await;
    stream.write_all(&frame(4, 77, 5, 1_000, b"x")).await.expect("sent");
    let answer = read_frame(&mut stream).await;
    assert_eq!((answer[0], answer[1], answer[9]), (6, 4, 5), "unanswered, no such service, that call");
    stream.write_all(&frame(4, 1, 6, 1_000, b"x")).await.expect("sent");
    assert_eq!(read_frame(&mut stream).await[0], 5, "answered");
}

#[tokio::test(start_paused = true)]
async fn versions_that_have_none_in_common_are_told_so() {
    let net = Net::default();
    let (_a, _b) = pair(&net);
    for (versions, kind) in [([2, 3], 3), ([0, 0], 3), ([1, 9], 2), ([0, 1], 2)] {
        let mut stream = net.open("b:1").expect("open");
        stream.write_all(&hello(versions)).await.expect("sent");
        let answer = read_frame(&mut stream).await;
        assert_eq!(answer[0], kind, "{versions:?}");
        if kind == 3 {
            let words = String::from_utf8_lossy(&answer[14..]).into_owned();
            let which = if versions[0] > 1 { "the called" } else { "the calling" };
            assert!(words.ends_with(&format!("upgrade {which} one")), "{words}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_callers_that_say_nothing_keep_no_member_out() {
    let net = Net::default();
    let (a, _b) = pair(&net);
    let mut silent: Vec<_> = (0..5_000).map(|_| net.open("b:1").expect("open")).collect();
    assert_eq!(a.call(B, "x").await.expect("answered"), "x");
    let began = Instant::now();
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0, "none is kept");
    }
    assert!(began.elapsed() < 4 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_isnt_this_protocol_is_told_so() {
    let net = Net::default();
    let (_a, _b) = pair(&net);
    let mut stream = net.open("b:1").expect("open");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let answer = read_frame(&mut stream).await;
    assert_eq!((answer[0], answer[1]), (3, 6));
    assert!(String::from_utf8_lossy(&answer).ends_with("is this the peer address of a node?"));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_something_else_is_told_apart() {
    let net = Net::default();
    let mut other = net.listener("b:1");
    let a = Spec::new(&net, A, "a:1").start();
    tokio::spawn(async move {
        other.next().await.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
    });
    assert_eq!(
        a.refusal(B).await,
        "garbage: what came isn't this protocol: is this the peer address of a node?"
    );
}

mod rubbish {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_bytes_make_a_node_panic_or_stop_serving(
            greets: bool,
            rubbish in prop::collection::vec(any::<u8>(), 0..300),
            kind in 0..14_u8,
            framed: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let net = Net::default();
                let mut b = Spec::new(&net, B, "b:1");
                b.serve = echo();
                let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
                let mut stream = net.open("b:1").expect("open");
                if greets {
                    stream.write_all(&hello([1, 1])).await.expect("sent");
                }
                let sent = if framed { frame(kind, 1, 1, 1, &rubbish) } else { rubbish };
                // It may have been closed by then.
                let _ = stream.write_all(&sent).await;
                assert_eq!(a.call(B, "x").await.expect("answered"), "x");
                drop(stream);
                // The same to one that calls.
                a.transport.stop();
                let mut listener = net.listener("b:1");
                let a = Spec::new(&net, A, "a:2").start();
                let calling = tokio::spawn(async move { a.call(B, "x").await });
                let mut stream = listener.next().await;
                if greets {
                    stream.write_all(&welcome()).await.expect("sent");
                }
                let _ = stream.write_all(&sent).await;
                drop(stream);
                let _ = calling.await.expect("no panic");
            });
        }
    }
}

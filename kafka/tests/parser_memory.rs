//! However damaged a response is, it neither ends the process nor makes it reserve more memory than
//! its own size warrants. One test, as allocations are counted for the whole process.

use kafka::frame::{FramePool, TAKEN_WHOLE_BYTES_MAX, kept_bytes};
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

mod support;
use support::{PARSERS, any_response, damage, damaged, parse};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes allocated at the peak of `run`, beyond those before it.
fn growth_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}

/// A decoded element takes more than its bytes on the wire: an empty config synonym is 5 bytes
/// there, and about 100 here. An error may come with a backtrace.
fn growth_max(frame_bytes: usize) -> usize {
    64 * 1024 + 64 * frame_bytes
}

#[test]
fn no_parser_panics_or_reserves_beyond_what_arrived() {
    a_count_behind_a_tagged_field_that_is_longer_than_its_kind();
    a_damaged_response();
    rubbish();
    a_frame();
}

/// The codec takes the 13 bytes of a snapshot id, whatever length is said, and would read the rest of
/// the field as the next partition: with four thousand million aborted transactions.
fn a_count_behind_a_tagged_field_that_is_longer_than_its_kind() {
    const PARTITION: [u8; 30] = [0; 30];
    let parser = PARSERS.iter().find(|parser| parser.name == "FETCH_V13").expect("a parser");
    let hidden = [&[0; 13][..], &PARTITION, &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let body = [
        &[0; 10][..],
        // One topic with its id, two partitions.
        &[2],
        &[0; 16],
        &[3],
        // No aborted transactions, no preferred replica, no records; one tagged field.
        &PARTITION,
        &[1, 0, 0, 0, 0, 1],
        &[1, 2, hidden.len() as u8],
        &hidden,
        &PARTITION,
        &[1, 0, 0, 0, 0, 1],
        // No tags of the second partition, the topic and the response.
        &[0, 0, 0],
    ]
    .concat();
    let (found, growth) = growth_of(|| parse(parser, &body));
    assert_eq!(found, None, "it isn't of the shape");
    assert!(growth <= growth_max(body.len()), "{growth} bytes for {}", body.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    fn a_damaged_response((index, body) in any_response(), damages in vec(damage(), 1..4)) {
        let parser = &PARSERS[index];
        let body = damaged(body, &damages);
        let (_, growth) = growth_of(|| parse(parser, &body));
        prop_assert!(growth <= growth_max(body.len()), "{}: {growth} bytes for {}", parser.name, body.len());
    }

    fn rubbish(index in 0..PARSERS.len(), body in vec(any::<u8>(), 0..300)) {
        let parser = &PARSERS[index];
        let (_, growth) = growth_of(|| parse(parser, &body));
        prop_assert!(growth <= growth_max(body.len()), "{}: {growth} bytes for {}", parser.name, body.len());
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// In pieces of any size, and with a length that may be a lie. A buffer of the pool's sizes is
    /// taken whole, though no page of it is touched before its bytes arrive; of a longer one no more
    /// than twice what arrived.
    fn a_frame(
        arrives in 0usize..600_000,
        claimed_beyond in prop_oneof![
            Just(0usize),
            1..TAKEN_WHOLE_BYTES_MAX,
            TAKEN_WHOLE_BYTES_MAX..2_000_000_000usize,
        ],
        piece in 1usize..100_000,
    ) {
        let bytes: Vec<u8> = (0..arrives).map(|at| (at % 251) as u8).collect();
        let (found, growth) = growth_of(|| run(async {
            let (mut near, mut far) = tokio::io::duplex(piece);
            let pool = FramePool::new(0);
            let send = async move { near.write_all(&bytes).await.map(|()| bytes) };
            let (sent, found) = tokio::join!(send, pool.read(&mut far, arrives + claimed_beyond));
            found.map(|frame| frame == sent.expect("a duplex takes all"))
        }));
        match claimed_beyond {
            0 => prop_assert!(found.expect("the whole frame")),
            _ => prop_assert_eq!(found.expect_err("cut short").kind(), std::io::ErrorKind::UnexpectedEof),
        }
        let buffer = match kept_bytes(arrives + claimed_beyond) {
            whole if whole <= TAKEN_WHOLE_BYTES_MAX => whole,
            _ => arrives + 512 * 1024,
        };
        prop_assert!(growth <= arrives + buffer + 64 * 1024 + piece, "{growth} bytes for {arrives}");
    }
}

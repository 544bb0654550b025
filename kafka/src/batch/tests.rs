use super::*;
use proptest::prelude::*;

fn batch(base_offset: i64, count: i32, attributes: i16, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend_from_slice(&base_offset.to_be_bytes());
    b.extend_from_slice(&((HEADER_BYTES - LENGTH_OVERHEAD + payload.len()) as i32).to_be_bytes());
    b.extend_from_slice(&3i32.to_be_bytes());
    b.push(2);
    b.extend_from_slice(&[0; 4]);
    b.extend_from_slice(&attributes.to_be_bytes());
    b.extend_from_slice(&(count - 1).to_be_bytes());
    b.extend_from_slice(&1_700_000_000_000i64.to_be_bytes());
    b.extend_from_slice(&1_700_000_000_009i64.to_be_bytes());
    b.extend_from_slice(&(-1i64).to_be_bytes());
    b.extend_from_slice(&(-1i16).to_be_bytes());
    b.extend_from_slice(&(-1i32).to_be_bytes());
    b.extend_from_slice(&count.to_be_bytes());
    b.extend_from_slice(payload);
    seal(&mut b);
    b
}

fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn cut_of(bytes: Vec<u8>, position: i64) -> (Vec<i64>, Option<Obstacle>) {
    let cut = cut(&Bytes::from(bytes), position);
    (cut.batches.iter().map(|b| b.header.base_offset).collect(), cut.obstacle)
}

#[test]
fn batches_are_cut_up_to_a_truncated_one() {
    let mut bytes = [batch(10, 3, 0, b"abc"), batch(13, 1, 0, b"d"), batch(14, 9, 0, b"rest")].concat();
    bytes.truncate(bytes.len() - 1);
    assert_eq!(cut_of(bytes, 10), (vec![10, 13], None));
}

#[test]
fn batches_before_the_position_are_passed_over() {
    let bytes = [batch(10, 3, 0, b"abc"), batch(13, 1, 0, b"d")].concat();
    assert_eq!(cut_of(bytes, 13), (vec![13], None));
}

#[test]
fn what_cannot_be_taken_as_it_is_stops_the_cut_with_the_offset() {
    let first = || batch(0, 2, 0, b"ab");
    let after = |next: Vec<u8>| cut_of([first(), next].concat(), 0);
    assert_eq!(after(batch(5, 1, 0, b"x")).1, Some(Obstacle::Hole { from: 2, to: 5 }));
    assert_eq!(after(batch(2, 1, CONTROL_BIT, b"x")).1, Some(Obstacle::Control { offset: 2 }));
    assert_eq!(after(batch(2, 1, TRANSACTIONAL_BIT, b"x")).1, Some(Obstacle::Transactional { offset: 2 }));
    assert_eq!(after(batch(2, 1, TIMESTAMP_TYPE_BIT, b"x")).1, Some(Obstacle::LogAppendTime { offset: 2 }));
    assert_eq!(cut_of(first(), 1), (vec![], Some(Obstacle::Inside { offset: 1, base_offset: 0 })));
    let mut thinned = batch(2, 4, 0, b"x");
    thinned[57..61].copy_from_slice(&3i32.to_be_bytes());
    seal(&mut thinned);
    assert_eq!(after(thinned).1, Some(Obstacle::Thinned { offset: 2, last_offset: 5, record_count: 3 }));
    let mut old = batch(2, 1, 0, b"x");
    old[16] = 1;
    assert_eq!(after(old), (vec![0], Some(Obstacle::OldFormat { offset: 2, magic: 1 })));
}

#[test]
fn one_small_message_of_an_old_format_is_seen() {
    let mut message = vec![0u8; 30];
    message[8..12].copy_from_slice(&18i32.to_be_bytes());
    message[16] = 1;
    assert_eq!(cut_of(message, 0), (vec![], Some(Obstacle::OldFormat { offset: 0, magic: 1 })));
}

#[test]
fn a_flipped_bit_is_never_passed_on() {
    let mut bytes = batch(0, 2, 0, b"some records");
    *bytes.last_mut().expect("byte") ^= 1;
    assert!(matches!(cut_of(bytes, 0), (none, Some(Obstacle::Corrupt { offset: 0, .. })) if none.is_empty()));
}

#[test]
fn a_hostile_length_is_corrupt_and_not_an_endless_loop() {
    for length in [i32::MIN, -1, 0, 20] {
        let mut bytes = batch(0, 1, 0, b"x");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(cut_of(bytes, 0).1, Some(Obstacle::Corrupt { offset: 0, .. })), "{length}");
    }
}

proptest! {
    /// DP-3: only identity fields differ, and the CRC is right, whichever way it was computed.
    #[test]
    fn a_readdressed_batch_differs_only_in_its_identity(
        size in prop_oneof![0usize..2_000, (RECOMPUTE_BYTES_MAX - 2)..(RECOMPUTE_BYTES_MAX * 3)],
        fill in any::<u8>(),
        base_offset in 0i64..i64::MAX / 2,
        count in 1i32..10_000,
        codec in 0i16..5,
        (producer_id, producer_epoch, sequence) in (any::<i64>(), any::<i16>(), any::<i32>()),
    ) {
        let payload: Vec<u8> = (0..size).map(|i| fill.wrapping_add((i % 251) as u8)).collect();
        let bytes = Bytes::from(batch(base_offset, count, codec, &payload));
        let raw = cut(&bytes, base_offset).batches.remove(0);
        let out = raw.readdress(producer_id, producer_epoch, sequence);
        let wire = [out.head.clone(), out.payload.clone()].concat();
        let mut expected = bytes.to_vec();
        expected[0..8].copy_from_slice(&0i64.to_be_bytes());
        expected[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        expected[43..51].copy_from_slice(&producer_id.to_be_bytes());
        expected[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
        expected[53..57].copy_from_slice(&sequence.to_be_bytes());
        seal(&mut expected);
        prop_assert_eq!(wire, expected);
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), position in any::<i32>()) {
        let _ = cut(&Bytes::from(bytes), i64::from(position));
    }
}

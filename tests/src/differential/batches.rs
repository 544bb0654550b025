//! Record batches as clients write them, and spoiled ones.

use std::io::Write;

use bytes::Bytes;

const CHECKED_FROM: usize = 21;
const MAGIC: i8 = 2;
const SNAPPY: i16 = 2;
pub const LOG_APPEND_TIME: i16 = 0x08;
pub const TRANSACTIONAL: i16 = 0x10;
pub const CONTROL: i16 = 0x20;

#[derive(Clone, Debug)]
pub struct Record {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: usize,
}

/// Every field of a batch, legal or not.
#[derive(Clone, Debug)]
pub struct Batch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub magic: i8,
    pub codec: i16,
    pub flags: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    pub records: Vec<Record>,
    pub spoils: Vec<Spoil>,
}

/// What is wrong with a batch beyond its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    Checksum,
    /// The length says more than there is.
    TooLong,
    /// Bytes behind the last record, inside the batch.
    Trailing,
    /// The compressed records aren't what the codec writes.
    Payload,
    /// Another batch follows.
    Twice,
    /// The beginning of another batch follows.
    TwiceCut(usize),
    /// Only the beginning is there.
    Cut(usize),
}

impl Batch {
    pub fn new(timestamp: i64, records: Vec<Record>) -> Batch {
        let count = records.len() as i32;
        let newest = records.iter().map(|record| record.timestamp_delta).max().unwrap_or(0);
        Batch {
            base_offset: 0,
            leader_epoch: -1,
            magic: MAGIC,
            codec: 0,
            flags: 0,
            last_offset_delta: count - 1,
            base_timestamp: timestamp,
            max_timestamp: timestamp + newest,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            records,
            spoils: Vec::new(),
        }
    }

    pub fn encode(&self) -> Bytes {
        let one = self.encode_one();
        let mut out = one.clone();
        for spoil in &self.spoils {
            match spoil {
                Spoil::Twice => out.extend(&one),
                Spoil::TwiceCut(bytes) => out.extend(&one[..(*bytes).min(one.len() - 1)]),
                Spoil::Cut(bytes) => out.truncate((*bytes).min(one.len() - 1)),
                _ => {}
            }
        }
        out.into()
    }

    fn encode_one(&self) -> Vec<u8> {
        let spoiled = |spoil: Spoil| self.spoils.contains(&spoil);
        let mut payload: Vec<u8> = self.records.iter().flat_map(record).collect();
        if spoiled(Spoil::Trailing) {
            payload.extend([0, 0, 0]);
        }
        let mut payload = compress(self.codec, payload);
        if spoiled(Spoil::Payload) {
            let from = self.length_in_front(&payload);
            payload[from..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(3));
        }
        let mut out = Vec::new();
        out.extend(self.base_offset.to_be_bytes());
        let length = 49 + payload.len() as i32 + if spoiled(Spoil::TooLong) { 10 } else { 0 };
        out.extend(length.to_be_bytes());
        out.extend(self.leader_epoch.to_be_bytes());
        out.extend(self.magic.to_be_bytes());
        out.extend([0; 4]);
        out.extend((self.codec | self.flags).to_be_bytes());
        out.extend(self.last_offset_delta.to_be_bytes());
        out.extend(self.base_timestamp.to_be_bytes());
        out.extend(self.max_timestamp.to_be_bytes());
        out.extend(self.producer_id.to_be_bytes());
        out.extend(self.producer_epoch.to_be_bytes());
        out.extend(self.base_sequence.to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend(payload);
        let crc = crc32c::crc32c(&out[CHECKED_FROM..]) ^ u32::from(spoiled(Spoil::Checksum));
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// How many bytes tell what snappy unfolds to. They stay: Kafka makes room for whatever they say, and
    /// ends when its heap is smaller.
    fn length_in_front(&self, payload: &[u8]) -> usize {
        let last = |byte: &u8| byte & 0x80 == 0;
        if self.codec == SNAPPY { payload.iter().position(last).map_or(0, |at| at + 1) } else { 0 }
    }
}

fn record(record: &Record) -> Vec<u8> {
    let mut body = vec![0];
    varint(&mut body, record.timestamp_delta);
    varint(&mut body, i64::from(record.offset_delta));
    nullable(&mut body, record.key.as_deref());
    nullable(&mut body, record.value.as_deref());
    varint(&mut body, record.headers as i64);
    for _ in 0..record.headers {
        nullable(&mut body, Some(b"name"));
        nullable(&mut body, Some(b"value"));
    }
    let mut out = Vec::new();
    varint(&mut out, body.len() as i64);
    out.extend(body);
    out
}

fn nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn compress(codec: i16, payload: Vec<u8>) -> Vec<u8> {
    let written = "writing to memory";
    match codec {
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&payload).expect(written);
            encoder.finish().expect(written)
        }
        SNAPPY => snap::raw::Encoder::new().compress_vec(&payload).expect(written),
        3 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&payload).expect(written);
            encoder.finish().expect(written)
        }
        4 => zstd::stream::encode_all(&payload[..], 3).expect(written),
        _ => payload,
    }
}

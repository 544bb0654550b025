//! Answers of a real broker, kept in a file, so that a difference can be looked into without one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ResponseKind;

use super::Sequence;
use super::connection::{Answer, Call};
use super::draw::Versions;
use super::ends::End;
use super::world::World;

const RESPONSE: u8 = 0;
const SILENCE: u8 = 1;
const CLOSED: u8 = 2;
const UNREADABLE: u8 = 3;

/// Where the answers of a sequence are kept.
pub fn path(directory: &Path, end: &str, sequence: Sequence) -> PathBuf {
    directory.join(format!("{}-{}-{}.answers", end.replace(' ', "-"), sequence.seed, sequence.number))
}

/// Writes down what another end answers.
pub struct Recorder<'a> {
    end: &'a mut dyn End,
    started_ms: i64,
    path: PathBuf,
    out: BytesMut,
}

impl<'a> Recorder<'a> {
    pub fn new(end: &'a mut dyn End, directory: &Path, sequence: Sequence) -> Result<Recorder<'a>> {
        let versions = end.versions()?;
        let mut out = BytesMut::new();
        let started_ms = end.now_ms();
        out.put_i64(started_ms);
        out.put_u16(u16::try_from(versions.len())?);
        for (api, (lowest, highest)) in versions {
            out.put_i16(api);
            out.put_i16(lowest);
            out.put_i16(highest);
        }
        let path = path(directory, end.name(), sequence);
        Ok(Recorder { end, started_ms, path, out })
    }

    fn write(&mut self, call: &Call, answer: &Answer) -> Result<()> {
        let mut body = BytesMut::new();
        let kind = match answer {
            Answer::Response(response) => {
                response.encode(&mut body, call.version)?;
                RESPONSE
            }
            Answer::Silence => SILENCE,
            Answer::Closed => CLOSED,
            Answer::Unreadable(why) => {
                body.extend_from_slice(why.as_bytes());
                UNREADABLE
            }
        };
        self.out.put_u8(kind);
        self.out.put_u32(u32::try_from(body.len())?);
        self.out.extend_from_slice(&body);
        fs::write(&self.path, &self.out).with_context(|| format!("write {}", self.path.display()))
    }
}

impl End for Recorder<'_> {
    fn name(&self) -> &str {
        self.end.name()
    }

    fn versions(&mut self) -> Result<Versions> {
        self.end.versions()
    }

    fn ask(&mut self, calls: &[Call]) -> Result<Vec<Answer>> {
        let answers = self.end.ask(calls)?;
        for (call, answer) in calls.iter().zip(&answers) {
            self.write(call, answer)?;
        }
        Ok(answers)
    }

    fn now_ms(&self) -> i64 {
        self.started_ms
    }

    fn settle(&mut self, call: &Call, world: &World) -> Result<()> {
        self.end.settle(call, world)
    }

    fn leave(&mut self, world: &World) -> Result<()> {
        self.end.leave(world)
    }
}

/// Answers as it was written down. The requests must be the same.
pub struct Recorded {
    name: String,
    started_ms: i64,
    versions: Versions,
    rest: Bytes,
}

impl Recorded {
    pub fn open(directory: &Path, name: &str, sequence: Sequence) -> Result<Recorded> {
        let path = path(directory, name, sequence);
        let mut rest = Bytes::from(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        let started_ms = rest.try_get_i64()?;
        let mut versions = Versions::new();
        for _ in 0..rest.try_get_u16()? {
            let (key, lowest, highest) = (rest.try_get_i16()?, rest.try_get_i16()?, rest.try_get_i16()?);
            versions.insert(key, (lowest, highest));
        }
        Ok(Recorded { name: name.to_owned(), started_ms, versions, rest })
    }

    fn read(&mut self, call: &Call) -> Result<Answer> {
        ensure!(!self.rest.is_empty(), "the recording ends here");
        let (kind, length) = (self.rest.try_get_u8()?, self.rest.try_get_u32()? as usize);
        ensure!(length <= self.rest.len(), "the recording is cut");
        let mut body = self.rest.split_to(length);
        Ok(match kind {
            RESPONSE => Answer::Response(Box::new(ResponseKind::decode(call.api, &mut body, call.version)?)),
            SILENCE => Answer::Silence,
            CLOSED => Answer::Closed,
            _ => Answer::Unreadable(String::from_utf8_lossy(&body).into_owned()),
        })
    }
}

impl End for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn versions(&mut self) -> Result<Versions> {
        Ok(self.versions.clone())
    }

    fn ask(&mut self, calls: &[Call]) -> Result<Vec<Answer>> {
        calls.iter().map(|call| self.read(call)).collect()
    }

    fn now_ms(&self) -> i64 {
        self.started_ms
    }

    fn settle(&mut self, _: &Call, _: &World) -> Result<()> {
        Ok(())
    }

    fn leave(&mut self, _: &World) -> Result<()> {
        Ok(())
    }
}

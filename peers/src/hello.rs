//! The first frame each way: who calls, who was meant, and whether they can talk.
//!
//! Its beginning never changes, so that two builds of any age can tell each other why they can't talk;
//! newer builds may add fields at the end.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use catalog::NodeId;
use catalog::fleet::FleetId;

use crate::book::Book;
use crate::refusal::Refusal;

/// No one else's protocol begins so.
const MAGIC: &[u8; 4] = b"LSTP";

/// Versions of frames, and of what calls look like in them, that this build speaks.
pub(crate) const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Of each piece of text in a hello.
const TEXT_BYTES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    /// The newest that both speak.
    pub fn common(self, other: Self) -> Result<u16, Refusal> {
        let newest = self.max.min(other.max);
        if newest >= self.min.max(other.min) {
            return Ok(newest);
        }
        let older = if self.max < other.min { "the called" } else { "the calling" };
        Err(Refusal::Version(format!(
            "the called node speaks versions {} to {} of the protocol between nodes, the calling one {} to \
             {}: upgrade {older} one",
            self.min, self.max, other.min, other.max
        )))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub versions: Versions,
    pub fleet: FleetId,
    /// Who calls, and where it is called.
    pub node: NodeId,
    pub address: String,
    /// Who is meant.
    pub to: NodeId,
    /// What the connection is for.
    pub lane: u8,
    /// Of its build.
    pub level: u32,
    pub version: String,
}

impl Hello {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_versions(&mut bytes, self.versions);
        put_text(&mut bytes, &self.fleet.0);
        bytes.put_u64(self.node.0);
        put_text(&mut bytes, &self.address);
        bytes.put_u64(self.to.0);
        bytes.put_u8(self.lane);
        bytes.put_u32(self.level);
        put_text(&mut bytes, &self.version);
        bytes.freeze()
    }

    /// # Errors
    /// For the caller: why it isn't understood.
    pub fn decode(mut bytes: Bytes) -> Result<Self, Refusal> {
        let versions = take_versions(&mut bytes)?;
        // A version that isn't spoken here may go on differently.
        VERSIONS.common(versions)?;
        let mut rest = || -> Option<Self> {
            Some(Self {
                versions,
                fleet: FleetId(take_text(&mut bytes)?.into()),
                node: NodeId(bytes.try_get_u64().ok()?),
                address: take_text(&mut bytes)?,
                to: NodeId(bytes.try_get_u64().ok()?),
                lane: bytes.try_get_u8().ok()?,
                level: bytes.try_get_u32().ok()?,
                version: take_text(&mut bytes)?,
            })
        };
        rest().ok_or_else(garbage)
    }
}

/// The answer to a hello that is welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub version: u16,
    pub fleet: FleetId,
    pub node: NodeId,
}

impl Welcome {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u16(self.version);
        put_text(&mut bytes, &self.fleet.0);
        bytes.put_u64(self.node.0);
        bytes.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Refusal> {
        let mut whole = || -> Option<Self> {
            let version = bytes.try_get_u16().ok()?;
            let fleet = FleetId(take_text(&mut bytes)?.into());
            Some(Self { version, fleet, node: NodeId(bytes.try_get_u64().ok()?) })
        };
        whole().ok_or_else(garbage)
    }
}

/// The first frame of a node that wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinHello {
    pub token: String,
    pub proof: Vec<u8>,
}

impl JoinHello {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_versions(&mut bytes, VERSIONS);
        put_text(&mut bytes, &self.token);
        bytes.put_slice(&self.proof);
        bytes.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Refusal> {
        VERSIONS.common(take_versions(&mut bytes)?)?;
        let token = take_text(&mut bytes).ok_or_else(garbage)?;
        Ok(Self { token, proof: bytes.to_vec() })
    }
}

/// Whether the caller may talk to this node. Its certificate was looked at before, if it is to have one:
/// who isn't that node isn't told what became of it.
pub(crate) fn judge(hello: &Hello, me: NodeId, fleet: &FleetId, book: &Book) -> Result<u16, Refusal> {
    let version = VERSIONS.common(hello.versions)?;
    if hello.fleet != *fleet {
        return Err(Refusal::Fleet(format!("it is a node of fleet {fleet}, not of {}", hello.fleet)));
    }
    if book.removed.contains(&hello.node) {
        return Err(Refusal::Removed(format!(
            "node {} was removed from this fleet; let it join again as a new node, with an empty data directory",
            hello.node
        )));
    }
    if hello.node == me {
        return Err(Refusal::Node(format!(
            "it is node {me} itself, or another one with a copy of its data directory: each node needs its own"
        )));
    }
    if hello.to != me {
        return Err(Refusal::Node(format!(
            "it is node {me}, not {}: does that have a new address?",
            hello.to
        )));
    }
    Ok(version)
}

pub(crate) fn garbage() -> Refusal {
    Refusal::Garbage("what came isn't this protocol: is this the peer address of a node?".into())
}

fn put_versions(bytes: &mut BytesMut, versions: Versions) {
    bytes.put_slice(MAGIC);
    bytes.put_u16(versions.min);
    bytes.put_u16(versions.max);
}

fn take_versions(bytes: &mut Bytes) -> Result<Versions, Refusal> {
    if !bytes.starts_with(MAGIC) {
        return Err(garbage());
    }
    bytes.advance(MAGIC.len());
    let (min, max) = (bytes.try_get_u16(), bytes.try_get_u16());
    match (min, max) {
        (Ok(min), Ok(max)) => Ok(Versions { min, max }),
        _ => Err(garbage()),
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    bytes.put_u16(end as u16);
    bytes.put_slice(&text.as_bytes()[..end]);
}

fn take_text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u16().ok()?);
    if length > bytes.len() || length > TEXT_BYTES_MAX {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

//! Errors of this crate. Display says what is wrong and the way out; the cause is in `source()`.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use catalog::codec::CodecError;
use catalog::{NodeId, Refusal};

use crate::store::StoreError;

type Cause = Box<dyn Error + Send + Sync>;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(
        "data directory {} holds no node yet: start once with --bootstrap to found a new fleet, or check that the directory is the right one",
        data_dir.display()
    )]
    NotBootstrapped { data_dir: PathBuf },
    #[error(
        "data directory {} belongs to a node that waits to be added to a fleet: start it with --join, or found the new fleet in another directory",
        data_dir.display()
    )]
    Waiting { data_dir: PathBuf },
    #[error(
        "data directory {} is in use by another lockstep process{}: stop that process, or give this one a directory of its own",
        data_dir.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked { data_dir: PathBuf, pid: Option<u32> },
    #[error("{} is in format {found}, this build reads up to {reads}: use a newer lockstep", file.display())]
    NewerFormat { file: PathBuf, found: u32, reads: u32 },
    #[error(
        "{} is damaged ({what}): don't repair it by hand; let the node join again as a new one, or restore the data directory from a copy if it is the only node of its fleet",
        file.display()
    )]
    Corrupt { file: PathBuf, what: String, source: Option<Cause> },
    /// A kind of entry that a newer build wrote looks like this, too.
    #[error(
        "{} was written by a newer lockstep, or is damaged ({what}): start this node with the newest version that it \
         ran or that its fleet runs; only if that says so too let the node join again as a new one",
        file.display()
    )]
    Unreadable { file: PathBuf, what: String, source: CodecError },
    #[error("no space left for {}: free some and start again", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("no permission to read and write {}: it must belong to the user that runs lockstep", path.display())]
    Permission { path: PathBuf, source: io::Error },
    #[error("can't read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("invalid consensus options")]
    Options { source: Cause },
    /// The store opened, then Raft failed on it.
    #[error("consensus did not start on {}", path.display())]
    Start { path: PathBuf, source: Cause },
}

/// Why a command or a linearizable read was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Applied, and changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not proposed: ask the leader, if it is known, or try again.
    #[error(
        "{}",
        leader.map_or("the fleet has no Raft leader at the moment; try again".to_owned(), |id| format!("node {id} is the Raft leader; ask it"))
    )]
    NoLeader { leader: Option<NodeId> },
    /// In doubt: it may still be applied. Look at the catalog before trying again.
    #[error("no answer in time; the command may still be applied")]
    Deadline,
    /// This node's consensus was shut down or failed ([`crate::Status::stopped`] says why). In
    /// doubt as after `Deadline`.
    #[error("consensus on this node has stopped")]
    Stopped,
}

/// Why the Raft group was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    #[error(
        "{}",
        leader.map_or("the fleet has no Raft leader at the moment; try again".to_owned(), |id| format!("node {id} is the Raft leader; ask it"))
    )]
    NotLeader { leader: Option<NodeId> },
    #[error("another change of the Raft group is under way; try again")]
    InProgress,
    #[error("node {0} doesn't hold the Raft log yet; wait until it has caught up")]
    NotCaughtUp(NodeId),
    #[error("node {0} is not in the Raft group; add it as a learner first")]
    Unknown(NodeId),
    #[error("node {0} was removed from the fleet; it can only come back as a new node")]
    Removed(NodeId),
    #[error("a Raft group needs a voter")]
    NoVoters,
    /// The Raft leader can't take its own vote.
    #[error("this node is the Raft leader; hand the leadership over first")]
    Leads,
    /// In doubt: look at the members before trying again.
    #[error("no answer in time; the Raft group may still be changed")]
    Deadline,
    #[error("consensus on this node has stopped")]
    Stopped,
}

/// Why a node could not be made the only one of its fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "node {0} doesn't hold its fleet's catalog: recover on a node that was a member, best the one with the most entries"
    )]
    NoCatalog(NodeId),
    #[error("node {0} was removed from its fleet: recover on a node that still is a member")]
    Removed(NodeId),
}

impl OpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn corrupt(file: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), what: what.into(), source: None }
    }

    /// What a failure of the store means to someone who starts a node.
    pub(crate) fn store(file: &Path, error: StoreError) -> Self {
        match error {
            StoreError::NewerFormat { found, reads } => {
                Self::NewerFormat { file: file.to_owned(), found, reads }
            }
            StoreError::Codec { source: CodecError::Version { found, reads }, .. } if found > reads => {
                Self::NewerFormat { file: file.to_owned(), found: found.into(), reads: reads.into() }
            }
            StoreError::Inconsistent(what) => Self::corrupt(file, what),
            StoreError::Codec { what, source } if source.may_be_a_newer_kind() => {
                Self::Unreadable { file: file.to_owned(), what: format!("{what} can't be read"), source }
            }
            StoreError::Codec { what, source } => Self::Corrupt {
                file: file.to_owned(),
                what: format!("{what} can't be read"),
                source: Some(Box::new(source)),
            },
            StoreError::Redb(error) => Self::redb(file, *error),
        }
    }

    fn redb(file: &Path, error: redb::Error) -> Self {
        match error {
            // redb reports a file that is none of its own, or too short, as such an I/O error.
            redb::Error::Io(e)
                if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Corrupt {
                    file: file.to_owned(),
                    what: "not a complete redb database".to_owned(),
                    source: Some(Box::new(e)),
                }
            }
            redb::Error::Io(e) => Self::io(file, e),
            // The directory's own lock is taken first: this is somebody else's redb.
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                let data_dir = file.parent().unwrap_or(file).to_owned();
                Self::Locked { data_dir, pid: None }
            }
            other => Self::Corrupt {
                file: file.to_owned(),
                what: "redb refuses it".to_owned(),
                source: Some(Box::new(other)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_kind_that_isnt_known_asks_for_a_newer_build_first() {
        let newer = catalog::codec::encode(&200_u32);
        let source = catalog::codec::decode::<catalog::Action>(&newer).expect_err("no such kind");
        let what = "log entry 7".to_owned();
        let words = OpenError::store(Path::new("store"), StoreError::Codec { what, source }).to_string();
        assert!(
            words.starts_with("store was written by a newer lockstep, or is damaged (log entry 7"),
            "{words}"
        );
    }
}

//! The data directory: who may use it, and how its store file comes to be.
//!
//! - `lock` is held (an advisory whole-file lock) for as long as the store is open; it names the
//!   holder's pid. The kernel releases it when the process ends, however it ends.
//! - `raft.redb` is either absent or complete: it is founded as `raft.redb.new` and renamed when
//!   its identity is on disk. So a file that is there and can't be read is damage, never a
//!   half-finished start, and is never overwritten.
//!
//! Both are readable by their owner alone: cluster configs may hold credentials.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::Database;
use redb::backends::FileBackend;

use crate::error::OpenError;
use crate::store::{self, Founding, Identity, StoreError};

const LOCK: &str = "lock";
const STORE: &str = "raft.redb";
const STORE_UNFINISHED: &str = "raft.redb.new";

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Unlocked when dropped.
    _lock: File,
}

impl DataDir {
    /// Opens the directory of a node that exists. Creates nothing.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        match fs::symlink_metadata(path.join(STORE)) {
            Ok(_) => Self::lock(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(OpenError::NotBootstrapped { data_dir: path.to_owned() })
            }
            Err(e) => Err(OpenError::io(path, e)),
        }
    }

    /// Opens the directory, and founds a node in it if it holds none.
    pub(crate) fn open_or_found(
        path: &Path,
        founding: Founding,
        identity: impl FnOnce() -> Identity,
    ) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(|e| OpenError::io(path, e))?;
        let dir = Self::lock(path)?;
        if !dir.store_path().try_exists().map_err(|e| OpenError::io(path, e))? {
            dir.found(&identity(), founding)?;
        }
        Ok(dir)
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    pub(crate) fn database(&self) -> Result<Database, OpenError> {
        let path = self.store_path();
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let file = open().map_err(|e| OpenError::io(&path, e))?;
        // redb would make a new database of an empty file, and this node would forget its votes.
        if file.metadata().map_err(|e| OpenError::io(&path, e))?.len() == 0 {
            return Err(OpenError::corrupt(&path, "it is empty"));
        }
        database_in(file).map_err(|e| OpenError::store(&path, e))
    }

    fn lock(path: &Path) -> Result<Self, OpenError> {
        let lock_path = path.join(LOCK);
        let io_error = |e| OpenError::io(&lock_path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { data_dir: path.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(io_error(e)),
        }
        write_holder(&mut file).map_err(io_error)?;
        Ok(Self { path: path.to_owned(), _lock: file })
    }

    fn found(&self, identity: &Identity, founding: Founding) -> Result<(), OpenError> {
        let unfinished = self.path.join(STORE_UNFINISHED);
        let io_error = |e| OpenError::io(&unfinished, e);
        // Left by a founding that was interrupted before its identity counted.
        if let Err(e) = fs::remove_file(&unfinished)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error(e));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&unfinished)
            .map_err(io_error)?;
        let founded = database_in(file).and_then(|db| {
            store::found(&db, identity, founding)?;
            Ok(db.close()?)
        });
        founded.map_err(|e| OpenError::store(&unfinished, e))?;
        fs::rename(&unfinished, self.store_path()).map_err(io_error)?;
        // Without these a power cut could take back the names, and with them the node.
        sync_dir(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => Ok(()),
        }
    }
}

fn database_in(file: File) -> Result<Database, StoreError> {
    store::database(FileBackend::new(file)?)
}

fn sync_dir(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| OpenError::io(path, e))
}

/// Pid of the process that holds the lock, as far as it can be read.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

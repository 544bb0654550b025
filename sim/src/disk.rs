//! A node's disk in memory. It outlives the node; what it holds after a crash depends on the crash.
//!
//! - A **kill** loses nothing: what was written is the system's.
//! - A **power cut** keeps what was synced, and of the rest any part, in sectors, as the seed has it.
//!
//! What it holds may also be **damaged**, without a crash: some bytes are others than what was written.
//!
//! A process that was crashed can't write any more, whatever its destructors try. A crash can be set for
//! a later write ([`Disk::doom`]): it then falls into the middle of a commit, and until its step ends the
//! process is dead without knowing it ([`Life::is_over`]).

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::StorageBackend;

use crate::chance::Chance;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a file system reads and writes.
const PAGE_BYTES: usize = 4096;

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Kill,
    PowerCut,
}

/// What a disk does that answers wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// So many bits are flipped.
    Bits(u64),
    /// So many pages hold nothing.
    Zeroed(u64),
    /// So many pages hold what others do.
    Misplaced(u64),
}

#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    current: Vec<u8>,
    synced: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<Write>,
    /// Lives of the node that uses it.
    life: u64,
    syncs: u64,
    /// How the life ends, and after how many more changes.
    doom: Option<(Crash, u64)>,
    /// The doom has come.
    is_fallen: bool,
    /// Takes no more changes.
    is_full: bool,
    is_damaged: bool,
    /// So long each commit waits for it.
    commit_takes: Duration,
}

enum Write {
    Bytes(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    /// An empty one.
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance,
            current: Vec::new(),
            synced: Vec::new(),
            pending: Vec::new(),
            life: 0,
            syncs: 0,
            doom: None,
            is_fallen: false,
            is_full: false,
            is_damaged: false,
            commit_takes: Duration::ZERO,
        })))
    }

    /// The life of the process that starts now.
    pub fn life(&self) -> Life {
        Life { disk: self.clone(), life: self.state().life }
    }

    /// Ends the life that uses it.
    pub fn crash(&self, crash: Crash) {
        self.state().crash(crash);
    }

    /// Ends the life at its `changes`th change of the disk from now.
    pub fn doom(&self, crash: Crash, changes: u64) {
        self.state().doom = Some((crash, changes));
    }

    pub fn spare(&self) {
        self.state().doom = None;
    }

    /// Whether the doom has come since the last call.
    pub fn take_fallen(&self) -> bool {
        std::mem::take(&mut self.state().is_fallen)
    }

    /// From now on no change is made, or again every one.
    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    pub fn is_full(&self) -> bool {
        self.state().is_full
    }

    /// From now on each commit waits for it so long.
    pub fn set_slow(&self, commit_takes: Duration) {
        self.state().commit_takes = commit_takes;
    }

    /// What a commit waits for before it begins.
    pub async fn pace(self) {
        let takes = self.state().commit_takes;
        // A disk that is as ever costs no turn: what nothing is in the way of stays as it was.
        if !takes.is_zero() {
            tracing::info!("disk: a commit waits for {takes:?}");
            tokio::time::sleep(takes).await;
        }
    }

    /// From now on it answers wrongly.
    pub fn damage(&self, damage: Damage) {
        self.state().damage(damage);
    }

    pub fn is_damaged(&self) -> bool {
        self.state().is_damaged
    }

    /// Another disk in its place.
    pub fn replace(&self) {
        let mut state = self.state();
        state.is_damaged = false;
        (state.current, state.synced, state.pending) = Default::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn damage(&mut self, damage: Damage) {
        let pages = self.current.len() / PAGE_BYTES;
        let Some(last) = pages.checked_sub(1) else { return };
        self.is_damaged = true;
        let (Damage::Bits(count) | Damage::Zeroed(count) | Damage::Misplaced(count)) = damage;
        for _ in 0..count {
            let start = self.chance.between(0..=last as u64) as usize * PAGE_BYTES;
            let other = self.chance.between(0..=last as u64) as usize * PAGE_BYTES;
            let bit = self.chance.between(0..=8 * PAGE_BYTES as u64 - 1) as usize;
            // What is pending lies in the same place, and is no better when it gets there.
            for image in [&mut self.current, &mut self.synced] {
                if start.max(other) + PAGE_BYTES > image.len() {
                    continue;
                }
                match damage {
                    Damage::Bits(_) => image[start + bit / 8] ^= 1 << (bit % 8),
                    Damage::Zeroed(_) => image[start..start + PAGE_BYTES].fill(0),
                    Damage::Misplaced(_) => image.copy_within(other..other + PAGE_BYTES, start),
                }
            }
        }
    }

    fn crash(&mut self, crash: Crash) {
        self.life += 1;
        if crash == Crash::Kill {
            // What is pending is the system's to write: a power cut later may lose it yet.
            return;
        }
        let mut image = std::mem::take(&mut self.synced);
        let mut lost = 0;
        for write in std::mem::take(&mut self.pending) {
            match write {
                Write::Resize(len) => image.resize(len, 0),
                Write::Bytes(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        let start = offset + index * SECTOR_BYTES;
                        match image.get_mut(start..start + sector.len()) {
                            Some(place) if self.chance.percent(50) => place.copy_from_slice(sector),
                            _ => lost += 1,
                        }
                    }
                }
            }
        }
        self.synced.clone_from(&image);
        self.current = image;
        tracing::info!("disk: power is cut, {lost} sectors are lost");
    }
}

/// The disk in one life of its node.
#[derive(Clone)]
pub struct Life {
    disk: Disk,
    life: u64,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.disk.state().life != self.life
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life { Ok(state) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    /// To change it. The change with which the doom comes isn't made.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match state.doom.take() {
            Some((crash, 0)) => {
                state.crash(crash);
                tracing::info!("disk: ends in the middle of a commit");
                state.is_fallen = true;
                Err(io::ErrorKind::NotConnected.into())
            }
            doom => {
                state.doom = doom.map(|(crash, changes)| (crash, changes - 1));
                Ok(state)
            }
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk in life {}", self.life)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for Life {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, start) = (self.state()?, place(offset)?);
        let found = state.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, len) = (self.change()?, place(len)?);
        state.current.resize(len, 0);
        state.pending.push(Write::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.change()?;
        let (mut bytes, mut hash) = (0, Fnv::default());
        for write in std::mem::take(&mut state.pending) {
            match write {
                Write::Resize(len) => state.synced.resize(len, 0),
                Write::Bytes(offset, data) => {
                    bytes += data.len();
                    hash.add(&offset.to_le_bytes());
                    hash.add(&data);
                    state.synced[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
        }
        state.syncs += 1;
        tracing::info!("disk: sync {} of {bytes} bytes, {:016x}", state.syncs, hash.0);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut state, start) = (self.change()?, place(offset)?);
        let place = state.current.get_mut(start..start + data.len()).ok_or(io::ErrorKind::InvalidInput)?;
        place.copy_from_slice(data);
        state.pending.push(Write::Bytes(start, data.to_vec()));
        Ok(())
    }
}

/// FNV-1a over eight bytes at a time: tells whether two runs wrote the same.
pub struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3);
            // Multiplication carries upwards only.
            self.0 ^= self.0 >> 32;
        }
    }
}

#[cfg(test)]
mod tests;

//! A disk in memory that remembers what was synced: what it holds after a power cut is the synced
//! image plus any part of what was written since, in any order, torn at sector borders.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    current: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Op>,
    /// Operations until the next picture; none while no pictures are taken.
    picture_in: Option<u64>,
    pictures: Vec<(Disk, u64)>,
    /// Attached to each picture.
    label: u64,
    random: u64,
    failure: Option<io::ErrorKind>,
    /// Operations until it fails; none: it doesn't, or does already.
    fails_in: Option<(u64, io::ErrorKind)>,
}

enum Op {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    pub fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { synced: image.clone(), current: image, ..State::default() })))
    }

    /// From now on pictures of what a power cut would leave are taken every few operations.
    pub fn start_pictures(&self, seed: u64) {
        let mut state = self.state();
        state.random = seed;
        state.picture_in = Some(1);
    }

    pub fn set_label(&self, label: u64) {
        self.state().label = label;
    }

    pub fn pictures(&self) -> Vec<(Disk, u64)> {
        std::mem::take(&mut self.state().pictures)
    }

    pub fn fail(&self, kind: Option<io::ErrorKind>) {
        self.state().failure = kind;
    }

    /// After so many operations everything fails, as when a disk fills up in the middle of a commit.
    pub fn fail_in(&self, operations: u64, kind: io::ErrorKind) {
        self.state().fails_in = Some((operations, kind));
    }

    /// One bit of each kilobyte from there on is another one.
    pub fn corrupt_pages(&self, from: usize) {
        for byte in self.state().current.iter_mut().skip(from).step_by(1024) {
            *byte ^= 1;
        }
    }

    /// One in a thousand of these bytes is the next one.
    pub fn corrupt_bytes(&self, wrong: u8) {
        for byte in self.state().current.iter_mut().filter(|byte| **byte == wrong).step_by(1_000) {
            *byte += 1;
        }
    }

    pub fn pages(&self) -> usize {
        self.state().current.len() / PAGE
    }

    /// The same, with one bit of a page that is another one.
    pub fn with_a_wrong_bit(&self, page: usize, bit: usize) -> Disk {
        let mut image = self.state().current.clone();
        image[page * PAGE + bit / 8] ^= 1 << (bit % 8);
        Disk::holding(image)
    }

    /// The same, with nothing in a page.
    pub fn without(&self, page: usize) -> Disk {
        let mut image = self.state().current.clone();
        image[page * PAGE..][..PAGE].fill(0);
        Disk::holding(image)
    }

    /// What it would hold after losing power now.
    pub fn after_power_cut(&self, seed: u64) -> Disk {
        let mut state = self.state();
        state.random = seed;
        Disk::holding(state.after_power_cut())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}

impl State {
    fn draw(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn operation(&mut self) -> io::Result<()> {
        if let Some(left) = self.picture_in {
            self.picture_in = Some(left.saturating_sub(1));
            if left == 0 {
                self.picture_in = Some(self.draw() % 60);
                let image = self.after_power_cut();
                self.pictures.push((Disk::holding(image), self.label));
            }
        }
        match &mut self.fails_in {
            Some((0, kind)) => self.failure = Some(*kind),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        self.failure.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn after_power_cut(&mut self) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        let mut image = self.synced.clone();
        for op in &pending {
            match op {
                Op::Resize(len) => image.resize(*len, 0),
                Op::Write(offset, data) => {
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        let start = offset + i * SECTOR;
                        let end = start + sector.len();
                        if end <= image.len() && self.draw().is_multiple_of(2) {
                            image[start..end].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        self.pending = pending;
        image
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = usize::try_from(offset).expect("64 bits");
        let found = state.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let len = usize::try_from(len).expect("64 bits");
        state.current.resize(len, 0);
        state.pending.push(Op::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        for op in std::mem::take(&mut state.pending) {
            match op {
                Op::Resize(len) => state.synced.resize(len, 0),
                Op::Write(offset, data) => state.synced[offset..offset + data.len()].copy_from_slice(&data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let start = usize::try_from(offset).expect("64 bits");
        state.current[start..start + data.len()].copy_from_slice(data);
        state.pending.push(Op::Write(start, data.to_vec()));
        Ok(())
    }
}

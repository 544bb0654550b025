//! The machine for oneself: brokers started by two tests at once starve each other on two cores, and
//! time limits meant for faults would strike.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Waits until nobody else has the machine. It is given back when the file is dropped.
pub fn take() -> Result<File> {
    let (lock, path) = open()?;
    lock.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

/// Waits until nobody has it for themselves. Others may have a share, too.
pub fn share() -> Result<File> {
    let (lock, path) = open()?;
    lock.lock_shared().with_context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

fn open() -> Result<(File, PathBuf)> {
    let path = std::env::temp_dir().join("lockstep-tests.lock");
    Ok((File::create(&path).with_context(|| format!("create {}", path.display()))?, path))
}

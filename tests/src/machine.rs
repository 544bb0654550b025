//! The machine for oneself: brokers started by two tests at once starve each other on two cores, and
//! time limits meant for faults would strike.

use std::fs::File;

use anyhow::{Context, Result};

/// Waits until nobody else has the machine. It is given back when the file is dropped.
pub fn take() -> Result<File> {
    let path = std::env::temp_dir().join("lockstep-tests.lock");
    let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    lock.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

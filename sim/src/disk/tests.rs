use std::collections::BTreeSet;

use super::*;

fn disk(seed: u64) -> Disk {
    Disk::new(Chance::of(seed, "test"))
}

/// Two sectors are synced, then eight written.
fn write(life: &Life) -> io::Result<()> {
    life.set_len(8 * SECTOR_BYTES as u64)?;
    life.write(0, &[1; 2 * SECTOR_BYTES])?;
    life.sync_data()?;
    life.write(0, &[2; 8 * SECTOR_BYTES])
}

fn sectors(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; 8 * SECTOR_BYTES];
    disk.life().read(0, &mut bytes).unwrap();
    bytes.iter().step_by(SECTOR_BYTES).copied().collect()
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed);
        let life = disk.life();
        write(&life).unwrap();
        disk.crash(Crash::PowerCut);
        let found = sectors(&disk);
        assert!(found[..2].iter().all(|byte| *byte > 0), "synced: {found:?}");
        assert!(life.is_over() && life.write(0, &[3]).is_err(), "its process is dead");
        seen.insert(found);
    }
    assert!(seen.len() > 30, "{} pictures", seen.len());
}

#[test]
fn a_kill_keeps_what_was_written_until_the_power_is_cut() {
    let disk = disk(1);
    let life = disk.life();
    write(&life).unwrap();
    disk.crash(Crash::Kill);
    assert!(life.sync_data().is_err());
    assert_eq!(sectors(&disk), [2; 8]);
    disk.crash(Crash::PowerCut);
    assert_ne!(sectors(&disk), [2; 8]);
}

#[test]
fn what_is_damaged_differs_from_what_was_written_and_stays_so_over_a_crash() {
    for damage in [Damage::Bits(1), Damage::Zeroed(1), Damage::Misplaced(8)] {
        let disk = disk(1);
        let life = disk.life();
        let written: Vec<u8> = (0..4 * PAGE_BYTES).map(|at| 1 + (at / PAGE_BYTES) as u8).collect();
        life.set_len(written.len() as u64).unwrap();
        life.write(0, &written).unwrap();
        life.sync_data().unwrap();
        disk.damage(damage);
        let image = |disk: &Disk| {
            let mut bytes = vec![0; written.len()];
            disk.life().read(0, &mut bytes).unwrap();
            bytes
        };
        let damaged = image(&disk);
        assert_ne!(damaged, written, "{damage:?}");
        disk.crash(Crash::PowerCut);
        assert_eq!(image(&disk), damaged, "{damage:?}");
        assert!(disk.is_damaged());
        disk.replace();
        assert!(!disk.is_damaged());
    }
}

#[test]
fn a_doom_falls_before_its_change() {
    let disk = disk(1);
    disk.doom(Crash::Kill, 3);
    let life = disk.life();
    assert!(write(&life).is_err());
    assert!(disk.take_fallen() && !disk.take_fallen() && life.is_over());
    assert_eq!(sectors(&disk), [1, 1, 0, 0, 0, 0, 0, 0]);
}

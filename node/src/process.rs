//! What the operating system knows of this process, under the names that every Prometheus client
//! uses. Read by hand: the crates for it bring a registry or half of `/proc`.

use std::fs;

/// Fields of `/proc/self/stat` behind the command's name, which may hold anything.
mod field {
    pub const USER_TICKS: usize = 11;
    pub const SYSTEM_TICKS: usize = 12;
    pub const THREADS: usize = 17;
    pub const START_TICKS: usize = 19;
    pub const VIRTUAL_BYTES: usize = 20;
    pub const RESIDENT_PAGES: usize = 21;
}

/// Names and values; `None` where there is no `/proc`.
pub fn read() -> Option<Vec<(&'static str, f64)>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut found = from_stat(&stat, &boot, ticks_per_second, rustix::param::page_size() as f64)?;
    // One of them is the directory that is being read.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    found.push(("process_open_fds", open as f64));
    found.extend(fs::read_to_string("/proc/self/limits").ok().and_then(|limits| max_fds(&limits)));
    Some(found)
}

fn from_stat(
    stat: &str,
    boot: &str,
    ticks_per_second: f64,
    page_bytes: f64,
) -> Option<Vec<(&'static str, f64)>> {
    let (_, behind) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let value = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let boot_seconds: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let cpu_ticks = value(field::USER_TICKS)? + value(field::SYSTEM_TICKS)?;
    Some(vec![
        ("process_cpu_seconds_total", cpu_ticks / ticks_per_second),
        ("process_resident_memory_bytes", value(field::RESIDENT_PAGES)? * page_bytes),
        ("process_start_time_seconds", boot_seconds + value(field::START_TICKS)? / ticks_per_second),
        ("process_threads", value(field::THREADS)?),
        ("process_virtual_memory_bytes", value(field::VIRTUAL_BYTES)?),
    ])
}

fn max_fds(limits: &str) -> Option<(&'static str, f64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some(("process_max_fds", line.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_nothing() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 7 0 1000 8192 30 0";
        let found = from_stat(stat, "cpu  1 2\nbtime 1700000000\n", 100.0, 4096.0).expect("numbers");
        assert_eq!(
            found,
            [
                ("process_cpu_seconds_total", 3.0),
                ("process_resident_memory_bytes", 122_880.0),
                ("process_start_time_seconds", 1_700_000_010.0),
                ("process_threads", 7.0),
                ("process_virtual_memory_bytes", 8_192.0),
            ]
        );
        let limits = "Limit            Soft Limit  Hard Limit  Units\nMax open files   1024        4096        files\n";
        assert_eq!(max_fds(limits), Some(("process_max_fds", 1024.0)));
        assert_eq!(from_stat("42 (cut", "", 100.0, 4096.0), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_found() {
        let found = read().expect("/proc");
        let value = |name: &str| found.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        assert!(value("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1_000_000.0));
        assert!(value("process_open_fds").is_some_and(|open| open >= 3.0));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - value("process_start_time_seconds").expect("a start");
        assert!((-1.0..3_600.0).contains(&age), "{age} s old");
    }
}

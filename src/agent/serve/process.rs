//! Metrics of the agent's process, read from /proc/self when they are asked for.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// `USER_HZ`: the unit of times in /proc, the same on every architecture that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the times are in /proc/self/stat, counted from behind the name of the program (proc_pid_stat(5)).
const UTIME: usize = 11;
const STIME: usize = 12;
const STARTTIME: usize = 19;

/// Encodes the metrics.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            let metric =
                encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let host = fs::read_to_string("/proc/stat").unwrap_or_default();
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", bytes(&status, "VmRSS:")),
            ("process_virtual_memory_bytes", "Virtual memory", bytes(&status, "VmSize:")),
            ("process_open_fds", "Open file descriptors", open_descriptors()),
            ("process_max_fds", "Limit of open file descriptors", max_descriptors()),
            ("process_start_time_seconds", "Start, in seconds since 1970", start_time(&stat, &host)),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// A field of /proc/self/stat.
fn ticks(stat: &str, place: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(place)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((ticks(stat, UTIME)? + ticks(stat, STIME)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str, host: &str) -> Option<f64> {
    let boot: f64 = host.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks(stat, STARTTIME)? / TICKS_PER_SECOND)
}

/// A line such as `VmRSS:      1234 kB` of /proc/self/status.
fn bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Without the one that reading the directory opens.
fn open_descriptors() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

fn max_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 1 0 1000 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_time(stat, "cpu 1\nbtime 1795449845\n"), Some(1_795_449_855.0));
        assert_eq!(bytes("VmSize:\t 8 kB\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!((cpu_seconds(""), bytes("", "VmRSS:")), (None, None));
    }
}

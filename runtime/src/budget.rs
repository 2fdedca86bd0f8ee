//! The memory budget: what a model needs, against what the machine or a board has left; and what this process
//! holds.
//!
//! Comes in: what a manifest or a configuration says ([`Sizes`]), how the window is to be followed, and what
//! computes. Goes out: the [`Need`] in bytes, and what is [`Available`]. It is asked before anything but a
//! manifest is read; it reserves, frees and refuses nothing (`refuse` does).

mod need;
mod packed;

use std::path::Path;

use crate::board::Board;

pub use need::{Choice, Need, Sizes, Wish, memory_max, mode_name, size};
pub use packed::Second;

/// Share of a board's memory that Linux gets to see; firmware and carve-outs keep the rest (boards with 8 GB
/// show 7.3 to 7.6 GiB).
const SEEN: f64 = 0.92;
/// What a system without a desktop takes of that (boards with 8 GB have about 6.6 GiB left).
const SYSTEM: u64 = 768 << 20;

/// Bytes that may still be used: the machine's, or those of the control group this process lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// All of it.
    pub total: u64,
    /// What is left.
    pub free: u64,
}

impl Available {
    /// Looks at this machine; none where it does not say.
    pub fn here() -> Option<Self> {
        let machine = Self::machine(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        // Every group above this process's own may set a limit; the tightest counts.
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_string();
        let groups = Path::new(&own).ancestors().filter_map(|inner| {
            let read =
                |name: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(inner).join(name)).ok();
            Self::group(
                &read("memory.max")?,
                &read("memory.current")?,
                &read("memory.stat").unwrap_or_default(),
            )
        });
        groups.chain([machine]).min_by_key(|available| available.free)
    }

    /// A board that runs nothing else and has no desktop, by its profile; none where the profile fits many
    /// machines.
    pub fn of_board(board: &Board) -> Option<Self> {
        let total = ((board.memory.mib? << 20) as f64 * SEEN) as u64;
        Some(Self { total, free: total.saturating_sub(SYSTEM) })
    }

    /// From `/proc/meminfo`.
    fn machine(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { total: field("MemTotal:")?, free: field("MemAvailable:")? })
    }

    /// From a control group's `memory.max` (`max` means no limit), `memory.current` and `memory.stat`: pages
    /// of files are given back on demand.
    fn group(limit: &str, used: &str, stat: &str) -> Option<Self> {
        let total: u64 = limit.trim().parse().ok()?;
        let used: u64 = used.trim().parse().ok()?;
        let bytes = |line: &str, name| line.strip_prefix(name)?.trim().parse::<u64>().ok();
        let pages = |line| bytes(line, "inactive_file ").or_else(|| bytes(line, "active_file "));
        let cached = stat.lines().filter_map(pages).fold(0, u64::saturating_add);
        Some(Self { total, free: total.saturating_sub(used.saturating_sub(cached)) })
    }
}

impl std::fmt::Display for Available {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} are left of {}", size(self.free), size(self.total))
    }
}

/// This process's memory in bytes: resident now, at its most, and swapped out; what the system does not tell
/// is left out. From `/proc/self/status`.
pub fn used() -> Vec<(&'static str, u64)> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    [("resident", "VmRSS:"), ("peak", "VmHWM:"), ("swapped", "VmSwap:")]
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, field(name)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_machine_and_the_control_group_are_read() {
        let text = "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    2000000 kB\n";
        let machine = Available::machine(text).unwrap();
        assert_eq!((machine.total, machine.free), (8_000_000 * 1024, 2_000_000 * 1024));
        assert_eq!(Available::group("max\n", "5\n", ""), None);
        assert_eq!(Available::group("100\n", "40\n", ""), Some(Available { total: 100, free: 60 }));
        let stat = "anon 10\ninactive_file 20\nactive_file 10\n";
        assert_eq!(Available::group("100\n", "40\n", stat), Some(Available { total: 100, free: 90 }));
        assert_eq!(Available::machine("nothing"), None);
        assert!(Available::here().is_none_or(|a| a.free <= a.total));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_memory_and_held_no_less_before() {
        let used: std::collections::BTreeMap<_, _> = used().into_iter().collect();
        assert!(used["resident"] > MIB && used["peak"] >= used["resident"], "{used:?}");
    }

    #[test]
    fn a_board_keeps_a_part_of_its_memory_and_its_system_another() {
        let nano = Available::of_board(&Board::named("jetson-orin-nano").unwrap()).unwrap();
        assert!((7300 * MIB..7700 * MIB).contains(&nano.total), "{nano}");
        assert!((6400 * MIB..7000 * MIB).contains(&nano.free), "{nano}");
        assert_eq!(Available::of_board(&Board::named("generic").unwrap()), None);
    }
}

//! The memory budget: what a model needs, against what the machine has left; and what this process holds.
//!
//! Comes in: the needs that a manifest states or that a configuration implies. Goes out: leave to load, or a refusal with the
//! numbers. It is asked before anything is loaded; it reserves and frees nothing, and knows no board yet.

use std::path::Path;

use utr_models::manifest::Memory;

use crate::error::{Error, Result};

/// What the program itself takes beside the model: code, GStreamer with one decoder, and frames at source size.
const PROGRAM: u64 = 64 << 20;

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

    /// From `/proc/meminfo`.
    fn machine(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { total: field("MemTotal:")?, free: field("MemAvailable:")? })
    }

    /// From a control group's `memory.max` (`max` means no limit), `memory.current` and `memory.stat`: pages of files that
    /// nobody uses any more are given back on demand.
    fn group(limit: &str, used: &str, stat: &str) -> Option<Self> {
        let total: u64 = limit.trim().parse().ok()?;
        let used: u64 = used.trim().parse().ok()?;
        let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
        Some(Self { total, free: total.saturating_sub(used.saturating_sub(cached.unwrap_or(0))) })
    }
}

/// Refuses a model that does not fit into what is left. `available` is none where the machine does not say; then it may try.
///
/// # Errors
/// [`Error::Memory`] with the parts of the need.
pub fn check(name: &str, needs: &Memory, available: Option<Available>) -> Result<()> {
    let Memory { weights, window, kv, scratch } = *needs;
    let needed = needs.total().saturating_add(PROGRAM);
    match available {
        Some(available) if needed > available.free => Err(Error::Memory {
            name: name.into(),
            needed: mib(needed),
            parts: format!(
                "weights {}, window {}, keys and values {}, scratch {}, program {}",
                mib(weights),
                mib(window),
                mib(kv),
                mib(scratch),
                mib(PROGRAM)
            ),
            free: mib(available.free),
            total: mib(available.total),
        }),
        _ => Ok(()),
    }
}

/// Refuses a window whose keys and values, `bytes` beside the loaded model, do not fit into what is left.
///
/// # Errors
/// [`Error::Memory`] with what would need less.
pub fn check_window(name: &str, bytes: u64, available: Option<Available>) -> Result<()> {
    match available {
        Some(available) if bytes > available.free => Err(Error::Memory {
            name: format!("the window of {name}"),
            needed: mib(bytes),
            parts: "keys and values; less in another --window-mode, with fewer --frames or a smaller --kv"
                .into(),
            free: mib(available.free),
            total: mib(available.total),
        }),
        _ => Ok(()),
    }
}

/// Whole mebibytes, rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// This process's memory in bytes: resident now, at its most, and swapped out; what the system does not tell is left out. From `/proc/self/status`.
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
        let stat = "anon 10\ninactive_file 30\n";
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
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let needs = Memory { weights: 500 * MIB, window: 10 * MIB, kv: 100 * MIB, scratch: 26 * MIB };
        let free = |free| Some(Available { total: 1000 * MIB, free });
        assert!(check("m", &needs, free(700 * MIB)).is_ok());
        assert!(check("m", &needs, None).is_ok());
        let message = check("m", &needs, free(699 * MIB)).unwrap_err().to_string();
        for part in ["m needs 700 MiB", "weights 500", "keys and values 100", "699 of 1000 MiB"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let message = check_window("m", 300 * MIB, free(299 * MIB)).unwrap_err().to_string();
        assert!(message.contains("300 MiB") && message.contains("--kv"), "{message}");
        assert!(check_window("m", 300 * MIB, free(300 * MIB)).is_ok());
        let absurd = Memory { weights: u64::MAX, window: u64::MAX, kv: 1, scratch: 1 };
        assert!(check("m", &absurd, free(MIB)).is_err());
    }
}

//! The files in which a machine says what it is, read as text.
//!
//! Comes in: a file's content, whatever it holds. Goes out: what it says; none where it says nothing that
//! makes sense. Nothing is opened here, and nothing fails: a damaged file is an unknown fact.

use super::jetpack::Version;
use super::machine::{PowerMode, Ram, Swap};

/// Longest text kept for people to read.
const LONGEST: usize = 160;
/// Most entries kept of a list.
const ENTRIES: usize = 64;

/// The first line, fit to print: without control characters and not too long.
pub fn line(text: &str) -> Option<String> {
    let first = text.split(['\n', '\0']).next()?.trim();
    let clean: String = first.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').take(LONGEST).collect();
    (!clean.trim().is_empty()).then(|| clean.trim().to_string())
}

/// The strings of a device tree's property, each ended by a zero byte.
pub fn strings(text: &str) -> Vec<String> {
    text.split('\0').filter_map(line).take(ENTRIES).collect()
}

/// A number on the first line.
pub fn number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Degrees from thousandths of a degree; what no board survives is no temperature.
pub fn celsius(text: &str) -> Option<f64> {
    let millis: i64 = text.trim().parse().ok()?;
    (-60_000..=200_000).contains(&millis).then(|| millis as f64 / 1e3)
}

/// The release in `/etc/nv_tegra_release`: `# R36 (release), REVISION: 4.3, GCID: …`.
pub fn tegra_release(text: &str) -> Option<Version> {
    let major: u32 = text.split_once("# R")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let Version(minor, patch, _) = Version::parse(text.split_once("REVISION:")?.1)?;
    Some(Version(major, minor, patch))
}

/// The version of an installed package in `/var/lib/dpkg/status`.
pub fn package(status: &str, name: &str) -> Option<String> {
    let mut stanzas = status.split("\n\n");
    let stanza = stanzas.find(|stanza| {
        let mut lines = stanza.lines();
        lines.any(|line| line.strip_prefix("Package: ").is_some_and(|found| found.trim() == name))
            && stanza.contains("\nStatus: install ok installed")
    })?;
    stanza.lines().find_map(|text| line(text.strip_prefix("Version: ")?))
}

/// The mode's number in `/var/lib/nvpmodel/status`: `pmode:0002 fmode:…`.
pub fn power_mode(status: &str) -> Option<u32> {
    let digits = status.split_once("pmode:")?.1.trim_start();
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The modes of `/etc/nvpmodel.conf`: lines such as `< POWER_MODEL ID=2 NAME=MAXN_SUPER >`.
pub fn power_modes(conf: &str) -> Vec<PowerMode> {
    let entry = |text: &str| {
        let inner =
            text.trim().strip_prefix('<')?.trim_end_matches('>').trim().strip_prefix("POWER_MODEL ")?;
        let field = |key: &str| inner.split_ascii_whitespace().find_map(|part| part.strip_prefix(key));
        Some(PowerMode { id: field("ID=")?.parse().ok()?, name: line(field("NAME=")?)? })
    };
    conf.lines().filter_map(entry).take(ENTRIES).collect()
}

/// Memory in `/proc/meminfo`.
pub fn meminfo(text: &str) -> Option<Ram> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal:")?;
    let swap = field("SwapTotal:").unwrap_or(0);
    let swapped = swap.saturating_sub(field("SwapFree:").unwrap_or(swap));
    Some(Ram { total, available: field("MemAvailable:")?.min(total), swapped })
}

/// `/proc/swaps`: a heading, then name, type, size and use in KiB, priority.
pub fn swaps(text: &str) -> Vec<Swap> {
    let entry = |text: &str| {
        let mut words = text.split_ascii_whitespace();
        let name = line(words.next()?)?;
        let bytes = words.nth(1)?.parse::<u64>().ok()?.checked_mul(1024)?;
        Some(Swap { name, bytes })
    };
    text.lines().skip(1).filter_map(entry).take(ENTRIES).collect()
}

/// The longest version among a folder's names that begin with `prefix`: `libnvinfer.so.10.3.0` beside
/// `libnvinfer.so.10`.
pub fn library(names: &[String], prefix: &str) -> Option<Version> {
    let versions = names.iter().filter_map(|name| name.strip_prefix(prefix));
    versions.max_by_key(|version| version.matches('.').count()).and_then(Version::parse)
}

/// CUDA's version in `version.json`.
pub fn cuda(text: &str) -> Option<Version> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let part = |name: &str| Version::parse(json.get(name)?.get("version")?.as_str()?);
    part("cuda").or_else(|| part("cuda_cudart")).or_else(|| part("cuda_nvcc"))
}

/// The system's name in `/etc/os-release`.
pub fn os_name(text: &str) -> Option<String> {
    text.lines().find_map(|text| line(text.strip_prefix("PRETTY_NAME=")?.trim_matches(['"', '\''])))
}

/// Bytes free for everybody, from `df -Pk`: the column of blocks of 1 KiB before the percentage (names before and after it may hold spaces).
pub fn disk_free(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.lines().nth(1)?.split_ascii_whitespace().collect();
    let percentage = words.iter().position(|word| word.ends_with('%'))?;
    words.get(percentage.checked_sub(1)?)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_boards_write_is_read() {
        let release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n";
        assert_eq!(tegra_release(release), Some(Version(36, 4, 3)));
        assert_eq!(tegra_release("# R39 (release), REVISION: 2.0\n"), Some(Version(39, 2, 0)));
        assert_eq!(
            line("NVIDIA Jetson Orin NX\u{1b}[31m Kit\0\0").as_deref(),
            Some("NVIDIA Jetson Orin NX[31m Kit")
        );
        assert_eq!(strings("nvidia,p3768\0nvidia,tegra234\0"), ["nvidia,p3768", "nvidia,tegra234"]);
        assert_eq!(power_mode("pmode:0002 fmode:fanNull\n"), Some(2));
        let conf = "# < POWER_MODEL ID=9 NAME=OLD >\n< PM_CONFIG DEFAULT=0 >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n\
                    < POWER_MODEL ID=2 NAME=MAXN_SUPER >\n";
        let modes: Vec<_> = power_modes(conf).into_iter().map(|mode| (mode.id, mode.name)).collect();
        assert_eq!(modes, [(0, "15W".to_string()), (2, "MAXN_SUPER".to_string())]);
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: nvidia-jetpack\n\
                      Status: install ok installed\nVersion: 6.2+b77\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n";
        assert_eq!(package(status, "nvidia-jetpack").as_deref(), Some("6.2+b77"));
        assert_eq!((package(status, "b"), package(status, "jetpack")), (None, None));
        let swaps = swaps(
            "Filename Type Size Used Priority\n/dev/zram0 partition 650000 0 5\n/swapfile file 8388604 0 -2\n",
        );
        assert_eq!((swaps.len(), swaps[1].bytes), (2, 8_388_604 * 1024));
        let names =
            ["libnvinfer.so", "libnvinfer.so.10", "libnvinfer.so.10.3.0", "libz.so.1"].map(String::from);
        assert_eq!(library(&names, "libnvinfer.so."), Some(Version(10, 3, 0)));
        assert_eq!(cuda(r#"{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}"#), Some(Version(12, 6, 11)));
        assert_eq!(
            os_name("NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\n").as_deref(),
            Some("Ubuntu 22.04.5 LTS")
        );
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/nvme0n1p1 100 60 40 60% /\n";
        assert_eq!(disk_free(df), Some(40 << 10));
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/my disk 1000 400 600 40% /mnt/my data\n";
        assert_eq!((disk_free(df), disk_free("a\nb c d e\n")), (Some(600 << 10), None));
        assert_eq!(
            (celsius("48531\n"), celsius("-256000"), celsius("9999999999")),
            (Some(48.531), None, None)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_a_parser(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for prefix in ["", "# R", "# R36 (release), REVISION:", "pmode:", "< POWER_MODEL ID=", "MemTotal: ", "Package: x\nVersion: ", "{\"cuda\":"] {
                let text = format!("{prefix}{text}");
                assert!(line(&text).is_none_or(|line| line.len() <= 4 * LONGEST && !line.contains(['\n', '\u{1b}'])));
                let _ = (strings(&text), number(&text), celsius(&text), tegra_release(&text), package(&text, "x"));
                let _ = (power_mode(&text), power_modes(&text), meminfo(&text), swaps(&text), cuda(&text), os_name(&text));
                let _ = (disk_free(&text), library(std::slice::from_ref(&text), ""), Version::parse(&text));
            }
        }
    }
}

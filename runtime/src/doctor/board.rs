//! What the facts about a machine mean for its board: one line per thing, with the remedy.
//!
//! Comes in: a [`Machine`] and the profile it is judged by. Goes out: [`Check`]s. It is arithmetic on facts:
//! nothing is read, run or changed, so that fixtures and a root file system that is not running yet are
//! judged as a board is. Of what only NVIDIA's boards have, other machines hear nothing.

use super::Check;
use crate::board::jetpack::{release, releases};
use crate::board::{Board, Machine, PowerMode, Version};
use crate::budget::size;

/// Degrees below the point where clocks are slowed from which a board counts as hot.
const NEAR: f64 = 10.0;
/// Boards with less memory than this feel a desktop and compressed swap.
const SMALL_MIB: u64 = 20 << 10;
/// About what a desktop takes.
const DESKTOP: &str = "about 800 MB";
/// Swapped out, this much is no accident.
const SWAPPED: u64 = 64 << 20;
/// Files of the plugins that hold the elements of Jetson boards.
const PLUGINS: [(&str, &str); 3] = [
    ("nvarguscamerasrc", "libgstnvarguscamerasrc.so"),
    ("nvvidconv", "libgstnvvidconv.so"),
    ("nvv4l2decoder", "libgstnvvideo4linux2.so"),
];
/// How the elements of Jetson boards are got, wherever the program runs.
pub const ELEMENTS: &str = "sudo apt install nvidia-l4t-gstreamer nvidia-l4t-camera, then rm -rf ~/.cache/gstreamer-1.0; in a container, start it \
     with --runtime nvidia and mount /tmp/argus_socket";

/// All lines about the board, what it is first.
pub fn checks(machine: &Machine, board: &Board) -> Vec<Check> {
    let mut all = vec![identity(machine, board)];
    if board.is_jetson() {
        all.push(jetson_linux(machine, board));
        all.extend(libraries(machine));
        all.push(power_mode(machine, board));
        all.push(clocks(machine));
        all.extend(power_supply(machine));
    }
    all.extend(temperature(machine, board));
    all.extend(swap(machine, board));
    all.extend(desktop(machine, board));
    all.extend(cameras(machine, board));
    all
}

/// The camera and decoder elements of a profile, by the plugins' files: for a root file system in which
/// GStreamer cannot be asked.
pub fn plugins(machine: &Machine, board: &Board) -> Vec<Check> {
    let check = |(element, file): &(&str, &str)| match machine.nv_plugins.iter().any(|name| name == file) {
        true => Check::ok(element, false, *file),
        false => Check::note(element, format!("{file} is not there"), ELEMENTS),
    };
    if board.is_jetson() { PLUGINS.iter().map(check).collect() } else { Vec::new() }
}

fn identity(machine: &Machine, board: &Board) -> Check {
    let (identity, title) = (&machine.identity, &board.title);
    let model = identity.model.as_deref().unwrap_or("no device tree");
    let memory = identity.memory.map_or("unknown memory".into(), size);
    let found = format!("{} ({title}): {model}, {memory}", board.name);
    if (identity.is_tegra() || machine.l4t.is_some()) && !board.is_jetson() {
        let names: Vec<&str> = Board::names().into_iter().filter(|name| name.starts_with("jetson")).collect();
        let remedy = format!(
            "Jetson Linux on a board that is not known; name it or the nearest with --board: {}",
            names.join(", ")
        );
        return Check::note("board", found, remedy);
    }
    // Modules of one name come with less or more memory: what the machine has counts in every budget.
    let other =
        |mib: u64| identity.memory.is_some_and(|bytes| bytes >> 20 < mib * 3 / 4 || bytes >> 20 > mib);
    match board.memory.mib.filter(|mib| other(*mib)) {
        Some(mib) => {
            let remedy =
                "budgets go by the memory that is there; figures of the profile are for the other module";
            Check::note("board", format!("{found} (the profile's module has {})", size(mib << 20)), remedy)
        }
        None => Check::ok("board", false, found),
    }
}

fn jetson_linux(machine: &Machine, board: &Board) -> Check {
    const NAME: &str = "Jetson Linux";
    let majors = board.l4t.iter().map(|major| format!("R{major}")).collect::<Vec<_>>().join(", ");
    let Some(l4t) = machine.l4t else {
        let remedy = if machine.container {
            "in a container, mount the board's: -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro"
        } else {
            "the board was not flashed with Jetson Linux, or /etc/nv_tegra_release was removed"
        };
        return Check::note(NAME, "unknown: /etc/nv_tegra_release is missing or says nothing", remedy);
    };
    let installed =
        machine.jetpack.as_ref().map_or(String::new(), |version| format!(", nvidia-jetpack {version}"));
    let row = release(l4t);
    let known =
        row.as_ref().map_or("no JetPack that is known here".into(), |row| format!("JetPack {}", row.jetpack));
    let brings = row.as_ref().map_or(String::new(), |row| {
        format!(", with Ubuntu {}, glibc {}, GStreamer {}", row.ubuntu, row.glibc, row.gstreamer)
    });
    let found = format!("{l4t} ({known}){installed}{brings}");
    let newest = releases().last().map_or(0, |row| row.l4t.0);
    match board.l4t.first() {
        Some(oldest) if l4t.0 < *oldest => {
            let remedy = format!("too old: {} runs with {majors}; flash one of these", board.title);
            Check::no(NAME, found, remedy)
        }
        _ if l4t.0 > newest => {
            let remedy =
                format!("newer than this program knows ({majors} are known for the board); it may well work");
            Check::note(NAME, found, remedy)
        }
        _ if !board.l4t.contains(&l4t.0) => {
            let remedy = format!("not known to run on {}; {majors} are", board.title);
            Check::note(NAME, found, remedy)
        }
        _ if row.is_none() => {
            Check::note(NAME, found, "a preview, or older than the first release; flash a release")
        }
        _ => Check::ok(NAME, true, found),
    }
}

/// CUDA, TensorRT and cuDNN, beside what JetPack installs.
fn libraries(machine: &Machine) -> Vec<Check> {
    let row = machine.l4t.and_then(release);
    let parts = [
        ("CUDA", machine.cuda, row.as_ref().map(|row| row.cuda)),
        ("TensorRT", machine.tensorrt, row.as_ref().map(|row| row.tensorrt)),
        ("cuDNN", machine.cudnn, row.as_ref().and_then(|row| row.cudnn)),
    ];
    let without = |name: &str| match name {
        "CUDA" => "only --device cuda (cuBLAS, cuRAND) and the GPU of --encoder ort need it",
        _ => "only the GPU of --encoder ort needs it",
    };
    let check = |(name, found, meant): (&str, Option<Version>, Option<Version>)| {
        let short = |version: Version| format!("{}.{}", version.0, version.1);
        let jetpack = row.as_ref().map_or(String::new(), |row| format!("JetPack {}", row.jetpack));
        match (found, meant) {
            (None, _) => {
                let remedy = format!("{}: sudo apt install nvidia-jetpack", without(name));
                Check::note(name, "not installed", remedy)
            }
            (Some(found), Some(meant)) if found.0 != meant.0 => {
                let found = format!("{found}, but {jetpack} brings {}", short(meant));
                Check::note(
                    name,
                    found,
                    "engines and ONNX Runtime must be built for this major; sudo apt install --reinstall nvidia-jetpack",
                )
            }
            (Some(found), Some(meant)) if (found.0, found.1) != (meant.0, meant.1) => {
                Check::ok(name, false, format!("{found} ({jetpack} brings {})", short(meant)))
            }
            (Some(found), _) => Check::ok(name, false, found.to_string()),
        }
    };
    parts.map(check).into()
}

/// How fast a mode is, by its name: MAXN_SUPER, MAXN, then watts, then cores.
fn rank(name: &str) -> (u32, u32, u32) {
    let number = |unit: &str| {
        let head = name.split(unit).next().filter(|head| head.len() < name.len())?;
        head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let open = if name.contains("MAXN_SUPER") { 2 } else { u32::from(name.contains("MAXN")) };
    (open, number("W").unwrap_or(0), number("CORE").unwrap_or(0))
}

fn power_mode(machine: &Machine, board: &Board) -> Check {
    const NAME: &str = "power mode";
    let profile =
        || board.power.iter().map(|mode| PowerMode { id: mode.id, name: mode.name.clone() }).collect();
    // The machine's own list counts: the same board has other modes in another configuration.
    let modes: Vec<PowerMode> =
        if machine.power_modes.is_empty() { profile() } else { machine.power_modes.clone() };
    let Some(id) = machine.power_mode else {
        return Check::ok(NAME, false, "unknown: /var/lib/nvpmodel/status is missing or says nothing");
    };
    let Some(mode) = modes.iter().find(|mode| mode.id == id) else {
        return Check::note(
            NAME,
            format!("{id}, which /etc/nvpmodel.conf does not list"),
            "sudo nvpmodel -q says which it is",
        );
    };
    let fastest = modes.iter().max_by_key(|mode| (rank(&mode.name), std::cmp::Reverse(mode.id)));
    // Told only where modes differ in it.
    let differ = board.power.iter().any(|mode| mode.bandwidth_gb_s.is_some());
    let bandwidth = |name: &str| {
        let slower = board.power.iter().find(|mode| mode.name == name).and_then(|mode| mode.bandwidth_gb_s);
        let speed = slower.or(board.memory.bandwidth_gb_s).filter(|_| differ);
        speed.map_or(String::new(), |speed| format!(", memory at {speed} GB/s"))
    };
    let found = format!("{} ({id}){}", mode.name, bandwidth(&mode.name));
    match fastest.filter(|fastest| rank(&fastest.name) > rank(&mode.name)) {
        Some(fastest) => {
            let remedy = format!(
                "sudo nvpmodel -m {} for {}{}; it asks to restart where it must",
                fastest.id,
                fastest.name,
                bandwidth(&fastest.name)
            );
            Check::note(NAME, found, remedy)
        }
        None => Check::ok(NAME, false, found),
    }
}

fn clocks(machine: &Machine) -> Check {
    const NAME: &str = "clocks";
    let known = [("processor", &machine.cpu), ("GPU", &machine.gpu), ("memory", &machine.emc)];
    let known = known.into_iter().filter_map(|(name, clock)| Some((name, clock.as_ref()?)));
    let mhz = |value: Option<u64>| value.map_or("?".into(), |mhz| mhz.to_string());
    let (mut words, mut free) = (Vec::new(), Vec::new());
    for (name, clock) in known {
        words.push(format!("{name} {} of {} MHz", mhz(clock.now), mhz(clock.max)));
        // The memory's clock follows the others.
        if clock.locked() == Some(false) && name != "memory" {
            free.push(name);
        }
    }
    if words.is_empty() {
        return Check::ok(NAME, false, "unknown");
    }
    let found = words.join(", ");
    if free.is_empty() {
        return Check::ok(NAME, false, found);
    }
    let remedy =
        "sudo jetson_clocks holds them at their most until the next start; after nvpmodel, not before";
    Check::note(NAME, format!("{found}; not held: {}", free.join(", ")), remedy)
}

fn power_supply(machine: &Machine) -> Option<Check> {
    let count = machine.over_current?;
    Some(if count == 0 {
        Check::ok("power supply", false, "never throttled for power since the start")
    } else {
        let remedy = "a stronger supply and a short cable, or a lower power mode (sudo nvpmodel -m …): clocks are slowed each time";
        Check::note("power supply", format!("throttled for power {count} times since the start"), remedy)
    })
}

fn temperature(machine: &Machine, board: &Board) -> Option<Check> {
    let limit = |throttle: Option<f64>| throttle.or(board.thermal.throttle_c);
    // The zone nearest to its limit; without limits the hottest.
    let room = |celsius: f64, throttle: Option<f64>| limit(throttle).unwrap_or(f64::from(u16::MAX)) - celsius;
    let zones = machine.temperatures.iter();
    let worst = zones.min_by(|a, b| room(a.celsius, a.throttle).total_cmp(&room(b.celsius, b.throttle)))?;
    let found = format!("{} {:.0} °C", worst.name, worst.celsius);
    let Some(limit) = limit(worst.throttle) else { return Some(Check::ok("temperature", false, found)) };
    let found = format!("{found}, clocks are slowed from {limit:.0} °C");
    Some(if worst.celsius >= limit - NEAR {
        let remedy =
            "a fan (sudo systemctl status nvfancontrol), free air around the board, or a lower power mode";
        Check::note("temperature", found, remedy)
    } else {
        Check::ok("temperature", false, found)
    })
}

fn small(machine: &Machine, board: &Board) -> bool {
    let there = machine.ram.map(|ram| ram.total >> 20).or(board.memory.mib);
    there.is_some_and(|mib| mib < SMALL_MIB)
}

fn swap(machine: &Machine, board: &Board) -> Option<Check> {
    const NAME: &str = "swap";
    let ram = machine.ram?;
    let total = machine.swaps.iter().fold(0u64, |sum, swap| sum.saturating_add(swap.bytes));
    let zram = machine.swaps.iter().any(|swap| swap.name.contains("zram"));
    let kind = if zram { ", some of it compressed in memory (zram)" } else { "" };
    let found = format!("{}{kind}, {} in use", size(total), size(ram.swapped));
    Some(if ram.swapped >= SWAPPED {
        let remedy = "memory ran short: stop other programs (the desktop first); pages of a model that come back from swap stall answers, so keep \
                      MemorySwapMax=0 in the service";
        Check::note(NAME, found, remedy)
    } else if zram && board.is_jetson() && small(machine, board) {
        let remedy = "weights do not compress, and zram takes memory and time to try: sudo systemctl disable --now nvzramconfig; where builds need swap, \
                      a file on NVMe (sudo fallocate -l 8G /swapfile)";
        Check::note(NAME, found, remedy)
    } else if machine.swaps.is_empty() {
        Check::ok(NAME, false, "none, and none is needed")
    } else {
        Check::ok(NAME, false, found)
    })
}

fn desktop(machine: &Machine, board: &Board) -> Option<Check> {
    const NAME: &str = "desktop";
    let target = machine.target.as_deref()?;
    // A server's default target is the graphical one too; only a log-in for it makes a desktop.
    let Some(manager) = machine.display_manager.as_deref().filter(|_| target == "graphical.target") else {
        return Some(Check::ok(NAME, false, format!("none is started ({target})")));
    };
    let found = format!("{manager} is started ({target})");
    Some(if board.is_jetson() && small(machine, board) {
        let remedy =
            format!("{DESKTOP} of memory: sudo systemctl set-default multi-user.target, then restart");
        Check::note(NAME, found, remedy)
    } else {
        Check::ok(NAME, false, format!("{found}, {DESKTOP} of memory"))
    })
}

fn cameras(machine: &Machine, board: &Board) -> Vec<Check> {
    const NAME: &str = "cameras";
    // What Linux shows of a bare sensor is of no use without the board's image processor.
    let (sensors, others): (Vec<_>, Vec<_>) =
        machine.cameras.iter().partition(|camera| camera.name.starts_with("vi-output"));
    let mut all: Vec<Check> = sensors
        .iter()
        .enumerate()
        .map(|(n, sensor)| {
            let found =
                format!("{} is a bare sensor on the camera connector ({})", sensor.device, sensor.name);
            match &board.media.csi {
                Some(_) => {
                    Check::ok(NAME, false, format!("{found}: --source csi://{n}, not {}", sensor.device))
                }
                None => Check::note(
                    NAME,
                    found,
                    "no profile with a camera connector is in use; name the board with --board",
                ),
            }
        })
        .collect();
    if !others.is_empty() {
        let names: Vec<String> =
            others.iter().take(8).map(|camera| format!("{} {}", camera.device, camera.name)).collect();
        all.push(Check::ok(NAME, false, names.join(", ")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_ranked_by_their_names() {
        let fastest =
            |names: &[&str]| names.iter().max_by_key(|name| rank(name)).map(|name| (*name).to_string());
        assert_eq!(fastest(&["15W", "25W", "MAXN_SUPER", "7W"]).as_deref(), Some("MAXN_SUPER"));
        assert_eq!(fastest(&["15W", "7W"]).as_deref(), Some("15W"));
        assert_eq!(fastest(&["MAXN", "MODE_15W", "MODE_50W"]).as_deref(), Some("MAXN"));
        let xavier = ["MODE_15W_6CORE", "MODE_20W_2CORE", "MODE_20W_6CORE", "MODE_10W_DESKTOP"];
        assert_eq!(fastest(&xavier).as_deref(), Some("MODE_20W_6CORE"));
        assert_eq!(rank(""), (0, 0, 0));
        assert_eq!(rank("99999999999999W"), (0, 0, 0));
    }
}

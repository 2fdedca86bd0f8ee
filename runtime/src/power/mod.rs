//! Power and heat: what a board's own sensors say.
//!
//! Comes in: the root of a file system (`/`, or a fixture). Goes out: watts by rail and degrees by zone at one moment ([`Meter::read`]), and what was
//! drawn over a time ([`Sampler`]). A Jetson has INA3221 monitors (under hwmon, on older releases under iio: what `tegrastats` prints stands there too),
//! Thor also an INA238 at the board's input, an x86 machine RAPL counters, where they may be read. What a machine does not show is absent, never zero. Nothing is written, nobody needs to
//! be root.

mod sampler;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use sampler::{Celsius, Sampler, Usage};

/// Rails that carry everything: where one is, the others are parts of it.
const WHOLE: [&str; 3] = ["VIN", "VDD_IN", "POM_5V_IN"];
/// A rail that is fed from another one with a monitor of its own (AGX Orin: memory, from VIN_SYS_5V0).
const INSIDE: &str = "VDDQ_VDD2_1V8AO";
/// A zone that some boards have and that always says 100 degrees.
const CONSTANT_ZONE: &str = "PMIC-Die";
/// More sensors than any board has; a folder with more is not read to its end.
const MOST: usize = 64;
/// A sensor's file is one number or one name.
const LONGEST: u64 = 256;
/// What a board can draw, in watts, and have, in degrees; the rest is a broken sensor.
const WATTS: std::ops::RangeInclusive<f64> = 0.0..=2000.0;
const DEGREES: std::ops::RangeInclusive<f64> = -50.0..=150.0;

/// The sensors of a machine.
#[derive(Debug, Default)]
pub struct Meter {
    rails: Vec<Rail>,
    zones: Vec<(String, PathBuf)>,
}

/// What the sensors said at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Watts by rail.
    pub watts: BTreeMap<String, f64>,
    /// Watts of the whole board or processor; none where a rail that counts could not be read.
    pub total: Option<f64>,
    /// Degrees Celsius by zone.
    pub celsius: BTreeMap<String, f64>,
}

#[derive(Debug)]
struct Rail {
    name: String,
    /// Whether it is added to the total.
    counts: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Files with mV and mA.
    Product(PathBuf, PathBuf),
    /// A file with mW.
    Milliwatts(PathBuf),
    /// A file with µW.
    Microwatts(PathBuf),
    /// A file with the µJ since some moment, the value after which it starts again, and what it said when.
    Counter { file: PathBuf, range: f64, last: Option<(Instant, f64)> },
}

impl Meter {
    /// Looks which sensors there are under `root`; costs a few directory listings.
    pub fn open(root: &Path) -> Self {
        let drivers = root.join("sys/bus/i2c/drivers");
        let mut rails = input(&drivers.join("ina238"));
        rails.extend(hwmon(&drivers.join("ina3221")));
        if rails.is_empty() {
            rails = iio(&drivers.join("ina3221x"));
        }
        if rails.is_empty() {
            rails = rapl(&root.join("sys/class/powercap"));
        }
        rails.truncate(MOST);
        let whole = WHOLE.iter().find(|name| rails.iter().any(|rail| rail.name == **name));
        for rail in &mut rails {
            rail.counts = whole.map_or(rail.name != INSIDE, |whole| rail.name == *whole);
        }
        let zones = list(&root.join("sys/class/thermal"), "thermal_zone").into_iter().filter_map(|zone| {
            let name = name(&zone.join("type")).filter(|name| name != CONSTANT_ZONE)?;
            Some((name, zone.join("temp")))
        });
        Self { rails, zones: zones.collect() }
    }

    /// Whether there is anything that tells power.
    pub fn has_power(&self) -> bool {
        !self.rails.is_empty()
    }

    /// Asks every sensor once. A counter tells the mean since it was last asked, and nothing the first time.
    pub fn read(&mut self) -> Reading {
        self.read_at(Instant::now())
    }

    fn read_at(&mut self, now: Instant) -> Reading {
        let mut reading = Reading::default();
        let mut all = !self.rails.is_empty();
        let mut total = 0.0;
        for rail in &mut self.rails {
            match rail.source.watts(now).filter(|watts| WATTS.contains(watts)) {
                Some(watts) => {
                    *reading.watts.entry(rail.name.clone()).or_default() += watts;
                    total += if rail.counts { watts } else { 0.0 };
                }
                None => all &= !rail.counts,
            }
        }
        reading.total = all.then_some(total);
        for (zone, file) in &self.zones {
            // A part that is switched off has a zone that cannot be read.
            let Some(degrees) = number(file).map(|m| m / 1e3).filter(|d| DEGREES.contains(d)) else {
                continue;
            };
            let hottest = reading.celsius.entry(zone.clone()).or_insert(degrees);
            *hottest = hottest.max(degrees);
        }
        reading
    }
}

impl Reading {
    /// The hottest zone's degrees.
    pub fn hottest(&self) -> Option<f64> {
        self.celsius.values().copied().max_by(f64::total_cmp)
    }
}

impl Source {
    fn watts(&mut self, now: Instant) -> Option<f64> {
        match self {
            Self::Product(volts, amperes) => Some(number(volts)? * number(amperes)? / 1e6),
            Self::Milliwatts(file) => Some(number(file)? / 1e3),
            Self::Microwatts(file) => Some(number(file)? / 1e6),
            Self::Counter { file, range, last } => {
                let microjoules = number(file)?;
                let (then, before) = last.replace((now, microjoules))?;
                let seconds = now.duration_since(then).as_secs_f64();
                let used = microjoules - before + if microjoules < before { *range } else { 0.0 };
                (seconds > 0.0 && used >= 0.0).then(|| used / 1e6 / seconds)
            }
        }
    }
}

/// INA3221 monitors as the kernel's driver shows them: three channels, each with a label, mV and mA.
fn hwmon(driver: &Path) -> Vec<Rail> {
    let monitors = list(driver, "").into_iter().flat_map(|device| list(&device.join("hwmon"), "hwmon"));
    let channels = monitors.flat_map(|monitor| {
        (1..=3).filter_map(move |n| {
            let file = |what: String| monitor.join(what);
            let source = Source::Product(file(format!("in{n}_input")), file(format!("curr{n}_input")));
            rail(&file(format!("in{n}_label")), source)
        })
    });
    channels.collect()
}

/// The monitor at the input of a board (INA238): µW, without a label.
fn input(driver: &Path) -> Vec<Rail> {
    let monitors = list(driver, "").into_iter().flat_map(|device| list(&device.join("hwmon"), "hwmon"));
    let files = monitors.map(|monitor| monitor.join("power1_input")).filter(|file| file.exists());
    // With several, which one is the board's is not known.
    let rail = |file| Rail { name: "VIN".into(), counts: true, source: Source::Microwatts(file) };
    let rails: Vec<Rail> = files.map(rail).collect();
    if rails.len() == 1 { rails } else { Vec::new() }
}

/// The same monitors as NVIDIA's older driver shows them.
fn iio(driver: &Path) -> Vec<Rail> {
    let monitors = list(driver, "").into_iter().flat_map(|device| list(&device, "iio:device"));
    let channels = monitors.flat_map(|monitor| {
        (0..=2).filter_map(move |n| {
            let source = Source::Milliwatts(monitor.join(format!("in_power{n}_input")));
            rail(&monitor.join(format!("rail_name_{n}")), source)
        })
    });
    channels.collect()
}

/// Counters of processor packages; most systems let only root read them.
fn rapl(class: &Path) -> Vec<Rail> {
    let packages = list(class, "intel-rapl:").into_iter().filter_map(|zone| {
        let file = zone.join("energy_uj");
        let last = Some((Instant::now(), number(&file)?));
        let range = number(&zone.join("max_energy_range_uj"))?;
        rail(&zone.join("name"), Source::Counter { file, range, last })
    });
    packages.filter(|rail| rail.name.starts_with("package")).collect()
}

fn rail(label: &Path, source: Source) -> Option<Rail> {
    // A channel that is not connected.
    let name = name(label).filter(|name| name != "NC")?;
    Some(Rail { name, counts: true, source })
}

/// Entries of a folder whose name begins so, in order of their names; none where there is no such folder.
fn list(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(MOST);
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    paths.sort();
    paths
}

/// The first bytes of a file as text; none where it cannot be read or says nothing.
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_string())
}

fn number(path: &Path) -> Option<f64> {
    text(path)?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A sensor's name as it may stand in a label.
fn name(path: &Path) -> Option<String> {
    let known = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    Some(text(path)?.chars().take(48).map(known).collect())
}

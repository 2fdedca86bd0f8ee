//! Power and heat: what a board's own sensors say.
//!
//! Comes in: a root folder ([`Root`]). Goes out: watts by rail and degrees by zone at one moment ([`Meter::read`]), and what was
//! drawn over a time ([`Sampler`]). A Jetson has INA3221 monitors (under hwmon, on older releases under iio: what `tegrastats` prints stands there too),
//! Thor also an INA238 at the board's input, an x86 machine RAPL counters, where they may be read. What a machine does not show is absent, never zero. Nothing is written, nobody needs to
//! be root.

mod sampler;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::board::{Root, ThermalZone};

pub use sampler::{Celsius, Sampler, Usage};

/// Rails that carry everything: where one is, the others are parts of it.
const WHOLE: [&str; 3] = ["VIN", "VDD_IN", "POM_5V_IN"];
/// A rail that is fed from another one with a monitor of its own (AGX Orin: memory, from VIN_SYS_5V0).
const INSIDE: &str = "VDDQ_VDD2_1V8AO";
/// More rails than any board has.
const MOST: usize = 64;
/// What a board can draw, in watts; the rest is a broken sensor.
const WATTS: std::ops::RangeInclusive<f64> = 0.0..=2000.0;

/// The sensors of a machine.
#[derive(Debug)]
pub struct Meter {
    root: Root,
    rails: Vec<Rail>,
    zones: Vec<ThermalZone>,
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
    Product(String, String),
    /// A file with mW.
    Milliwatts(String),
    /// A file with µW.
    Microwatts(String),
    /// A file with the µJ since some moment, the value after which it starts again, and what it said when.
    Counter { file: String, range: f64, last: Option<(Instant, f64)> },
}

impl Meter {
    /// Looks which sensors there are under `root`; costs a few directory listings.
    pub fn open(root: &Root) -> Self {
        let mut rails = input(root);
        rails.extend(hwmon(root));
        if rails.is_empty() {
            rails = iio(root);
        }
        if rails.is_empty() {
            rails = rapl(root);
        }
        rails.truncate(MOST);
        let whole = WHOLE.iter().find(|name| rails.iter().any(|rail| rail.name == **name));
        for rail in &mut rails {
            rail.counts = whole.map_or(rail.name != INSIDE, |whole| rail.name == *whole);
        }
        Self { root: root.clone(), rails, zones: ThermalZone::all(root) }
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
            match rail.source.watts(&self.root, now).filter(|watts| WATTS.contains(watts)) {
                Some(watts) => {
                    *reading.watts.entry(rail.name.clone()).or_default() += watts;
                    total += if rail.counts { watts } else { 0.0 };
                }
                None => all &= !rail.counts,
            }
        }
        reading.total = all.then_some(total);
        for zone in &self.zones {
            let Some(degrees) = zone.celsius(&self.root) else { continue };
            let hottest = reading.celsius.entry(label(&zone.name)).or_insert(degrees);
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
    fn watts(&mut self, root: &Root, now: Instant) -> Option<f64> {
        match self {
            Self::Product(volts, amperes) => Some(number(root, volts)? * number(root, amperes)? / 1e6),
            Self::Milliwatts(file) => Some(number(root, file)? / 1e3),
            Self::Microwatts(file) => Some(number(root, file)? / 1e6),
            Self::Counter { file, range, last } => {
                let microjoules = number(root, file)?;
                let (then, before) = last.replace((now, microjoules))?;
                let seconds = now.duration_since(then).as_secs_f64();
                let used = microjoules - before + if microjoules < before { *range } else { 0.0 };
                (seconds > 0.0 && used >= 0.0).then(|| used / 1e6 / seconds)
            }
        }
    }
}

/// The folders in which a driver of the I2C bus shows its monitors under hwmon.
fn monitors(root: &Root, driver: &str) -> Vec<String> {
    let devices = root.paths(&format!("sys/bus/i2c/drivers/{driver}"), "");
    devices.iter().flat_map(|device| root.paths(&format!("{device}/hwmon"), "hwmon")).collect()
}

/// INA3221 monitors as the kernel's driver shows them: three channels, each with a label, mV and mA.
fn hwmon(root: &Root) -> Vec<Rail> {
    let channels = monitors(root, "ina3221").into_iter().flat_map(|monitor| {
        (1..=3).filter_map(move |n| {
            let (volts, amperes) = (format!("{monitor}/in{n}_input"), format!("{monitor}/curr{n}_input"));
            rail(root, &format!("{monitor}/in{n}_label"), Source::Product(volts, amperes))
        })
    });
    channels.collect()
}

/// The monitor at the input of a board (INA238): µW, without a label.
fn input(root: &Root) -> Vec<Rail> {
    let files = monitors(root, "ina238").into_iter().map(|monitor| format!("{monitor}/power1_input"));
    // With several, which one is the board's is not known.
    let rail = |file| Rail { name: "VIN".into(), counts: true, source: Source::Microwatts(file) };
    let rails: Vec<Rail> = files.filter(|file| root.exists(file)).map(rail).collect();
    if rails.len() == 1 { rails } else { Vec::new() }
}

/// The same monitors as NVIDIA's older driver shows them.
fn iio(root: &Root) -> Vec<Rail> {
    let devices = root.paths("sys/bus/i2c/drivers/ina3221x", "").into_iter();
    let monitors = devices.flat_map(|device| root.paths(&device, "iio:device"));
    let channels = monitors.flat_map(|monitor| {
        (0..=2).filter_map(move |n| {
            let source = Source::Milliwatts(format!("{monitor}/in_power{n}_input"));
            rail(root, &format!("{monitor}/rail_name_{n}"), source)
        })
    });
    channels.collect()
}

/// Counters of processor packages; most systems let only root read them.
fn rapl(root: &Root) -> Vec<Rail> {
    let packages = root.paths("sys/class/powercap", "intel-rapl:").into_iter().filter_map(|zone| {
        let file = format!("{zone}/energy_uj");
        let last = Some((Instant::now(), number(root, &file)?));
        let range = number(root, &format!("{zone}/max_energy_range_uj"))?;
        rail(root, &format!("{zone}/name"), Source::Counter { file, range, last })
    });
    packages.filter(|rail| rail.name.starts_with("package")).collect()
}

/// A rail that is named in a file.
fn rail(root: &Root, file: &str, source: Source) -> Option<Rail> {
    // A channel that is not connected.
    let name = root.line(file).filter(|name| name != "NC")?;
    Some(Rail { name: label(&name), counts: true, source })
}

fn number(root: &Root, file: &str) -> Option<f64> {
    root.number(file).map(|number| number as f64)
}

/// A sensor's name as it may stand in a label.
fn label(name: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().take(48).map(known).collect()
}

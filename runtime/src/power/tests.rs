//! Sensors of several boards as folders: what is read, what is added up, what is left out.
//!
//! In: files as the kernel shows them, good and bad. Out: watts, joules and degrees that follow from them by hand.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::sampler::Tally;
use super::*;

fn open(root: &Path) -> Meter {
    Meter::open(&Root::new(root))
}

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A channel of an INA3221: label, mV, mA.
fn channel(root: &Path, device: &str, n: usize, label: &str, volts: &str, amperes: &str) {
    let folder = format!("sys/bus/i2c/drivers/ina3221/{device}/hwmon/hwmon1");
    file(root, &format!("{folder}/in{n}_label"), &format!("{label}\n"));
    file(root, &format!("{folder}/in{n}_input"), &format!("{volts}\n"));
    file(root, &format!("{folder}/curr{n}_input"), &format!("{amperes}\n"));
}

fn zone(root: &Path, n: usize, kind: &str, temp: &str) {
    file(root, &format!("sys/class/thermal/thermal_zone{n}/type"), kind);
    file(root, &format!("sys/class/thermal/thermal_zone{n}/temp"), temp);
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

#[test]
fn the_input_of_a_module_is_its_total() {
    let root = tempfile::tempdir().unwrap();
    channel(root.path(), "1-0040", 1, "VDD_IN", "5000", "1200");
    channel(root.path(), "1-0040", 2, "VDD_CPU_GPU_CV", "5000", "400");
    channel(root.path(), "1-0040", 3, "VDD_SOC", "5000", "300");
    file(root.path(), "sys/bus/i2c/drivers/ina3221/bind", "");
    zone(root.path(), 0, "cpu-thermal\n", "48250\n");
    zone(root.path(), 1, "gpu-thermal\n", "51000\n");
    let mut meter = open(root.path());
    assert!(meter.has_power());
    let reading = meter.read();
    close(reading.total.unwrap(), 6.0);
    close(reading.watts["VDD_SOC"], 1.5);
    assert_eq!(reading.watts.len(), 3);
    assert_eq!((reading.celsius["cpu-thermal"], reading.hottest()), (48.25, Some(51.0)));
}

#[test]
fn without_an_input_rails_are_added_but_none_twice() {
    let root = tempfile::tempdir().unwrap();
    channel(root.path(), "1-0040", 1, "VDD_GPU_SOC", "20000", "500");
    channel(root.path(), "1-0040", 2, "VDD_CPU_CV", "20000", "200");
    channel(root.path(), "1-0040", 3, "VIN_SYS_5V0", "5000", "1000");
    channel(root.path(), "1-0041", 1, "NC", "0", "0");
    channel(root.path(), "1-0041", 2, "VDDQ_VDD2_1V8AO", "5000", "200");
    let mut meter = open(root.path());
    let reading = meter.read();
    close(reading.total.unwrap(), 19.0);
    close(reading.watts["VDDQ_VDD2_1V8AO"], 1.0);
    assert!(!reading.watts.contains_key("NC"));
    // A rail that counts goes silent: the others are told, a total would be wrong.
    std::fs::remove_file(root.path().join("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in2_input"))
        .unwrap();
    let reading = meter.read();
    assert_eq!((reading.total, reading.watts.len()), (None, 3));
}

#[test]
fn the_input_of_a_board_is_its_total() {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon2/power1_input", "23000000\n");
    channel(root.path(), "2-0040", 1, "VDD_GPU", "20000", "300");
    channel(root.path(), "2-0040", 2, "VDD_CPU_SOC_MSS", "20000", "200");
    channel(root.path(), "2-0040", 3, "VIN_SYS_5V0", "5000", "600");
    let reading = open(root.path()).read();
    close(reading.total.unwrap(), 23.0);
    close(reading.watts["VDD_GPU"], 6.0);
}

#[test]
fn the_boards_of_the_fixtures_tell_their_watts() {
    let boards = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boards"));
    // mV times mA, by hand.
    for (board, watts, rails) in [
        ("orin-nano-r36.4.3", 5.298_688, 3),
        ("orin-nano-super-r36.4.4", 5.298_688, 3),
        ("orin-nx-r35.4.1", 5.298_688, 3),
        ("xavier-nx-r35.4.1", 5.298_688, 3),
        ("agx-orin-32-r35.6.1", 8.0256, 4),
        ("agx-orin-r36.2.0", 8.0256, 4),
        ("agx-orin-r39.2.0", 8.0256, 4),
        ("thor-r38.2.0", 31.2, 4),
    ] {
        let reading = open(&boards.join(board)).read();
        close(reading.total.unwrap(), watts);
        assert_eq!(reading.watts.len(), rails, "{board}");
        assert!(reading.hottest().is_some(), "{board}");
    }
    for board in ["raspberry-pi-5", "rootfs-r36.4.3"] {
        assert!(!open(&boards.join(board)).has_power(), "{board}");
    }
}

#[test]
fn links_are_followed_inside_the_root() {
    let (root, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    channel(root.path(), "devices", 1, "VDD_IN", "5000", "1000");
    zone(root.path(), 0, "cpu-thermal", "48250");
    zone(host.path(), 1, "host-thermal", "50000");
    let thermal = "sys/class/thermal/thermal_zone1";
    symlink(host.path().join(thermal), root.path().join(thermal)).unwrap();
    let drivers = root.path().join("sys/bus/i2c/drivers");
    std::fs::rename(drivers.join("ina3221/devices"), root.path().join("sys/1-0040")).unwrap();
    symlink("/sys/1-0040", drivers.join("ina3221/1-0040")).unwrap();
    let reading = open(root.path()).read();
    close(reading.total.unwrap(), 5.0);
    assert_eq!(reading.celsius.keys().collect::<Vec<_>>(), ["cpu-thermal"]);
}

#[test]
fn older_releases_show_milliwatts() {
    let root = tempfile::tempdir().unwrap();
    let folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
    for (n, name, power) in [(0, "POM_5V_IN", "3100"), (1, "POM_5V_GPU", "40"), (2, "POM_5V_CPU", "900")] {
        file(root.path(), &format!("{folder}/rail_name_{n}"), name);
        file(root.path(), &format!("{folder}/in_power{n}_input"), power);
    }
    let reading = open(root.path()).read();
    close(reading.total.unwrap(), 3.1);
    close(reading.watts["POM_5V_CPU"], 0.9);
}

#[test]
fn a_counter_tells_the_mean_and_may_wrap() {
    let root = tempfile::tempdir().unwrap();
    for (zone, name) in [("intel-rapl:0", "package-0"), ("intel-rapl:1", "psys"), ("intel-rapl:0:0", "core")]
    {
        file(root.path(), &format!("sys/class/powercap/{zone}/name"), name);
        file(root.path(), &format!("sys/class/powercap/{zone}/energy_uj"), "1000000");
        file(root.path(), &format!("sys/class/powercap/{zone}/max_energy_range_uj"), "10000000");
    }
    let mut meter = open(root.path());
    let start = Instant::now() + Duration::from_secs(1);
    meter.read_at(start);
    let mut at = |seconds: u64, microjoules: &str| {
        file(root.path(), "sys/class/powercap/intel-rapl:0/energy_uj", microjoules);
        meter.read_at(start + Duration::from_secs(seconds))
    };
    let reading = at(2, "7000000");
    assert_eq!(reading.watts.keys().collect::<Vec<_>>(), ["package-0"]);
    close(reading.total.unwrap(), 3.0);
    close(at(3, "1000000").total.unwrap(), 4.0);
    assert_eq!(at(4, "broken").total, None);
}

#[test]
fn broken_sensors_are_left_out_and_nothing_panics() {
    let root = tempfile::tempdir().unwrap();
    channel(root.path(), "1-0040", 1, "VDD_IN", "99999999", "99999999");
    channel(root.path(), "1-0040", 2, "A \"label\"\\ of\nlines", "NaN", "1");
    channel(root.path(), "1-0040", 3, &"x".repeat(5000), "5000", "100");
    zone(root.path(), 0, "cv0-thermal", "");
    zone(root.path(), 1, "tj-thermal", "-256000");
    zone(root.path(), 2, "PMIC-Die", "100000");
    zone(root.path(), 3, "inf", "inf");
    std::fs::write(root.path().join("sys/class/thermal/thermal_zone3/type"), [0xff, 0xfe]).unwrap();
    std::fs::create_dir_all(root.path().join("sys/class/thermal/thermal_zone4/temp")).unwrap();
    file(root.path(), "sys/class/thermal/thermal_zone4/type", "folder");
    let reading = open(root.path()).read();
    assert_eq!(reading.total, None, "{reading:?}");
    assert_eq!(reading.watts.len(), 1);
    assert!(reading.watts.keys().all(|name| name.len() <= 48), "{reading:?}");
    assert!(reading.celsius.is_empty(), "{reading:?}");
    let nothing = open(&root.path().join("none")).read();
    assert_eq!(nothing, Reading::default());
}

#[test]
fn energy_is_the_sum_of_the_intervals() {
    let reading = |watts: Option<f64>, degrees: f64| Reading {
        total: watts,
        celsius: BTreeMap::from([("cpu".to_string(), degrees)]),
        ..Reading::default()
    };
    let mut tally = Tally::new(&reading(Some(99.0), 40.0));
    tally.add(&reading(Some(10.0), 60.0), 2.0);
    tally.add(&reading(Some(4.0), 50.0), 1.0);
    let usage = tally.usage();
    close(usage.watts.unwrap(), 8.0);
    close(usage.joules.unwrap(), 24.0);
    assert_eq!(usage.celsius, Some(Celsius { before: 40.0, peak: 60.0, after: 50.0 }));
    // A gap is filled with the mean as long as most was seen.
    tally.add(&reading(None, 50.0), 1.0);
    close(tally.usage().joules.unwrap(), 32.0);
    tally.add(&reading(None, 50.0), 100.0);
    assert_eq!(tally.usage().joules, None);
    assert_eq!(Tally::new(&Reading::default()).usage(), Usage::default());
}

#[test]
fn a_sampler_sees_what_a_board_draws_and_needs_no_sensor() {
    let root = tempfile::tempdir().unwrap();
    let sampler = Sampler::start(open(root.path()));
    assert!(!sampler.sees_power());
    assert_eq!(sampler.stop(), Usage::default());
    channel(root.path(), "1-0040", 1, "VDD_IN", "5000", "1000");
    let sampler = Sampler::start(open(root.path()));
    assert!(sampler.sees_power());
    let usage = sampler.stop();
    close(usage.watts.unwrap(), 5.0);
    assert!(usage.joules.unwrap() > 0.0 && usage.celsius.is_none());
}

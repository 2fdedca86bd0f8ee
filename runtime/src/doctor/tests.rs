//! What each board is told, and that damaged files are unknown facts.
//!
//! Comes in: the root folders of `runtime/tests/boards`. Goes out: nothing. None of them is a board's own
//! (see the README there).

use std::os::unix::fs::symlink;
use std::path::Path;

use utr_models::bundle::hash_file;

use super::*;
use crate::error::Error;

const BOARDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boards");
const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/utr-nano");

fn options(root: &Path, board: Option<&str>, bundle: &Path) -> Options {
    Options {
        root: root.to_path_buf(),
        board: board.map(|name| Board::named(name).unwrap()),
        source: None,
        bundle: Ok(bundle.to_path_buf()),
        wish: Wish::default(),
        engines: Engines::default(),
        capture: CaptureOptions::default(),
    }
}

fn look(board: &str) -> Report {
    examine(&options(&Path::new(BOARDS).join(board), None, Path::new(NANO))).unwrap()
}

/// The line with a name.
fn line<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no line {name}"))
}

/// The lines that are not ok: all of them are compared, so that nothing is told that should not be.
fn notes(report: &Report) -> Vec<&str> {
    report.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
}

/// Every part is in the line's text or remedy.
fn says(report: &Report, name: &str, parts: &[&str]) {
    let text = line(report, name).to_string();
    for part in parts {
        assert!(text.contains(part), "{name} lacks {part:?}: {text}");
    }
}

#[test]
fn an_orin_nano_as_it_comes_hears_how_to_make_room_and_haste() {
    let report = look("orin-nano-r36.4.3");
    assert_eq!((report.board.as_str(), report.ok), ("jetson-orin-nano", true));
    assert_eq!(notes(&report), ["power mode", "clocks", "swap", "desktop"]);
    says(&report, "board", &["Engineering Reference Developer Kit Super", "7.4 GiB"]);
    says(&report, "Jetson Linux", &["36.4.3 (JetPack 6.2)", "nvidia-jetpack 6.2+b77"]);
    says(
        &report,
        "power mode",
        &["15W (0), memory at 68.3 GB/s", "sudo nvpmodel -m 2 for MAXN_SUPER", "102.4 GB/s"],
    );
    says(&report, "clocks", &["processor 1190 of 1510 MHz", "GPU 306 of 612 MHz", "sudo jetson_clocks"]);
    says(&report, "temperature", &["52 °C", "from 99 °C"]);
    says(&report, "swap", &["zram", "nvzramconfig"]);
    says(
        &report,
        "desktop",
        &["gdm3.service", "about 800 MB", "sudo systemctl set-default multi-user.target"],
    );
    says(&report, "cameras", &["imx219", "--source csi://0, not /dev/video0"]);
    says(&report, "CUDA", &["12.6.11"]);
    says(&report, "nvarguscamerasrc", &["ok"]);
    says(&report, "to expect", &["estimated", "utr bench"]);
}

#[test]
fn an_orin_nano_that_was_tuned_hears_only_of_its_power_supply() {
    let report = look("orin-nano-super-r36.4.4");
    assert_eq!(notes(&report), ["power supply"]);
    says(&report, "Jetson Linux", &["36.4.4 (JetPack 6.2.1)"]);
    says(&report, "power mode", &["MAXN_SUPER (2)"]);
    says(&report, "power supply", &["37 times", "nvpmodel"]);
    says(&report, "desktop", &["none is started (multi-user.target)"]);
    says(&report, "swap", &["none"]);
    says(&report, "cameras", &["/dev/video0 HD Pro Webcam C920"]);
}

#[test]
fn boards_of_three_generations_hear_of_their_own_release_and_modes() {
    let report = look("orin-nx-r35.4.1");
    assert_eq!(report.board, "jetson-orin-nx");
    assert_eq!(notes(&report), ["clocks", "temperature", "swap", "desktop"]);
    says(&report, "Jetson Linux", &["35.4.1 (JetPack 5.1.2)"]);
    says(&report, "temperature", &["tj-therm 93 °C", "from 99 °C", "fan"]);
    says(&report, "TensorRT", &["8.5.2"]);

    let report = look("agx-orin-r36.2.0");
    assert_eq!(report.board, "jetson-agx-orin");
    assert_eq!(notes(&report), ["power mode", "clocks"]);
    says(&report, "Jetson Linux", &["36.2.0 (JetPack 6.0 DP)"]);
    says(&report, "power mode", &["MODE_30W (2)", "nvpmodel -m 0 for MAXN"]);
    assert_eq!(report.checks.iter().filter(|check| check.found.contains("csi://")).count(), 2);

    let report = look("agx-orin-32-r35.6.1");
    assert_eq!(report.board, "jetson-agx-orin-32");
    assert_eq!(
        notes(&report),
        [
            "CUDA",
            "TensorRT",
            "cuDNN",
            "power mode",
            "clocks",
            "nvarguscamerasrc",
            "nvvidconv",
            "nvv4l2decoder"
        ]
    );
    says(
        &report,
        "CUDA",
        &["not installed", "--device cuda (cuBLAS, cuRAND)", "sudo apt install nvidia-jetpack"],
    );
    says(
        &report,
        "cuDNN",
        &["not installed", "only the GPU of --encoder ort", "sudo apt install nvidia-jetpack"],
    );
    says(&report, "nvarguscamerasrc", &["nvidia-l4t-gstreamer", "/tmp/argus_socket"]);

    let report = look("xavier-nx-r35.4.1");
    assert_eq!(report.board, "jetson-xavier-nx");
    assert_eq!(notes(&report), ["power mode", "clocks", "swap", "desktop", "nvarguscamerasrc"]);
    says(&report, "power mode", &["MODE_15W_2CORE (0)", "nvpmodel -m 8 for MODE_20W_6CORE"]);
    // The zone that always says 100 degrees is no temperature.
    says(&report, "temperature", &["CPU-therm 46 °C"]);
    says(&report, "swap", &["520 MiB in use", "MemorySwapMax=0"]);

    let report = look("thor-r38.2.0");
    assert_eq!(report.board, "jetson-thor");
    assert_eq!(notes(&report), ["power mode", "clocks"]);
    says(&report, "Jetson Linux", &["38.2.0 (JetPack 7.0)"]);
    says(&report, "power mode", &["120W (1)\n", "nvpmodel -m 0 for MAXN; it"]);
    says(&report, "clocks", &["GPU 315 of 1575 MHz", "memory 665 of 4266 MHz"]);

    let report = look("agx-orin-r39.2.0");
    assert_eq!((report.board.as_str(), notes(&report)), ("jetson-agx-orin", vec![]));
    says(&report, "Jetson Linux", &["39.2.0 (JetPack 7.2)"]);
    says(&report, "CUDA", &["13.2.0"]);
}

#[test]
fn other_machines_hear_nothing_of_jetsons() {
    for (machine, board) in [("raspberry-pi-5", "generic-aarch64"), ("pc", "x86-64")] {
        let report = look(machine);
        assert_eq!((report.board.as_str(), report.ok, notes(&report)), (board, true, vec![]));
        let all: String = report.checks.iter().map(|check| format!("{check}\n")).collect();
        assert!(
            !all.contains("nvp") && !all.contains("Jetson Linux") && !all.contains("jetson_clocks"),
            "{all}"
        );
    }
    says(&look("raspberry-pi-5"), "cameras", &["Logitech BRIO"]);
}

#[test]
fn a_root_file_system_is_judged_before_its_first_start() {
    let root = Path::new(BOARDS).join("rootfs-r36.4.3");
    let report = examine(&options(&root, Some("jetson-orin-nano"), Path::new(NANO))).unwrap();
    says(&report, "Jetson Linux", &["36.4.3 (JetPack 6.2)"]);
    says(&report, "power mode", &["unknown"]);
    // It has no memory of its own; the board's counts.
    says(&report, "memory budget", &["ok", "6.6 GiB are left of 7.4 GiB"]);
    assert!(report.ok);
    let report = examine(&options(&root, None, Path::new(NANO))).unwrap();
    assert_eq!((report.board.as_str(), notes(&report)), ("generic-aarch64", vec!["board"]));
    says(&report, "board", &["--board: jetson-xavier-nx, jetson-orin-nano"]);
}

#[test]
fn releases_a_board_does_not_run_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let release = |text: &str| {
        std::fs::write(root.path().join("etc/nv_tegra_release"), text).unwrap();
        let report = examine(&options(root.path(), Some("jetson-orin-nano"), Path::new(NANO))).unwrap();
        (report.ok, line(&report, "Jetson Linux").to_string())
    };
    let (ok, text) = release("# R32 (release), REVISION: 7.6, GCID: 1, BOARD: t210ref\n");
    assert!(!ok && text.starts_with("NO") && text.contains("R35, R36, R39"), "{text}");
    let (ok, text) = release("# R41 (release), REVISION: 1.0\n");
    assert!(ok && text.starts_with("note") && text.contains("newer than this program knows"), "{text}");
    let (ok, text) = release("# R38 (release), REVISION: 4.0\n");
    assert!(ok && text.contains("JetPack 7.1") && text.contains("not known to run"), "{text}");
    let (ok, text) = release("# R36 (release), REVISION: 0.0\n");
    assert!(ok && text.contains("preview"), "{text}");
    std::fs::write(root.path().join(".dockerenv"), "").unwrap();
    let (ok, text) = release("nothing\n");
    assert!(ok && text.contains("unknown") && text.contains("-v /etc/nv_tegra_release"), "{text}");
}

#[test]
fn libraries_of_another_major_are_named() {
    let mut machine = Machine::read(&Root::new(&Path::new(BOARDS).join("orin-nano-r36.4.3")));
    machine.cuda = crate::board::Version::parse("13.0.0");
    machine.tensorrt = crate::board::Version::parse("10.7.0");
    let board = Board::named("jetson-orin-nano").unwrap();
    let checks = board::checks(&machine, &board);
    let text = |name: &str| checks.iter().find(|check| check.name == name).unwrap().to_string();
    assert!(text("CUDA").starts_with("note") && text("CUDA").contains("13.0.0, but JetPack 6.2 brings 12.6"));
    assert!(
        text("TensorRT").starts_with("ok") && text("TensorRT").contains("10.7.0 (JetPack 6.2 brings 10.3)")
    );
}

#[test]
fn a_board_without_a_profile_is_asked_for_the_nearest() {
    let mut machine = Machine::read(&Root::new(&Path::new(BOARDS).join("orin-nano-r36.4.3")));
    machine.identity.model = Some("Some Drone".into());
    machine.identity.compatible = vec!["some,drone".into(), "nvidia,tegra234".into()];
    let board = Board::of(&machine.identity).unwrap();
    assert!(!board.is_jetson());
    let checks = board::checks(&machine, &board);
    assert!(checks[0].to_string().contains("--board: jetson-xavier-nx, jetson-orin-nano"), "{}", checks[0]);
    // The small module of the same name.
    machine.identity.memory = Some(3700 << 20);
    let checks = board::checks(&machine, &Board::named("jetson-orin-nano").unwrap());
    assert!(checks[0].to_string().contains("the profile's module has 8.0 GiB"), "{}", checks[0]);
}

/// Writes a folder that says it is a bundle and holds nothing but its manifest.
fn manifest_only(folder: &Path, weights: u64) {
    let text = std::fs::read_to_string(Path::new(NANO).join("manifest.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["name"] = "seven".into();
    json["memory"]["weights"] = weights.into();
    let path = folder.join("manifest.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let hash = hash_file(&path).unwrap();
    std::fs::write(folder.join("manifest.sha256"), format!("{hash}  manifest.json\n")).unwrap();
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_from_its_manifest_alone() {
    let folder = tempfile::tempdir().unwrap();
    manifest_only(folder.path(), 9 << 30);
    let root = Path::new(BOARDS).join("orin-nano-super-r36.4.4");
    let report = examine(&options(&root, None, folder.path())).unwrap();
    assert!(!report.ok && report.need.is_some_and(|need| need.total() > 9 << 30));
    says(
        &report,
        "memory budget",
        &["NO", "seven needs 9.1 GiB (weights 9.0 GiB", "are left of 7.4 GiB", "jetson-orin-nx"],
    );
    assert!(report.to_string().ends_with("no: memory budget; 1 note\n"), "{report}");
    // From a profile alone, for a board that is not here.
    let board = |name| examine(&options(Path::new("/"), Some(name), folder.path())).unwrap();
    let (nano, agx) = (board("jetson-orin-nano"), board("jetson-agx-orin"));
    assert!(!nano.ok && agx.ok && nano.machine.is_none(), "{:?}", notes(&agx));
    says(&agx, "Jetson Linux", &["R35 (JetPack 5.0.2 to 5.1.6)", "R39 (JetPack 7.2 to 7.2.1)"]);
    // Loading refuses it too, before it misses the other files.
    manifest_only(folder.path(), 1 << 60);
    let refused = crate::load::Model::open(folder.path(), None).err().unwrap();
    assert!(matches!(refused, Error::Memory { .. }), "{refused}");
    manifest_only(folder.path(), 1);
    let missing = crate::load::Model::open(folder.path(), None).err().unwrap();
    assert!(!matches!(missing, Error::Memory { .. }), "{missing}");
    // What a manifest's own hash does not cover is not believed, not even for a refusal.
    std::fs::write(folder.path().join("manifest.sha256"), "0  manifest.json\n").unwrap();
    let report = examine(&options(&root, None, folder.path())).unwrap();
    says(&report, "bundle", &["NO", "SHA-256"]);
}

#[test]
fn a_bundle_is_judged_with_what_its_engines_take() {
    let folder = tempfile::tempdir().unwrap();
    manifest_only(folder.path(), 5 << 30);
    let root = Path::new(BOARDS).join("orin-nano-super-r36.4.4");
    let mut options = options(&root, None, folder.path());
    let report = examine(&options).unwrap();
    assert!(report.ok && report.need.is_some_and(|need| need.engines == 0), "{:?}", notes(&report));
    options.engines.device = utr_models::DeviceChoice::Cuda(None);
    let report = examine(&options).unwrap();
    assert!(!report.ok && report.need.is_some_and(|need| need.engines == 2 << 30));
    says(&report, "memory budget", &["NO", "engines 2.0 GiB", "without --encoder and --device it would"]);
}

/// A copy of a board's folder, every file's content through `change`.
fn damaged(board: &str, to: &Path, change: &dyn Fn(&[u8]) -> Vec<u8>) {
    let mut open = vec![(Path::new(BOARDS).join(board), to.to_path_buf())];
    while let Some((from, to)) = open.pop() {
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
            if kind.is_dir() {
                open.push((entry.path(), to));
            } else if kind.is_symlink() {
                symlink(std::fs::read_link(entry.path()).unwrap(), to).unwrap();
            } else {
                std::fs::write(to, change(&std::fs::read(entry.path()).unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn damaged_files_are_unknown_facts() {
    let digits = |bytes: &[u8]| -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        text.chars()
            .map(|c| if c.is_ascii_digit() { "9999999999999999999999".into() } else { c.to_string() })
            .collect::<String>()
            .into()
    };
    let noise = |bytes: &[u8]| -> Vec<u8> { (0..bytes.len() + 64).map(|n| (n * 151 + 13) as u8).collect() };
    type Change<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let changes: [(&str, Change); 4] = [
        ("empty", &|_| Vec::new()),
        ("noise", &noise),
        ("digits", &digits),
        ("zeros", &|bytes| vec![0; bytes.len()]),
    ];
    for board in ["orin-nano-r36.4.3", "thor-r38.2.0", "xavier-nx-r35.4.1", "pc"] {
        for (how, change) in changes {
            let root = tempfile::tempdir().unwrap();
            damaged(board, root.path(), change);
            let machine = Machine::read(&Root::new(root.path()));
            let unknown = (machine.l4t, machine.power_mode, machine.ram, machine.cuda, machine.over_current);
            assert_eq!(unknown, (None, None, None, None, None), "{board} {how}");
            assert!(
                machine.temperatures.is_empty() && machine.swaps.is_empty(),
                "{board} {how}: {machine:?}"
            );
            let report = examine(&options(root.path(), Some("jetson-orin-nano"), Path::new(NANO))).unwrap();
            says(&report, "Jetson Linux", &["note", "unknown"]);
            says(&report, "power mode", &["ok", "unknown"]);
            let text: String = report.checks.iter().map(|check| check.to_string()).collect();
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{board} {how}: {text:?}");
            assert!(
                report.ok && serde_json::to_string(&report).is_ok(),
                "{board} {how}: {:?}",
                notes(&report)
            );
        }
    }
}

#[test]
fn the_command_line_takes_a_board_a_root_and_a_window() {
    use clap::Parser;
    let parse = |text: &str| crate::cli::Cli::try_parse_from(format!("utr doctor {text}").split_whitespace());
    assert!(
        parse("--board jetson-orin-nano --root rootfs --frames 16 --window-mode exact --kv q8 --json")
            .is_ok()
    );
    assert!(parse("--encoder ort --provider tensorrt --device cuda:0").is_ok());
    for wrong in ["--board toaster", "--frames 33", "--frames 0", "--kv q2", "--device auto"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_report_as_json_has_the_checks_the_facts_and_the_need() {
    let json = serde_json::to_value(look("orin-nano-r36.4.3")).unwrap();
    for field in ["name", "ok", "needed", "found", "remedy"] {
        assert!(json["checks"][0].get(field).is_some(), "{field}");
    }
    assert_eq!(json["ok"], true);
    assert_eq!(json["board"], "jetson-orin-nano");
    assert_eq!(json["machine"]["l4t"], "36.4.3");
    assert_eq!(json["machine"]["power_modes"][2]["name"], "MAXN_SUPER");
    assert_eq!(json["machine"]["cpu"]["max"], 1510);
    assert!(json["need"]["weights"].is_u64() && json["need"]["engines"] == 0);
}

//! Tests of the profiles: they parse, and boards are found by what they say about themselves.
//!
//! Comes in: the files of `targets/`. Goes out: nothing.

use std::collections::BTreeSet;

use super::*;

fn identity(model: &str, compatible: &[&str], gib: Option<f64>) -> Identity {
    let memory = gib.map(|gib| (gib * f64::from(1 << 30)) as u64);
    let compatible = compatible.iter().map(|text| (*text).to_string()).collect();
    Identity { model: Some(model.into()), compatible, memory, arch: None }
}

#[test]
fn every_profile_parses_and_bears_its_files_name() {
    for name in Board::names() {
        let board = Board::named(name).unwrap();
        assert_eq!(board.name, name);
        assert!(!board.media.convert.is_empty(), "{name}");
        assert!(board.memory.bandwidth_gb_s.is_none_or(|speed| speed > 1.0), "{name}");
        assert_eq!(board.is_jetson(), name.starts_with("jetson"), "{name}");
        assert_eq!(board.is_jetson(), board.media.csi.is_some() && board.compute.is_some(), "{name}");
        assert!(
            board.l4t.is_sorted()
                && board.l4t.iter().all(|l4t| jetpack::releases().iter().any(|row| row.l4t.0 == *l4t))
        );
        let modes: BTreeSet<u32> = board.power.iter().map(|mode| mode.id).collect();
        assert_eq!(modes.len(), board.power.len(), "{name}");
        let most = board.memory.bandwidth_gb_s.unwrap_or(0.0);
        assert!(
            board.power.iter().all(|mode| mode.bandwidth_gb_s.is_none_or(|speed| speed < most)),
            "{name}"
        );
        assert!(board.expect.is_empty(), "{name}: nothing was measured on a board yet");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../targets");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("jetpack.toml"));
    assert_eq!(files.count(), Board::names().len(), "a profile of targets/ is not built in");
    assert!(Board::named("toaster").unwrap_err().to_string().contains("jetson-orin-nano"));
}

#[test]
fn boards_are_known_by_their_device_tree() {
    let nano = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super";
    let agx = "NVIDIA Jetson AGX Orin Developer Kit";
    for (model, compatible, gib, name) in [
        (
            nano,
            vec!["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"],
            Some(7.4),
            "jetson-orin-nano",
        ),
        ("NVIDIA Orin Nano Developer Kit", vec![], Some(6.3), "jetson-orin-nano"),
        ("NVIDIA Orin NX Developer Kit", vec![], Some(15.3), "jetson-orin-nx"),
        // A carrier of somebody else's, named after the carrier.
        (
            "Some Robot",
            vec!["some,robot", "nvidia,p3767-0000", "nvidia,tegra234"],
            Some(15.3),
            "jetson-orin-nx",
        ),
        (
            agx,
            vec!["nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"],
            Some(61.4),
            "jetson-agx-orin",
        ),
        (agx, vec!["nvidia,p3737-0000+p3701-0004", "nvidia,tegra234"], None, "jetson-agx-orin-32"),
        (agx, vec!["nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"], Some(29.8), "jetson-agx-orin"),
        (agx, vec!["nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"], Some(61.4), "jetson-agx-orin"),
        (agx, vec![], None, "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", vec![], Some(122.9), "jetson-thor"),
        (
            "Raspberry Pi 5 Model B Rev 1.0",
            vec!["raspberrypi,5-model-b", "brcm,bcm2712"],
            Some(7.9),
            "generic",
        ),
        ("", vec![], None, "generic"),
    ] {
        assert_eq!(
            Board::of(&identity(model, &compatible, gib)).unwrap().name,
            name,
            "{model} {compatible:?}"
        );
    }
    for (arch, name) in [("aarch64", "generic-aarch64"), ("x86_64", "x86-64"), ("riscv64", "generic")] {
        let identity = Identity { arch: Some(arch.into()), ..Identity::default() };
        assert_eq!(Board::of(&identity).unwrap().name, name);
    }
}

#[test]
fn a_profile_with_an_unknown_key_is_refused() {
    let text = include_str!("../../../targets/generic.toml").replace("[media]", "[media]\ncamera = \"x\"");
    assert!(Board::parse(&text).unwrap_err().contains("camera"));
}

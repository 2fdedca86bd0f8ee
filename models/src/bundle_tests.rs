//! Every way to tamper with a bundle that the format promises to notice.

use super::*;
use crate::generate::Sampling;
use crate::gguf::{DecoderExport, Format};
use crate::onnx::{Storage, VisionExport};
use crate::preprocess::Preprocessor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn manifest() -> Manifest {
    Manifest {
        format_version: 0,
        name: "nano".into(),
        network: Network {
            preprocess: Preprocessor::siglip(64),
            vision: VisionExport {
                image_size: 64,
                patch_size: 16,
                hidden_size: 32,
                intermediate_size: 64,
                num_layers: 1,
                num_heads: 2,
                layer_norm_eps: 1e-6,
                text_hidden_size: 32,
                storage: Storage::F32,
            },
            decoder: DecoderExport {
                hidden_size: 32,
                intermediate_size: 64,
                num_layers: 1,
                num_heads: 2,
                num_kv_heads: 1,
                vocab_size: 512,
                context_length: 4096,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                tied: true,
            },
            stop_tokens: vec![2],
        },
        window: Window {
            frames: 32,
            fps: 2.0,
            live_mode: WindowMode::Ahead,
            accuracy: [(WindowMode::Exact, 71.25)].into(),
        },
        sampling: Sampling::default(),
        quantization: Quantization { format: Format::Q8_0, tensors: vec![] },
        memory: Memory { weights: 1, window: 2, kv: 3, scratch: 4 },
        golden: vec![GoldenQuestion {
            source: "golden/0".into(),
            frames: 2,
            question: "Why?".into(),
            answer: "Because.".into(),
            tokens: vec![4, 5],
        }],
        provenance: Provenance {
            exporter: "test".into(),
            recipe: "x = 1".into(),
            seeds: [("train".to_owned(), u64::MAX)].into(),
            data: [("world".to_owned(), 7)].into(),
            hours: 0.1,
        },
        scores: [("world_item".to_owned(), 61.5)].into(),
        files: BTreeMap::new(),
    }
}

fn fill(folder: &Path) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    std::fs::create_dir_all(folder.join("golden/0")).unwrap();
    for (name, size) in [(VISION, 3000), (DECODER, 90_000), ("tokenizer.json", 400), ("golden/0/0.png", 50)] {
        let bytes: Vec<u8> = (0..size).map(|_| rng.random()).collect();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    Ok(())
}

struct Made {
    _parent: tempfile::TempDir,
    folder: PathBuf,
}

fn made() -> Made {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("nano");
    write_bundle(&folder, manifest(), fill).unwrap();
    Made { folder, _parent: parent }
}

fn refusal(folder: &Path) -> (String, String) {
    match Bundle::open(folder) {
        Err(Error::Bundle { file, reason }) => (file, reason),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_bundle_opens_with_what_was_written() {
    let made = made();
    let bundle = Bundle::open(&made.folder).unwrap();
    let expected =
        Manifest { format_version: FORMAT_VERSION, files: bundle.manifest().files.clone(), ..manifest() };
    assert_eq!(*bundle.manifest(), expected);
    assert_eq!(bundle.manifest().files.len(), 4);
    assert_eq!(bundle.hash(), hash_file(&made.folder.join(MANIFEST)).unwrap());
    assert!(bundle.path(VISION).unwrap().exists());
    assert!(bundle.path("manifest.json").is_err());
    assert_eq!(std::fs::read_dir(made.folder.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn every_changed_byte_is_refused_with_file_and_hashes() {
    let made = made();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let names = [VISION, DECODER, "tokenizer.json", "golden/0/0.png", MANIFEST, MANIFEST_HASH];
    for name in names {
        let path = made.folder.join(name);
        let original = std::fs::read(&path).unwrap();
        let positions: Vec<usize> = if original.len() <= 128 {
            (0..original.len()).collect()
        } else {
            (0..60).map(|_| rng.random_range(0..original.len())).chain([0, original.len() - 1]).collect()
        };
        for position in positions {
            let mut bytes = original.clone();
            bytes[position] ^= rng.random_range(1u8..=255);
            std::fs::write(&path, &bytes).unwrap();
            let (file, reason) = refusal(&made.folder);
            let blamed = if name == MANIFEST_HASH { MANIFEST } else { name };
            assert_eq!(file, blamed);
            assert!(reason.contains("SHA-256") && reason.contains("says"), "{reason}");
        }
        std::fs::write(&path, &original).unwrap();
    }
    Bundle::open(&made.folder).unwrap();
}

#[test]
fn truncated_longer_missing_and_extra_files_are_refused() {
    let made = made();
    let path = made.folder.join(DECODER);
    let original = std::fs::read(&path).unwrap();
    for length in [0, 1, original.len() - 1, original.len() + 1] {
        let mut bytes = original.clone();
        bytes.resize(length, 0);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(refusal(&made.folder).0, DECODER);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(refusal(&made.folder).0, DECODER);
    std::fs::write(&path, original).unwrap();
    std::fs::write(made.folder.join("notes.txt"), "x").unwrap();
    assert_eq!(refusal(&made.folder).0, "notes.txt");
    std::fs::remove_file(made.folder.join("notes.txt")).unwrap();
    std::fs::create_dir(made.folder.join("golden/1")).unwrap();
    assert_eq!(refusal(&made.folder).0, "golden/1/");
    std::fs::remove_dir(made.folder.join("golden/1")).unwrap();
    for name in [MANIFEST, MANIFEST_HASH] {
        let path = made.folder.join(name);
        let original = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refusal(&made.folder).0, name);
        std::fs::write(&path, original).unwrap();
    }
    Bundle::open(&made.folder).unwrap();
}

#[cfg(unix)]
#[test]
fn links_are_refused_even_to_the_right_content() {
    let made = made();
    let (path, elsewhere) = (made.folder.join(VISION), made.folder.with_file_name("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert_eq!(refusal(&made.folder).0, VISION);
}

/// Rewrites the manifest with a matching hash, as a later program would.
fn rewrite(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join(MANIFEST);
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    let raw = json.to_string();
    std::fs::write(&path, &raw).unwrap();
    std::fs::write(folder.join(MANIFEST_HASH), hash_line(&hex(&Sha256::digest(raw.as_bytes())))).unwrap();
}

#[test]
fn other_versions_are_refused_naming_both() {
    let made = made();
    rewrite(&made.folder, |json| {
        json["format_version"] = 2.into();
        json["new_field"] = true.into();
    });
    let (file, reason) = refusal(&made.folder);
    assert_eq!(file, MANIFEST);
    assert!(
        reason.contains("version 2") && reason.contains("version 1") && reason.contains("update"),
        "{reason}"
    );
    rewrite(&made.folder, |json| json["format_version"] = 0.into());
    assert!(refusal(&made.folder).1.contains("export it again"));
    rewrite(&made.folder, |json| json["format_version"] = "1".into());
    assert!(refusal(&made.folder).1.contains("format_version"));
}

#[test]
fn unknown_fields_and_names_that_leave_the_folder_are_refused() {
    let made = made();
    rewrite(&made.folder, |json| json["window"]["frmaes"] = 3.into());
    assert!(refusal(&made.folder).1.contains("frmaes"));
    for name in ["../x", "/etc/passwd", "a//b", "./a", "a\\b", MANIFEST, ""] {
        let made = self::made();
        rewrite(&made.folder, |json| json["files"][name] = serde_json::json!({ "bytes": 0, "sha256": "" }));
        assert_eq!(refusal(&made.folder).0, name);
    }
}

#[test]
fn a_failed_export_leaves_nothing_and_an_old_bundle_stays() {
    let made = made();
    assert!(write_bundle(&made.folder, manifest(), fill).unwrap_err().to_string().contains("exists"));
    let other = made.folder.with_file_name("other");
    assert!(write_bundle(&other, manifest(), |_| Err(Error::Argument("no".into()))).is_err());
    assert_eq!(std::fs::read_dir(made.folder.parent().unwrap()).unwrap().count(), 1);
}

//! The store, stopped after every step as a power cut would, and on what it must refuse.
//!
//! In: small bundles whose files are a few bytes, and the shipped one for the checks that load a model. Out: which bundle is
//! current, and what is left. A stop is an error from the step counter: nothing after it runs, nothing is cleaned up.

use super::*;

use utr_models::DeviceChoice;

use crate::bundle::verify;
use crate::decode::KvPrecision;
use crate::encode::EncoderKind;
use crate::interrupt::Interrupt;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles/utr-nano")
}

/// A bundle with a sound manifest and files of a few bytes.
fn small(root: &Path, name: &str) -> PathBuf {
    let mut manifest = Bundle::open(&shipped()).unwrap().manifest().clone();
    manifest.name = name.into();
    let folder = root.join(name);
    utr_models::bundle::write_bundle(&folder, manifest, |folder| {
        fs::create_dir_all(folder.join("clip/deep")).unwrap();
        for file in ["vision.onnx", "decoder.gguf", "clip/deep/0.png"] {
            fs::write(folder.join(file), format!("{name} {file}")).unwrap();
        }
        Ok(())
    })
    .unwrap();
    folder
}

/// What serves by default.
const RUN: (Engines, Wish) = (
    Engines { encoder: None, device: DeviceChoice::Cpu },
    Wish { frames: None, mode: None, kv: KvPrecision::F16 },
);

/// A store and the bundles `a`, `b` and `c` beside it.
fn three() -> (tempfile::TempDir, Store, [PathBuf; 3]) {
    let root = tempfile::tempdir().unwrap();
    let bundles = ["a", "b", "c"].map(|name| small(root.path(), name));
    let store = Store::at(root.path().join("store"));
    (root, store, bundles)
}

fn install(store: &Store, bundle: &Path) -> anyhow::Result<bool> {
    store.install(bundle, RUN, &mut |_, _| Ok(true), &mut Vec::new())
}

/// The manifest's name of the current bundle, every hash checked.
fn current(store: &Store) -> Option<String> {
    let folder = store.current().unwrap()?;
    Some(Bundle::open(&folder).unwrap().manifest().name.clone())
}

fn previous(store: &Store) -> Option<String> {
    Some(store.target(PREVIOUS).unwrap()?.rsplit_once('-').unwrap().0.into())
}

/// A step counter that stops at the step with this number; the names of the steps before it.
fn stop_at(number: usize, seen: &mut Vec<&'static str>) -> impl FnMut(&'static str) -> Result<()> {
    move |name| {
        if seen.len() == number {
            return Err(Error::Interrupted);
        }
        seen.push(name);
        Ok(())
    }
}

#[test]
fn a_power_cut_after_any_step_of_an_install_leaves_the_old_bundle_or_the_new_one() {
    let mut found = String::new();
    for number in 0.. {
        let (_root, store, [a, b, c]) = three();
        install(&store, &a).unwrap();
        install(&store, &b).unwrap();
        let mut seen = Vec::new();
        let mut step = stop_at(number, &mut seen);
        let ended = store.install_in_steps(&c, RUN, &mut |_, _| Ok(true), &mut Vec::new(), &mut step);
        drop(step);
        let now = current(&store).unwrap();
        assert!(now == "b" || now == "c", "after {seen:?}: {now}");
        assert!(found != "c" || now == "c", "back to {now} after {seen:?}");
        found.clone_from(&now);
        // The next install finishes the work and leaves nothing half done.
        assert!(install(&store, &c).unwrap());
        assert_eq!(
            (current(&store).as_deref(), previous(&store).as_deref()),
            (Some("c"), Some("b")),
            "{seen:?}"
        );
        let names = store.entries().unwrap();
        assert_eq!(names.len(), 4, "{names:?} after {seen:?}");
        if ended.is_ok() {
            for name in
                ["one file", "copied", "checked", "in place", "new link", PREVIOUS, CURRENT, "removed"]
            {
                assert!(seen.contains(&name), "{name} is no step: {seen:?}");
            }
            assert_eq!(now, "c");
            return;
        }
    }
}

#[test]
fn a_power_cut_after_any_step_of_a_rollback_leaves_one_of_both() {
    for number in 0.. {
        let (_root, store, [a, b, _]) = three();
        install(&store, &a).unwrap();
        install(&store, &b).unwrap();
        let mut seen = Vec::new();
        let mut step = stop_at(number, &mut seen);
        let ended = store.rollback_in_steps(&mut Vec::new(), &mut step);
        drop(step);
        let now = current(&store).unwrap();
        assert!(now == "a" || now == "b", "after {seen:?}: {now}");
        if ended.is_ok() {
            assert_eq!((now.as_str(), previous(&store).as_deref()), ("a", Some("b")));
            store.rollback(&mut Vec::new()).unwrap();
            assert_eq!((current(&store).as_deref(), previous(&store).as_deref()), (Some("b"), Some("a")));
            return;
        }
        // It can be done again, except where both links name one bundle now.
        if let Err(error) = store.rollback(&mut Vec::new()) {
            assert!(error.to_string().contains("no previous") && now == "a", "{error} after {seen:?}");
        }
        assert!(!store.entries().unwrap().iter().any(|name| name.starts_with(TEMPORARY_PREFIX)), "{seen:?}");
    }
}

#[test]
fn the_first_install_makes_the_store_and_a_repeated_one_copies_nothing() {
    let (_root, store, [a, ..]) = three();
    assert_eq!(store.current().unwrap(), None);
    let mut text = Vec::new();
    store.list(&mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("utr bundle install"));
    install(&store, &a).unwrap();
    assert_eq!((current(&store).as_deref(), previous(&store)), (Some("a"), None));
    assert!(store.rollback(&mut Vec::new()).unwrap_err().to_string().contains("no previous"));
    // Whoever reads the bundle gets its own name, not the link's.
    let folder = store.current().unwrap().unwrap();
    assert!(folder.ends_with(store.target(CURRENT).unwrap().unwrap()) && !folder.ends_with(CURRENT));
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("clip/deep"), mode("clip/deep/0.png"), mode(MANIFEST)), (0o755, 0o644, 0o644));
    let again = store.install(&a, RUN, &mut |_, _| panic!("checked again"), &mut Vec::new()).unwrap();
    assert!(again && previous(&store).is_none());
}

#[test]
fn a_damaged_bundle_is_copied_anew() {
    let (_root, store, [a, ..]) = three();
    install(&store, &a).unwrap();
    let folder = store.current().unwrap().unwrap();
    fs::write(folder.join("vision.onnx"), "flipped").unwrap();
    assert!(Bundle::open(&folder).is_err());
    install(&store, &a).unwrap();
    assert_eq!(current(&store).as_deref(), Some("a"));
    assert_eq!(store.entries().unwrap().len(), 2);
}

#[test]
fn a_power_cut_while_a_damaged_current_bundle_is_replaced_leaves_a_current_one() {
    for number in 0.. {
        let (_root, store, [a, b, _]) = three();
        install(&store, &b).unwrap();
        install(&store, &a).unwrap();
        fs::write(store.current().unwrap().unwrap().join("vision.onnx"), "flipped").unwrap();
        let mut seen = Vec::new();
        let mut step = stop_at(number, &mut seen);
        let ended = store.install_in_steps(&a, RUN, &mut |_, _| Ok(true), &mut Vec::new(), &mut step);
        drop(step);
        assert!(store.current().unwrap().is_some_and(|folder| folder.is_dir()), "after {seen:?}");
        install(&store, &a).unwrap();
        assert_eq!((current(&store).as_deref(), previous(&store).as_deref()), (Some("a"), Some("b")));
        if ended.is_ok() {
            return;
        }
    }
}

#[test]
fn what_must_not_become_current_does_not_and_leaves_nothing() {
    let (root, mut store, [a, b, c]) = three();
    install(&store, &a).unwrap();
    // It answers otherwise than it did.
    assert!(!store.install(&b, RUN, &mut |_, _| Ok(false), &mut Vec::new()).unwrap());
    assert!(store.install(&b, RUN, &mut |_, _| anyhow::bail!("too big"), &mut Vec::new()).is_err());
    fs::write(c.join("vision.onnx"), "altered").unwrap();
    let message = install(&store, &c).unwrap_err().to_string();
    assert!(message.contains("vision.onnx"), "{message}");
    store.free = |_| Some(1000);
    let message = install(&store, &b).unwrap_err().to_string();
    assert!(message.contains("needs 2 MiB and 0 MiB are free"), "{message}");
    let locked = File::open(root.path().join("store")).unwrap();
    locked.lock().unwrap();
    assert!(install(&store, &a).unwrap_err().to_string().contains("another utr"));
    assert_eq!((current(&store).as_deref(), store.entries().unwrap().len()), (Some("a"), 2));
    fs::remove_dir_all(store.current().unwrap().unwrap()).unwrap();
    let message = store.current().unwrap_err().to_string();
    assert!(message.contains("is not there") && message.contains("utr bundle install"), "{message}");
}

#[test]
fn what_has_no_room_is_refused_by_its_manifest_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::at(root.path().join("not/there/yet"));
    let mut manifest = Bundle::open(&shipped()).unwrap().manifest().clone();
    let alone = |manifest: &Manifest| {
        let folder = root.path().join("manifest");
        fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_vec(manifest).unwrap();
        fs::write(folder.join(MANIFEST), &text).unwrap();
        let hash = utr_models::bundle::hash_file(&folder.join(MANIFEST)).unwrap();
        fs::write(folder.join(MANIFEST_HASH), format!("{hash}  {MANIFEST}\n")).unwrap();
        folder
    };
    let small = alone(&manifest);
    let mut text = Vec::new();
    store.check(&small, RUN, &mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("utr-nano"));
    store.free = |_| Some(1000);
    let message = store.check(&small, RUN, &mut Vec::new()).unwrap_err().to_string();
    assert!(message.contains("0 MiB are free"), "{message}");
    manifest.memory.weights = 1 << 60;
    let large = alone(&manifest);
    for refused in [store.check(&large, RUN, &mut Vec::new()).map(|()| true), install(&store, &large)] {
        let error = refused.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::Memory { .. })), "{error}");
    }
}

#[test]
fn a_rollback_to_an_altered_bundle_is_refused() {
    let (_root, store, [a, b, _]) = three();
    install(&store, &a).unwrap();
    let folder = store.current().unwrap().unwrap();
    install(&store, &b).unwrap();
    fs::write(folder.join("decoder.gguf"), "altered").unwrap();
    let message = store.rollback(&mut Vec::new()).unwrap_err().to_string();
    assert!(message.contains("decoder.gguf"), "{message}");
    assert_eq!(current(&store).as_deref(), Some("b"));
}

#[test]
fn the_shipped_bundle_is_installed_once_it_answers_as_it_did() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::at(root.path());
    let interrupt = Interrupt::default();
    let mut text = Vec::new();
    let mut check = |copy: &Path, out: &mut dyn Write| verify(copy, EncoderKind::Candle, &interrupt, out);
    assert!(store.install(&shipped(), RUN, &mut check, &mut text).unwrap());
    let text = String::from_utf8(text).unwrap();
    let golden = Bundle::open(&shipped()).unwrap().manifest().golden.len();
    // Other processors round otherwise, and then say so.
    let same = text.contains(&format!("{golden} of {golden}")) || text.contains("as likely within");
    assert!(golden > 0 && same, "{text}");
    assert_eq!(current(&store).as_deref(), Some("utr-nano"));
}

#[test]
fn names_need_no_quotes_and_space_is_known() {
    let root = tempfile::tempdir().unwrap();
    let mut manifest = Bundle::open(&shipped()).unwrap().manifest().clone();
    manifest.name = "../Lab's / nano 2".into();
    let folder = root.path().join("odd");
    let bundle = utr_models::bundle::write_bundle(&folder, manifest, |_| Ok(())).unwrap();
    assert_eq!(
        folder_name(&bundle.manifest().name, bundle.hash(), 0),
        format!("Lab-s---nano-2-{}", &bundle.hash()[..12])
    );
    assert!(disk_free(root.path()).is_some_and(|bytes| bytes > 0));
}

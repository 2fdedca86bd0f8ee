//! The repository against its own rules: module headers, file sizes, no leftovers.
//!
//! In: the Rust sources as files. Out: a failure that names every file that breaks a rule. No network, no build.

use std::path::{Path, PathBuf};

/// Lines of a source file; tables and tests included. Long files hide structure.
const MOST_LINES: usize = 450;

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
    let mut folders: Vec<PathBuf> =
        ["models", "runtime", "training", "tests", "benches"].iter().map(|name| root.join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What the fuzz targets' own workspace built is nobody's source.
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10);
    files
}

fn offenders(breaks: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    sources().into_iter().filter(|path| breaks(&std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_module_opens_with_a_header() {
    let without = offenders(|text| !text.starts_with("//!"));
    assert!(without.is_empty(), "no header: {without:?}");
}

#[test]
fn no_source_file_is_too_long() {
    let long = offenders(|text| text.lines().count() > MOST_LINES);
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}

#[test]
fn data_is_drawn_from_a_generator_with_a_written_algorithm() {
    // Spelled in two parts, so that this file does not break the rule.
    let banned = [["Std", "Rng"].concat(), ["thread", "_rng"].concat()];
    let users = offenders(|text| banned.iter().any(|name| text.contains(name.as_str())));
    assert!(users.is_empty(), "draws from an unspecified generator: {users:?}");
}

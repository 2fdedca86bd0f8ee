//! Annotations of published benchmarks, in the formats they are published in.
//!
//! Comes in: a JSON list, JSON lines, or Parquet in one or several pieces. Goes out: its rows, or an error that names the file and the row. A row that cannot
//! be read is never passed over: a score over fewer questions is another score.

use anyhow::{Context, Result, anyhow, bail};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The files of a table that is published as one of `stems` (such as `videomme/test`) below `folder`: the first stem that exists as `STEM.parquet`,
/// `STEM-00000-of-00002.parquet` and so on, `STEM.jsonl` or `STEM.json`.
///
/// # Errors
/// None of them, with what was looked for.
pub fn find(folder: &Path, stems: &[&str], published: &str) -> Result<Vec<PathBuf>> {
    for stem in stems {
        for ending in ["parquet", "jsonl", "json"] {
            let path = folder.join(format!("{stem}.{ending}"));
            if path.is_file() {
                return Ok(vec![path]);
            }
        }
        let pieces = pieces(&folder.join(stem))?;
        if !pieces.is_empty() {
            return Ok(pieces);
        }
    }
    bail!("{} holds no {} (.parquet, .jsonl or .json); {published}", folder.display(), stems.join(", nor "))
}

/// `STEM-00000-of-00002.parquet`, …
fn pieces(stem: &Path) -> Result<Vec<PathBuf>> {
    let Some(folder) = stem.parent().filter(|folder| folder.is_dir()) else { return Ok(Vec::new()) };
    let prefix = format!("{}-", super::named(stem));
    let mut pieces = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let name = super::named(&path);
        if name.starts_with(&prefix) && name.ends_with(".parquet") && name.contains("-of-") {
            pieces.push(path);
        }
    }
    pieces.sort();
    let said: Option<usize> = pieces
        .first()
        .and_then(|path| super::named(path).split_once("-of-")?.1.strip_suffix(".parquet")?.parse().ok());
    match said {
        Some(said) if pieces.len() != said => {
            bail!("{}: {} of its {said} pieces are there", stem.display(), pieces.len())
        }
        _ => Ok(pieces),
    }
}

/// All rows of the files.
///
/// # Errors
/// The file and the row that cannot be read, with what was found.
pub fn read<T: DeserializeOwned>(files: &[PathBuf]) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    for file in files {
        let reading = || format!("reading {}", file.display());
        for (place, value) in values(file).with_context(reading)? {
            let row = serde_json::from_value(value).map_err(|error| anyhow!("{place}: {error}"));
            rows.push(row.with_context(reading)?);
        }
    }
    Ok(rows)
}

/// Rows with where they stand.
fn values(file: &Path) -> Result<Vec<(String, Value)>> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("parquet") => {
            let reader = SerializedFileReader::new(File::open(file)?)?;
            let row = |(n, row): (usize, parquet::errors::Result<parquet::record::Row>)| {
                Ok((format!("row {n}"), row.with_context(|| format!("row {n}"))?.to_json_value()))
            };
            (1..).zip(reader.get_row_iter(None)?).map(row).collect()
        }
        Some("jsonl") => {
            let text = std::fs::read_to_string(file)?;
            let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
            let value = |(n, line)| {
                Ok((format!("line {n}"), serde_json::from_str(line).with_context(|| format!("line {n}"))?))
            };
            lines.map(value).collect()
        }
        _ => {
            let Value::Array(rows) = whole(file)? else { bail!("it holds no list") };
            Ok((1..).zip(rows).map(|(n, value): (usize, _)| (format!("entry {n}"), value)).collect())
        }
    }
}

/// A JSON file as one value.
///
/// # Errors
/// What is no JSON, with its line.
pub fn whole<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Row {
        question_id: String,
        options: Vec<String>,
        answer: String,
    }

    /// `eval_rules.py` wrote it with pyarrow, as published data sets are: snappy, dictionaries, a list in each row.
    #[test]
    fn parquet_is_read_as_pyarrow_writes_it() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/eval_rows");
        let files = find(&golden, &["nowhere/test", "videomme/test"], "").unwrap();
        assert_eq!(files.len(), 2);
        let rows: Vec<Row> = read(&files).unwrap();
        let wanted: Vec<Row> = whole(&golden.join("rows.json")).unwrap();
        assert_eq!(rows, wanted);
        assert!(rows.len() > 30 && rows.iter().all(|row| row.options.len() == 4));
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let none = find(folder.path(), &["a/test", "b"], "published as X/Y").unwrap_err().to_string();
        assert!(none.contains("a/test, nor b") && none.contains("published as X/Y"), "{none}");
        std::fs::write(
            at("b.jsonl"),
            "{\"question_id\": \"1\", \"options\": [], \"answer\": \"A\"}\n\n{\"question_id\": 2\n",
        )
        .unwrap();
        let files = find(folder.path(), &["a/test", "b"], "").unwrap();
        let broken = format!("{:#}", read::<Row>(&files).unwrap_err());
        assert!(broken.contains("b.jsonl") && broken.contains("line 3"), "{broken}");
        std::fs::write(at("c.json"), "[{\"question_id\": \"1\"}]").unwrap();
        let broken = format!("{:#}", read::<Row>(&[at("c.json")]).unwrap_err());
        assert!(broken.contains("entry 1: missing field"), "{broken}");
        std::fs::write(at("d-00000-of-00002.parquet"), "PAR1").unwrap();
        let broken = format!("{:#}", find(folder.path(), &["d"], "").unwrap_err());
        assert!(broken.contains("1 of its 2 pieces"), "{broken}");
        std::fs::write(at("e.parquet"), "PAR1").unwrap();
        assert!(format!("{:#}", read::<Row>(&[at("e.parquet")]).unwrap_err()).contains("e.parquet"));
    }
}

//! Files that many stages read and write: JSON lines, and anything whole or not at all.
//!
//! Comes in: a path and records. Goes out: records, or a file that was written under a temporary name, synced and renamed; its folder is made
//! where it is missing. What the records mean is the business of the stages.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utr_models::{Error, Result, atomic};

/// Bytes as hexadecimal digits, such as those of a hash.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a JSON-lines file; blank lines are skipped.
///
/// # Errors
/// Names the file, the line and what serde found there.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut records = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(Error::io(path))?;
        if line.trim().is_empty() {
            continue;
        }
        let record =
            serde_json::from_str(&line).map_err(|e| Error::format(path, format!("line {number}: {e}")))?;
        records.push(record);
    }
    Ok(records)
}

/// Writes JSON lines.
///
/// # Errors
/// An unwritable folder or a full disk; `path` is then as it was.
pub fn write_jsonl<T: Serialize>(path: &Path, records: impl IntoIterator<Item = T>) -> Result<()> {
    write_atomic(path, |out| write_lines(out, records))
}

/// Writes records as lines.
///
/// # Errors
/// Whatever `out` answered.
pub fn write_lines<T: Serialize>(
    out: &mut dyn Write,
    records: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *out, &record).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Refuses an output that is one of the inputs, so that nothing is lost.
///
/// # Errors
/// The path that is both.
pub fn distinct(inputs: &[&Path], output: &Path) -> Result<()> {
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    match inputs.iter().any(|input| input.canonicalize().is_ok_and(|path| path == real)) {
        true => Err(Error::Argument(format!(
            "{} is an input; writing to it would lose it: name another --output",
            output.display()
        ))),
        false => Ok(()),
    }
}

/// Lets `fill` write the content of `path`.
///
/// # Errors
/// Whatever `fill` or the file system answered; `path` is then as it was.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    atomic::write_with(path, |out| fill(out).map_err(Error::io(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_an_input_is_refused_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let (data, other) = (folder.path().join("data.jsonl"), folder.path().join("other.jsonl"));
        std::fs::write(&data, "{}").unwrap();
        let around = folder.path().join(".").join("data.jsonl");
        assert!(distinct(&[&data], &around).unwrap_err().to_string().contains("is an input"));
        assert!(distinct(&[&data], &other).is_ok());
    }
}

//! Subtitles of the sampled frames, chosen as Video-MME's reference chooses them.
//!
//! Comes in: a SubRip file, and how many frames a clip has at which rate. Goes out: the texts of the entries that stand over one of the uniformly sampled
//! frames, one a line. Entries are kept once, in the order in which Python lists a set of their numbers: the reference does, so that its prompts are
//! not always in time order. An entry without the markup of YouTube's captions is left out, as there.

use super::FRAMES;
use super::clip::Seen;
use anyhow::{Context, Result};
use std::path::Path;
use utr_runtime::sample::uniform_indices;

/// One entry: from, to (in seconds), text.
type Entry = (f64, f64, String);

/// The lines shown with a clip's sampled frames.
///
/// # Errors
/// A file that is not SubRip, with the number of its entry.
pub fn shown(file: &Path, seen: &Seen) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let entries = parse(&text).with_context(|| format!("reading {}", file.display()))?;
    Ok(choose(&entries, seen.total, seen.fps).join("\n"))
}

/// Entries in the order of the file; one with the times of an earlier one replaces its text.
fn parse(text: &str) -> Result<Vec<Entry>> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut entries: Vec<Entry> = Vec::new();
    for (number, section) in (1..).zip(text.split("\n\n")) {
        let lines: Vec<&str> = section.split('\n').collect();
        let [_, times, words @ ..] = lines.as_slice() else { continue };
        if section.trim().is_empty() || words.is_empty() {
            continue;
        }
        let mut ends = times.split(" --> ").map(seconds);
        let (from, to) = match (ends.next().flatten(), ends.next().flatten()) {
            (Some(from), Some(to)) => (from, to),
            _ => anyhow::bail!("entry {number}: {times:?} is not of the form 00:00:01,000 --> 00:00:02,000"),
        };
        let words = words.join(" ");
        match entries.iter_mut().find(|entry| (entry.0, entry.1) == (from, to)) {
            Some(entry) => entry.2 = words,
            None => entries.push((from, to, words)),
        }
    }
    Ok(entries)
}

/// Seconds of `HH:MM:SS,mmm`.
fn seconds(text: &str) -> Option<f64> {
    let parts: Vec<&str> = text.split(':').collect();
    let [hours, minutes, rest] = parts.as_slice() else { return None };
    let (whole, thousandths) = rest.split_once(',')?;
    let number = |text: &str| text.trim().parse::<u32>().ok().map(f64::from);
    Some(number(hours)? * 3600.0 + number(minutes)? * 60.0 + number(whole)? + number(thousandths)? / 1000.0)
}

fn choose(entries: &[Entry], total: usize, fps: f64) -> Vec<String> {
    let frame = |time: f64| (time * fps) as usize;
    let spans: Vec<(usize, usize)> = entries.iter().map(|(from, to, _)| (frame(*from), frame(*to))).collect();
    let mut numbers = Vec::new();
    for at in uniform_indices(total, FRAMES) {
        numbers
            .extend((0..).zip(&spans).filter(|(_, (from, to))| (*from..*to).contains(&at)).map(|(n, _)| n));
    }
    let texts = set_order(&numbers).into_iter().filter_map(|number| entries.get(number).map(|e| &e.2));
    texts.filter_map(|text| spoken(text)).collect()
}

/// The words inside the captions' markup, whose dot stands for any character.
fn spoken(text: &str) -> Option<String> {
    let (opening, closing) = ("<font color=\"white\" size=\"", "72c\">");
    text.match_indices(opening).find_map(|(at, _)| {
        let rest = text.get(at + opening.len()..)?;
        let mut letters = rest.chars();
        letters.next()?;
        let (words, _) = letters.as_str().strip_prefix(closing)?.split_once("</font>")?;
        Some(words.to_string())
    })
}

/// Slots that CPython looks at in a row before it jumps.
const IN_A_ROW: usize = 9;

/// Numbers once each, in the order in which CPython (3.7 and later) lists a set that got them in this order: that of its hash table.
fn set_order(numbers: &[usize]) -> Vec<usize> {
    let mut table: Vec<Option<usize>> = vec![None; 8];
    let mut used = 0;
    for &number in numbers {
        if !put(&mut table, number) {
            continue;
        }
        used += 1;
        if used * 5 >= (table.len() - 1) * 3 {
            let least = if used > 50_000 { used * 2 } else { used * 4 };
            let mut size = 8;
            while size <= least {
                size *= 2;
            }
            let mut larger = vec![None; size];
            for old in table.into_iter().flatten() {
                put(&mut larger, old);
            }
            table = larger;
        }
    }
    table.into_iter().flatten().collect()
}

/// Puts a number into its slot; false where it is there already. A number is its own hash.
fn put(table: &mut [Option<usize>], number: usize) -> bool {
    let mask = table.len() - 1;
    let (mut slot, mut rest) = (number & mask, number);
    loop {
        let row = if slot + IN_A_ROW <= mask { IN_A_ROW } else { 0 };
        for place in table.iter_mut().skip(slot).take(row + 1) {
            match place {
                Some(held) if *held == number => return false,
                Some(_) => {}
                None => {
                    *place = Some(number);
                    return true;
                }
            }
        }
        rest >>= 5;
        slot = (slot * 5 + 1 + rest) & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn sets_are_listed_as_python_lists_them() {
        for case in golden("set_order") {
            let of = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
            assert_eq!(set_order(&of("put")), of("listed"), "{:?}", of("put"));
        }
    }

    #[test]
    fn subtitles_are_the_references() {
        for case in golden("subtitles") {
            let entries = parse(case["srt"].as_str().unwrap()).unwrap();
            let (total, fps) = (case["total"].as_u64().unwrap() as usize, case["fps"].as_f64().unwrap());
            assert_eq!(choose(&entries, total, fps).join("\n"), case["text"].as_str().unwrap(), "{case}");
        }
    }

    #[test]
    fn a_broken_entry_is_named() {
        let broken =
            parse("1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n0:1 --> x\nb\n").unwrap_err().to_string();
        assert!(broken.contains("entry 2") && broken.contains("0:1 --> x"), "{broken}");
    }
}

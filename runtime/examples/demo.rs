//! `make demo`: asks `utr` five questions about each committed clip and shows the right answers beside.
//!
//! In:  the path of the `utr` binary and a folder with `questions.json`, a list of
//!      `{clip, question, answer, skill}` (`clip` is `clip.mp4` where it is left out).
//! Out: a table on standard output with the frames and timings `utr` reported; exit 2 when `utr` fails.
//! It computes nothing itself: what is printed is what `utr ask --json` said.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// One question with its right answer.
struct Item {
    clip: String,
    question: String,
    answer: String,
    skill: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [utr, folder] = arguments.as_slice() else {
        eprintln!("usage: demo UTR_BINARY FOLDER_WITH_QUESTIONS");
        return ExitCode::from(2);
    };
    match run(Path::new(utr), Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(utr: &Path, folder: &Path) -> Result<()> {
    let items = read_items(&folder.join("questions.json"))?;
    let mut clips: Vec<&str> = items.iter().map(|item| item.clip.as_str()).collect();
    clips.dedup();
    let (mut right, mut asked) = (0, 0);
    for clip in clips {
        let items: Vec<&Item> = items.iter().filter(|item| item.clip == clip).collect();
        let answers = ask(utr, &folder.join(clip), &items)?;
        right += show(clip, &items, &answers)?;
        asked += items.len();
    }
    println!("{right} of {asked} answers are right");
    Ok(())
}

fn read_items(path: &Path) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list: Vec<Value> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a list of questions", path.display()))?;
    let items: Result<Vec<Item>> = list
        .iter()
        .map(|entry| {
            let field = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            Ok(Item {
                clip: field("clip").unwrap_or_else(|| "clip.mp4".into()),
                question: field("question").with_context(|| format!("no question in {entry}"))?,
                answer: field("answer").with_context(|| format!("no answer in {entry}"))?,
                skill: field("skill").unwrap_or_default(),
            })
        })
        .collect();
    let items = items?;
    ensure!(!items.is_empty(), "{} holds no questions", path.display());
    Ok(items)
}

/// All questions about one clip in one run: its frames are encoded once.
fn ask(utr: &Path, clip: &Path, items: &[&Item]) -> Result<Vec<Value>> {
    let mut command = Command::new(utr);
    command.arg("ask").arg("--source").arg(clip).args(["--temperature", "0", "--json"]);
    for item in items {
        command.arg("--question").arg(&item.question);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}; build it with cargo build --release", utr.display()))?;
    if !output.status.success() {
        bail!("{} ask failed on {} ({})", utr.display(), clip.display(), output.status);
    }
    let mut answers = Vec::new();
    for value in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>() {
        match value.context("utr ask --json printed something that is not JSON")? {
            Value::Array(list) => answers.extend(list),
            object => answers.push(object),
        }
    }
    ensure!(answers.len() == items.len(), "{} questions got {} answers", items.len(), answers.len());
    Ok(answers)
}

/// Prints one clip's table; returns how many answers are right.
fn show(clip: &str, items: &[&Item], answers: &[Value]) -> Result<usize> {
    let first = answers.first().context("no answer")?;
    let frames = first["frames"].as_array().map_or(&[][..], Vec::as_slice);
    let index = |frame: Option<&Value>| frame.map_or("?".into(), |f| f["index"].to_string());
    println!(
        "{clip}: {} frames in the window (frame {} to {} of the file, {} ms), bundle {}",
        frames.len(),
        index(frames.first()),
        index(frames.last()),
        first["window_span_ms"],
        first["bundle"]["name"].as_str().unwrap_or("?"),
    );
    println!("  capture {}  encode {}\n", ms(first, "capture_ms"), ms(first, "encode_ms"));
    let mut right = 0;
    for (item, answer) in items.iter().zip(answers) {
        let text = answer["text"].as_str().context("an answer has no text")?;
        let same = plain(text) == plain(&item.answer);
        right += usize::from(same);
        println!("  {:<18} {}", item.skill, item.question.replace('\n', "\n                     "));
        println!("    answer           {}", text.trim());
        println!(
            "    right answer     {}   {}",
            item.answer,
            if same { "(the same)" } else { "(not the same)" }
        );
        println!(
            "    timings          first token {}, prefill {}, decode {}, {} tokens of the prompt reused\n",
            ms(answer, "ttft_ms"),
            ms(answer, "prefill_ms"),
            ms(answer, "decode_ms"),
            answer["timings"]["reused_tokens"],
        );
    }
    Ok(right)
}

fn ms(answer: &Value, name: &str) -> String {
    answer["timings"][name].as_f64().map_or("?".into(), |value| format!("{value:.1} ms"))
}

/// Case, surrounding space, a final full stop and the letter of an option do not make an answer wrong.
fn plain(text: &str) -> String {
    let text = text.trim().trim_end_matches('.').to_lowercase();
    match text.split_once(") ") {
        Some((letter, words)) if letter.len() == 2 && letter.starts_with('(') => words.to_owned(),
        _ => text,
    }
}

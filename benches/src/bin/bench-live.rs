//! What the live window saves: the time from a question to its first token, mode against mode, and against the frames seen before.
//!
//! Comes in: `bench-live UTR [ROUNDS] [--quick]`, the program to measure. Goes out: a Markdown table with medians, ceilings and ratios, and one JSON
//! line last. Every measurement is `utr bench` in a process of its own; the ways that are compared take turns, and a ratio is the median of
//! the ratios of single turns. `--quick` leaves the random weights of Qwen2-0.5B's shape away, whose exact mode takes minutes.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use utr_bench::median;

/// Frames seen before the question.
const SEEN: [&str; 3] = ["32", "1000", "100000"];

/// One way to run `utr bench`, by name.
struct Way {
    name: String,
    arguments: Vec<String>,
}

/// Milliseconds to the first token of every way in every round, and the ceiling of each.
struct Turns {
    ways: Vec<Way>,
    ms: Vec<Vec<f64>>,
    ceilings: Vec<f64>,
}

fn way(name: &str, arguments: &str) -> Way {
    let words = format!("bench --cases ttft32 -o jsonl {arguments}");
    Way { name: name.into(), arguments: words.split_whitespace().map(str::to_string).collect() }
}

fn measure(utr: &str, way: &Way) -> Result<(f64, f64)> {
    let done = Command::new(utr).args(&way.arguments).output().with_context(|| format!("starting {utr}"))?;
    ensure!(done.status.success(), "{}: {}", way.name, String::from_utf8_lossy(&done.stderr));
    let row: Value =
        serde_json::from_slice(&done.stdout).with_context(|| format!("{} printed no row", way.name))?;
    let of = |field: &str| row[field].as_f64().with_context(|| format!("{}: no {field} in {row}", way.name));
    Ok((of("value")?, of("ceiling")?))
}

fn turns(utr: &str, ways: Vec<Way>, rounds: usize) -> Result<Turns> {
    let mut turns = Turns { ms: vec![Vec::new(); ways.len()], ceilings: vec![0.0; ways.len()], ways };
    for round in 0..rounds {
        for place in 0..turns.ways.len() {
            eprintln!("round {} of {rounds}: {}", round + 1, turns.ways[place].name);
            let (ms, ceiling) = measure(utr, &turns.ways[place])?;
            turns.ms[place].push(ms);
            turns.ceilings[place] = ceiling;
        }
    }
    Ok(turns)
}

/// Prints a table; the first way is what the others are compared with.
fn show(title: &str, turns: &Turns) -> Value {
    println!("\n{title}\n\n| | median | ceiling | times the first |\n|---|---:|---:|---:|");
    let rows = turns.ways.iter().enumerate().map(|(place, way)| {
        let ratio = median(turns.ms[place].iter().zip(&turns.ms[0]).map(|(ms, first)| ms / first).collect());
        let (ms, ceiling) = (median(turns.ms[place].clone()), turns.ceilings[place]);
        println!("| {} | {ms:.2} ms | {ceiling:.2} ms | {ratio:.3} (1/{:.1}) |", way.name, 1.0 / ratio);
        json!({"name": way.name, "ms": ms, "ceiling_ms": ceiling, "ratio": ratio, "samples": turns.ms[place]})
    });
    Value::Array(rows.collect())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|word| word == "--quick");
    let words: Vec<&String> = arguments.iter().filter(|word| *word != "--quick").collect();
    let (utr, rounds) = match words.as_slice() {
        [utr] => (utr.as_str(), 3),
        [utr, rounds] => (utr.as_str(), rounds.parse().context("ROUNDS is a number")?),
        _ => bail!("usage: bench-live UTR [ROUNDS] [--quick]"),
    };
    let modes = |more: &str, repetitions: usize| {
        let each = ["exact", "ahead", "rolling"];
        each.map(|mode| way(mode, &format!("--window-mode {mode} --seen 33 -r {repetitions} {more}"))).into()
    };
    let mut all = serde_json::Map::new();
    if !quick {
        let random = turns(utr, modes("--random qwen2-0.5b --frame-tokens 49", 1), rounds)?;
        let title =
            "Random weights of Qwen2-0.5B's shape in 8 bits, 32 frames of 49 tokens, a question of 32 tokens";
        all.insert("qwen2_0_5b".into(), show(title, &random));
    }
    let shipped = turns(utr, modes("", 9), rounds)?;
    all.insert("shipped".into(), show("The shipped model, a question of 32 tokens", &shipped));
    let seen =
        SEEN.map(|n| way(&format!("{n} frames seen"), &format!("--window-mode rolling --seen {n} -r 9")));
    let flat = turns(utr, seen.into(), rounds)?;
    all.insert("seen".into(), show("The shipped model in rolling, by the frames seen before", &flat));
    println!("\n{}", Value::Object(all));
    Ok(())
}

//! Scores as tables for people.
//!
//! Comes in: a benchmark's summary. Goes out: Markdown: what was scored and what is missing from it, our score beside the paper's rows, then every group. The
//! small pieces are shared with the world suite's tables.

use super::SuiteKind;
use super::benchmark::Summary;
use super::paper::REPORTED;
use super::score::Row;

/// In percent, to a tenth; halves go up.
pub fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

/// The same as text.
pub fn written(share: f64) -> String {
    format!("{:.1}", percent(share))
}

/// In percent, with its interval.
pub fn markdown_share(share: f64, interval: [f64; 2]) -> String {
    format!("{} [{}, {}]", written(share), written(interval[0]), written(interval[1]))
}

/// A row of cells.
fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The whole report.
pub fn markdown(summary: &Summary, suite: SuiteKind) -> String {
    let judge = summary.judge.as_ref().map_or("no judge".to_string(), |judge| format!("judge {judge}"));
    let mut text = format!(
        "{} on {}: {} questions, {} frames a clip, {judge}\n\n",
        summary.model, summary.benchmark, summary.questions, summary.frames
    );
    for note in &summary.notes {
        text += &format!("* **{note}**\n");
    }
    if !summary.notes.is_empty() {
        text += "\n";
    }
    text + &beside_the_paper(summary, suite) + remark(suite) + "\n" + &groups(&summary.rows)
}

/// What to know when comparing with the paper.
fn remark(suite: SuiteKind) -> &'static str {
    match suite {
        SuiteKind::TempCompass => {
            "\nOurs is the mean of the tasks; the paper does not say how its figure adds them up. The reference's judge is gpt-3.5-turbo-1106.\n"
        }
        SuiteKind::ActivityNetQa => {
            "\nAccuracy % / mean score from 0 to 5. The reference's judge is gpt-3.5-turbo-0613.\n"
        }
        SuiteKind::World | SuiteKind::MvBench | SuiteKind::VideoMme => "",
    }
}

fn beside_the_paper(summary: &Summary, suite: SuiteKind) -> String {
    let mut text =
        format!("| model | language model | samples | {} |\n|---|---|---|---|\n", summary.benchmark);
    for row in REPORTED.iter().filter(|row| row.figure(suite) != "-") {
        text += &line(&[row.model, row.language, row.data, row.figure(suite)].map(String::from));
    }
    let accuracy = summary.accuracy.map_or("open".to_string(), |accuracy| format!("{accuracy:.1}"));
    let score = summary.score.map_or(String::new(), |score| format!(" / {score:.2}"));
    let partial = if summary.complete { "" } else { " (partial, see above)" };
    text + &line(&[
        format!("**{}**", summary.model),
        "".into(),
        "".into(),
        format!("**{accuracy}**{score}{partial}"),
    ])
}

/// All groups; columns that would be empty are left away.
fn groups(rows: &[Row]) -> String {
    let judged =
        rows.iter().any(|row| row.waiting > 0 || row.unreadable > 0 || row.by_rule.n < row.decided.n);
    let left_out = rows.iter().any(|row| row.left_out > 0);
    let mut head = vec!["group", "", "questions", "accuracy %"];
    if judged {
        head.extend(["right by rule", "wait for a judge", "unreadable rulings"]);
    }
    if left_out {
        head.push("empty, not counted");
    }
    let head: Vec<String> = head.into_iter().map(String::from).collect();
    let mut text = line(&head) + &line(&vec!["---".to_string(); head.len()]);
    for row in rows {
        let accuracy = row.accuracy.map_or("open".into(), |accuracy| format!("{accuracy:.1}"));
        let score = row.score.map_or(String::new(), |score| format!(" / {score:.2}"));
        let mut cells =
            vec![row.kind.to_string(), row.name.clone(), row.questions.to_string(), accuracy + &score];
        if judged {
            let by_rule = format!("{} of {}", row.by_rule.right, row.by_rule.n);
            cells.extend([by_rule, row.waiting.to_string(), row.unreadable.to_string()]);
        }
        if left_out {
            cells.push(row.left_out.to_string());
        }
        text += &line(&cells);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_rounds_as_a_bundle_does() {
        // 145 of 400: printing 36.25 itself would round to the even digit.
        assert_eq!((percent(0.3625), written(0.3625)), (36.3, "36.3".to_string()));
        assert_eq!((written(0.5), written(0.0), written(1.0)), ("50.0".into(), "0.0".into(), "100.0".into()));
    }
}

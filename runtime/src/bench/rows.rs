//! What a bench found, and how it is printed: a table, CSV, JSON, or a line of JSON for each row.
//!
//! Comes in: rows, what was left out and why, verdicts, and the machine. Goes out: text. In Markdown a paragraph stands above the table, in CSV lines with `#`,
//! in JSON all is one object; in JSON lines every row carries its machine, so that the files of many boards can be put together. It measures and judges
//! nothing.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::Format;
use super::header::Header;
use super::judge::{Status, Verdict};
use crate::power::Celsius;

/// A measured number and the best that could be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Case, as it is asked for.
    pub case: String,
    /// The bundle's name, or the shape's.
    #[serde(default)]
    pub model: String,
    /// Bits of the decoder's matrices; none where the model does not say.
    #[serde(default)]
    pub bits: Option<String>,
    /// The bundle's hash.
    #[serde(default)]
    pub hash: Option<String>,
    /// Window mode, where it matters.
    pub mode: Option<String>,
    /// Median.
    pub value: f64,
    /// Median distance from the median (MAD), in the same unit.
    pub spread: f64,
    /// The unit of both.
    pub unit: String,
    /// What it cannot be better than on this machine, in the same unit; none where nothing bounds it.
    pub ceiling: Option<f64>,
    /// Mean power while it ran; none where the board does not tell.
    pub watts: Option<f64>,
    /// Frames (`enc`, `frame`) or tokens (`tg128`) for one joule.
    pub per_joule: Option<f64>,
    /// The hottest zone while it ran.
    pub celsius: Option<Celsius>,
    /// Every measurement.
    pub samples: Vec<f64>,
    /// What the ceiling is made of, and what was measured.
    pub note: String,
}

/// A case that was not measured because its model does not fit; the first four fields as in rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skipped {
    /// The bundle's name, or the shape's.
    pub model: String,
    /// Bits.
    pub bits: Option<String>,
    /// Case.
    pub case: String,
    /// Window mode.
    pub mode: Option<String>,
    /// The numbers.
    pub reason: String,
}

/// Everything that a bench found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Header,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What does not fit.
    pub skipped: Vec<Skipped>,
    /// What became of the board's expectations; empty where they were not asked for.
    pub verdicts: Vec<Verdict>,
}

/// A row that stands alone.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: &'a Row,
    machine: &'a Header,
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    (middle(values.len() / 2) + middle(values.len().saturating_sub(1) / 2)) / 2.0
}

/// The median distance from the median: half of the measurements lie within it.
pub fn spread(values: &[f64]) -> f64 {
    let center = median(values.to_vec());
    median(values.iter().map(|value| (value - center).abs()).collect())
}

impl Row {
    /// How much of the ceiling was reached: more is better, whether the unit is a time or a rate.
    fn share(&self) -> Option<f64> {
        let ceiling = self.ceiling.filter(|c| *c > 0.0 && self.value > 0.0)?;
        Some(if self.unit == "ms" { ceiling / self.value } else { self.value / ceiling })
    }

    /// Model, bits, case and mode in one line.
    pub fn title(&self) -> String {
        title(&self.model, self.bits.as_deref(), &self.case, self.mode.as_deref())
    }

    /// The row as a line of JSON of its own.
    pub fn line(&self, machine: &Header) -> serde_json::Result<String> {
        serde_json::to_string(&Line { row: self, machine })
    }
}

/// What a figure is of, in one line.
pub fn title(model: &str, bits: Option<&str>, case: &str, mode: Option<&str>) -> String {
    let words = [model, bits.unwrap_or_default(), case, mode.unwrap_or_default()];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl Report {
    /// Prints everything, but what JSON lines have told already.
    ///
    /// # Errors
    /// Only the writer's.
    pub fn print(&self, format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(self)?)?,
            Format::Jsonl => {
                for skipped in &self.skipped {
                    writeln!(out, "{}", serde_json::json!({"skipped": skipped}))?;
                }
                for verdict in &self.verdicts {
                    writeln!(out, "{}", serde_json::json!({"verdict": verdict}))?;
                }
            }
            Format::Csv => self.csv(out)?,
            Format::Md => self.markdown(out)?,
        }
        Ok(())
    }

    /// The machine, how hot it got, which bundles, what was left out.
    fn header(&self) -> Vec<String> {
        let mut lines = vec![self.machine.to_string()];
        let heat: Vec<Celsius> = self.rows.iter().filter_map(|row| row.celsius).collect();
        if let (Some(first), Some(last)) = (heat.first(), heat.last()) {
            let peak = heat.iter().map(|c| c.peak).fold(f64::NEG_INFINITY, f64::max);
            lines.push(format!("{:.1} °C before, {peak:.1} at most, {:.1} after", first.before, last.after));
        }
        let mut bundles: Vec<String> = Vec::new();
        for (row, hash) in self.rows.iter().filter_map(|row| Some((row, row.hash.as_ref()?))) {
            let line = format!("{}: manifest {hash}", row.model);
            if !bundles.contains(&line) {
                bundles.push(line);
            }
        }
        lines.extend(bundles);
        // Cases of one model mostly fail alike.
        for same in self.skipped.chunk_by(|a, b| a.reason == b.reason) {
            let titles = same.iter().map(|s| title(&s.model, s.bits.as_deref(), &s.case, s.mode.as_deref()));
            let reason = same.first().map_or("", |skipped| &skipped.reason);
            lines.push(format!("skipped {}: {reason}", titles.collect::<Vec<_>>().join(", ")));
        }
        lines
    }

    fn markdown(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}.\n", self.header().join(".\n"))?;
        let power = self.rows.iter().any(|row| row.watts.is_some());
        let heat = self.rows.iter().any(|row| row.celsius.is_some());
        let optional = |shown: bool, text: &str| if shown { format!(" {text} |") } else { String::new() };
        let (watts, each, degrees) = (optional(power, "W"), optional(power, "a joule"), optional(heat, "°C"));
        writeln!(
            out,
            "| model | bits | case | mode | value | ± | ceiling | of it |{watts}{each}{degrees} note |"
        )?;
        let lines = "---:|".repeat(2 * usize::from(power) + usize::from(heat));
        writeln!(out, "|---|---|---|---|---:|---:|---:|---:|{lines}---|")?;
        for row in &self.rows {
            let (bits, mode) = (row.bits.as_deref().unwrap_or(""), row.mode.as_deref().unwrap_or(""));
            let ceiling = row.ceiling.map(|c| format!("{} {}", short(c), row.unit)).unwrap_or_default();
            let share = row.share().map(|s| format!("{:.0} %", s * 100.0)).unwrap_or_default();
            let watts = optional(power, &row.watts.map(short).unwrap_or_default());
            let each = optional(power, &row.per_joule.map(short).unwrap_or_default());
            let degrees = optional(heat, &row.celsius.map(|c| format!("{:.1}", c.peak)).unwrap_or_default());
            writeln!(
                out,
                "| {} | {bits} | {} | {mode} | {} {} | {} | {ceiling} | {share} |{watts}{each}{degrees} {} |",
                row.model,
                row.case,
                short(row.value),
                row.unit,
                short(row.spread),
                row.note
            )?;
        }
        if self.judged().next().is_some() {
            writeln!(out)?;
        }
        self.judged().try_for_each(|verdict| writeln!(out, "    {verdict}"))
    }

    fn csv(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for line in self.header() {
            writeln!(out, "# {line}")?;
        }
        writeln!(out, "model,bits,case,mode,value,spread,unit,ceiling,watts,per_joule,celsius_peak,note")?;
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let number = |value: Option<f64>| value.map(short).unwrap_or_default();
        for row in &self.rows {
            let cells = [
                quoted(&row.model),
                row.bits.clone().unwrap_or_default(),
                row.case.clone(),
                row.mode.clone().unwrap_or_default(),
                short(row.value),
                short(row.spread),
                row.unit.clone(),
                number(row.ceiling),
                number(row.watts),
                number(row.per_joule),
                number(row.celsius.map(|c| c.peak)),
                quoted(&row.note),
            ];
            writeln!(out, "{}", cells.join(","))?;
        }
        self.judged().try_for_each(|verdict| writeln!(out, "# {verdict}"))
    }

    /// Verdicts for people: a profile expects many things that one run does not measure.
    fn judged(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.status != Status::Unmeasured)
    }
}

/// Four figures.
pub fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, unit: &str, value: f64, ceiling: Option<f64>) -> Row {
        Row {
            case: case.into(),
            model: "nano".into(),
            bits: Some("q8_0".into()),
            hash: Some("0123abcd".into()),
            mode: None,
            value,
            spread: 0.25,
            unit: unit.into(),
            ceiling,
            watts: None,
            per_joule: None,
            celsius: None,
            samples: vec![value],
            note: "with \"quotes\", and a comma".into(),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        let board = crate::board::Board::named("generic").unwrap();
        let machine = Header::of(&board, &crate::board::Machine::default());
        let reason = "big needs 9 MiB and 8 are left".into();
        let skipped = Skipped { model: "big".into(), bits: None, case: "enc".into(), mode: None, reason };
        Report { machine, rows, skipped: vec![skipped], verdicts: Vec::new() }
    }

    fn printed(report: &Report, format: Format) -> String {
        let mut out = Vec::new();
        report.print(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_have_four_figures_and_shares_point_one_way() {
        assert_eq!(
            [short(0.012345), short(1.23456), short(123.456), short(98765.0), short(0.0)],
            ["0.01235", "1.235", "123.5", "98765", "0"]
        );
        assert_eq!(row("x", "ms", 10.0, Some(5.0)).share(), Some(0.5));
        assert_eq!(row("x", "tok/s", 5.0, Some(10.0)).share(), Some(0.5));
        assert_eq!(row("x", "%", 5.0, None).share(), None);
    }

    #[test]
    fn the_spread_is_the_median_distance_from_the_median() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(Vec::new()).is_nan());
        // One wild value does not count.
        assert_eq!(spread(&[10.0, 11.0, 12.0, 13.0, 500.0]), 1.0);
        assert_eq!((spread(&[7.0]), spread(&[1.0, 3.0])), (0.0, 1.0));
    }

    #[test]
    fn every_format_says_which_machine_and_what_was_left_out() {
        let all = report(vec![row("tg128", "tok/s", 50.0, Some(100.0))]);
        for format in [Format::Md, Format::Csv, Format::Json] {
            let text = printed(&all, format);
            for part in ["generic", "0123abcd", "big needs 9 MiB", "tg128", "q8_0", "0.25"] {
                assert!(text.contains(part), "{part} is missing:\n{text}");
            }
        }
        let json: serde_json::Value = serde_json::from_str(&printed(&all, Format::Json)).unwrap();
        assert_eq!((&json["rows"][0]["value"], &json["machine"]["board"]), (&50.0.into(), &"generic".into()));
        let line: serde_json::Value = serde_json::from_str(&all.rows[0].line(&all.machine).unwrap()).unwrap();
        assert_eq!((&line["spread"], &line["machine"]["board"]), (&0.25.into(), &"generic".into()));
        assert!(printed(&all, Format::Jsonl).starts_with("{\"skipped\":"));
        let csv = printed(&all, Format::Csv);
        let last = csv.lines().last().unwrap();
        assert!(
            last.ends_with("\"with \"\"quotes\"\", and a comma\"")
                && last.starts_with("\"nano\",q8_0,tg128,,50.00,")
        );
    }

    #[test]
    fn columns_of_power_and_heat_stand_where_the_board_tells_them() {
        let cold = row("enc", "ms", 50.0, None);
        assert!(!printed(&report(vec![cold.clone()]), Format::Md).contains("| W |"));
        let celsius = Some(Celsius { before: 41.0, peak: 55.5, after: 54.0 });
        let warm = Row { watts: Some(7.5), per_joule: Some(2.0), celsius, ..cold.clone() };
        let text = printed(&report(vec![cold, warm]), Format::Md);
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        let columns = |line: &str| line.matches('|').count();
        assert!(table.len() == 4 && table.iter().all(|line| columns(line) == columns(table[0])), "{text}");
        assert!(table[3].contains("| 7.500 | 2.000 | 55.5 |"), "{text}");
        assert!(text.contains("41.0 °C before, 55.5 at most, 54.0 after"), "{text}");
    }
}

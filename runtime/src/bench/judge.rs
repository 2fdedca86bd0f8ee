//! Rows against what a board's profile expects.
//!
//! Comes in: rows, the models that did not fit, and the expectations. Goes out: a verdict for each expectation and each row it is about. A measured
//! expectation may be missed by a quarter, an estimated one by a factor of two, each widened by the row's own spread. Better than expected is never
//! wrong. It is arithmetic: nothing is measured or printed here.

use serde::Serialize;

use super::rows::{Row, Skipped, short, title};
use crate::board::{Basis, Expect};

/// How much a row may be worse than a figure that was measured.
const MEASURED: f64 = 0.25;
/// How much a row may be worse than a figure that was estimated.
const ESTIMATED: f64 = 1.0;
/// Percent of frames that may be lost beside those expected: a share of zero cannot be missed by a quarter.
const POINTS: f64 = 1.0;

/// What became of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Met.
    Ok,
    /// Missed: slower, larger or with more losses than it may be.
    Slow,
    /// Missed: the model did not fit.
    Skipped,
    /// Nothing was measured that it is about; not judged.
    Unmeasured,
}

/// An expectation and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What became of it.
    pub status: Status,
    /// What it is about.
    pub title: String,
    /// Measured, with its spread.
    pub value: Option<(f64, f64)>,
    /// Expected.
    pub expected: f64,
    /// Unit of both.
    pub unit: String,
    /// How many times as good as expected: below 1 is worse.
    pub ratio: Option<f64>,
    /// Where the expectation comes from.
    pub basis: Basis,
    /// Its formula, or how it was measured.
    pub how: String,
}

impl Verdict {
    /// Whether the expectation was missed.
    pub fn missed(&self) -> bool {
        matches!(self.status, Status::Slow | Status::Skipped)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            // Memory is not slow.
            Status::Slow if self.unit == "MiB" => "large",
            Status::Slow => "slow",
            Status::Skipped => "skipped",
            Status::Unmeasured => "-",
        };
        write!(f, "{status:<8}{}: ", self.title)?;
        match self.value {
            Some((value, spread)) => write!(f, "{} ± {}", short(value), short(spread))?,
            None => write!(f, "not measured")?,
        }
        write!(f, ", expected {} {} ({}", short(self.expected), self.unit, self.basis)?;
        self.ratio.map_or(Ok(()), |ratio| write!(f, ", {ratio:.2} times as good"))?;
        write!(f, "): {}", self.how)
    }
}

/// Whether more is better.
fn rate(unit: &str) -> bool {
    unit.ends_with("/s")
}

impl Expect {
    fn model(&self) -> &str {
        self.shape.as_deref().or(self.bundle.as_deref()).unwrap_or_default()
    }

    fn is_about(&self, case: &str, mode: &Option<String>, model: &str, bits: &Option<String>) -> bool {
        let same = self.case == case && self.mode == *mode && self.model() == model;
        same && (self.bits.is_none() || self.bits == *bits)
    }

    fn is_met(&self, row: &Row) -> bool {
        let room = 1.0
            + match self.basis {
                Basis::Measured => MEASURED,
                Basis::Estimated => ESTIMATED,
            };
        if rate(&self.unit) {
            (row.value + row.spread) * room >= self.value
        } else {
            let points = if self.unit == "%" { POINTS } else { 0.0 };
            row.value - row.spread <= self.value * room + points
        }
    }
}

/// Judges every expectation.
///
/// # Errors
/// An expectation in another unit than its row: the profile is wrong.
pub fn judge(rows: &[Row], skipped: &[Skipped], expectations: &[Expect]) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for expect in expectations {
        let verdict = |status, row: Option<&Row>| Verdict {
            status,
            title: title(expect.model(), expect.bits.as_deref(), &expect.case, expect.mode.as_deref()),
            value: row.map(|row| (row.value, row.spread)),
            expected: expect.value,
            unit: expect.unit.clone(),
            ratio: row
                .map(|row| row.value / expect.value)
                .filter(|ratio| ratio.is_normal())
                .map(|ratio| if rate(&expect.unit) { ratio } else { ratio.recip() }),
            basis: expect.basis,
            how: expect.how.clone(),
        };
        let before = verdicts.len();
        for row in rows.iter().filter(|row| expect.is_about(&row.case, &row.mode, &row.model, &row.bits)) {
            anyhow::ensure!(
                row.unit == expect.unit,
                "the board's profile expects {} in {}, it is measured in {}; correct the profile in targets/",
                row.title(),
                expect.unit,
                row.unit
            );
            verdicts.push(verdict(if expect.is_met(row) { Status::Ok } else { Status::Slow }, Some(row)));
        }
        if verdicts.len() == before {
            let left_out = skipped.iter().any(|s| expect.is_about(&s.case, &s.mode, &s.model, &s.bits));
            verdicts.push(verdict(if left_out { Status::Skipped } else { Status::Unmeasured }, None));
        }
    }
    Ok(verdicts)
}

/// The rows that no expectation is about.
pub fn unjudged(rows: &[Row], expectations: &[Expect]) -> Vec<String> {
    let about = |row: &Row, expect: &Expect| expect.is_about(&row.case, &row.mode, &row.model, &row.bits);
    let left = rows.iter().filter(|row| !expectations.iter().any(|expect| about(row, expect)));
    left.map(Row::title).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(case: &str, mode: Option<&str>, value: f64, unit: &str, basis: Basis) -> Expect {
        Expect {
            case: case.into(),
            shape: Some("qwen2-0.5b".into()),
            bundle: None,
            bits: Some("q4_0".into()),
            mode: mode.map(Into::into),
            value,
            unit: unit.into(),
            basis,
            how: "a formula".into(),
        }
    }

    fn row(case: &str, mode: Option<&str>, value: f64, spread: f64, unit: &str) -> Row {
        Row {
            case: case.into(),
            model: "qwen2-0.5b".into(),
            bits: Some("q4_0".into()),
            hash: None,
            mode: mode.map(Into::into),
            value,
            spread,
            unit: unit.into(),
            ceiling: None,
            watts: None,
            per_joule: None,
            celsius: None,
            samples: vec![],
            note: String::new(),
        }
    }

    fn status(row: &Row, expect: &Expect) -> Status {
        judge(std::slice::from_ref(row), &[], std::slice::from_ref(expect)).unwrap()[0].status
    }

    #[test]
    fn a_measured_figure_may_be_missed_by_a_quarter_and_an_estimate_by_a_factor_of_two() {
        use Basis::{Estimated, Measured};
        for (basis, value, unit, good, bad) in [
            (Measured, 100.0, "ms", 125.0, 125.1),
            (Estimated, 100.0, "ms", 200.0, 200.1),
            (Measured, 100.0, "tok/s", 80.0, 79.9),
            (Estimated, 100.0, "tok/s", 50.0, 49.9),
            (Measured, 100.0, "MiB", 125.0, 126.0),
            (Measured, 0.0, "%", 1.0, 1.1),
        ] {
            let expect = expect("x", None, value, unit, basis);
            assert_eq!(status(&row("x", None, good, 0.0, unit), &expect), Status::Ok, "{good} {unit}");
            assert_eq!(status(&row("x", None, bad, 0.0, unit), &expect), Status::Slow, "{bad} {unit}");
            // A row that is not sure of itself gets the benefit of its doubt, in either direction.
            assert_eq!(status(&row("x", None, bad, 1.2, unit), &expect), Status::Ok, "{bad} {unit}");
            assert_eq!(status(&row("x", None, f64::NAN, 0.0, unit), &expect), Status::Slow);
        }
        let fast = row("x", None, 1.0, 0.0, "ms");
        let verdict = &judge(&[fast], &[], &[expect("x", None, 100.0, "ms", Measured)]).unwrap()[0];
        assert_eq!((verdict.status, verdict.ratio, verdict.missed()), (Status::Ok, Some(100.0), false));
    }

    #[test]
    fn expectations_are_about_the_same_model_case_and_mode() {
        let expected = [
            expect("ttft32", Some("rolling"), 10.0, "ms", Basis::Measured),
            expect("tg128", None, 50.0, "tok/s", Basis::Estimated),
        ];
        let other = Row { bits: Some("q8_0".into()), ..row("tg128", None, 10.0, 0.0, "tok/s") };
        let rows = [row("ttft32", Some("exact"), 900.0, 0.0, "ms"), other.clone()];
        let verdicts = judge(&rows, &[], &expected).unwrap();
        assert!(verdicts.iter().all(|v| v.status == Status::Unmeasured && !v.missed()), "{verdicts:?}");
        assert_eq!(unjudged(&rows, &expected), ["qwen2-0.5b q4_0 ttft32 exact", "qwen2-0.5b q8_0 tg128"]);
        // Without bits it is about all of them.
        let any = Expect { bits: None, ..expected[1].clone() };
        let both = [row("tg128", None, 60.0, 0.0, "tok/s"), other];
        let found: Vec<_> =
            judge(&both, &[], std::slice::from_ref(&any)).unwrap().iter().map(|v| v.status).collect();
        assert_eq!(found, [Status::Ok, Status::Slow]);
        let bundle = Expect { shape: None, bundle: Some("nano".into()), ..any };
        assert_eq!(status(&both[0], &bundle), Status::Unmeasured);
    }

    #[test]
    fn a_model_that_was_expected_and_did_not_fit_is_missed() {
        let (model, bits, reason) = ("qwen2-0.5b".into(), Some("q4_0".into()), "too large".into());
        let mut skipped = Skipped { model, bits, case: "tg128".into(), mode: None, reason };
        let expected = expect("tg128", None, 50.0, "tok/s", Basis::Measured);
        let verdicts = |skipped: &Skipped| {
            judge(&[], std::slice::from_ref(skipped), std::slice::from_ref(&expected)).unwrap()
        };
        let verdict = &verdicts(&skipped)[0];
        assert!(verdict.status == Status::Skipped && verdict.missed());
        let text = verdict.to_string();
        for part in ["skipped", "qwen2-0.5b q4_0 tg128", "50.00 tok/s", "measured", "a formula"] {
            assert!(text.contains(part), "{text}");
        }
        skipped.case = "frame".into();
        assert_eq!(verdicts(&skipped)[0].status, Status::Unmeasured);
    }

    #[test]
    fn another_unit_is_the_profiles_fault() {
        let expected = expect("tg128", None, 50.0, "ms", Basis::Measured);
        let found = judge(&[row("tg128", None, 9.0, 0.0, "tok/s")], &[], &[expected]);
        assert!(found.unwrap_err().to_string().contains("targets/"));
    }
}

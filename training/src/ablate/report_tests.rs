//! Tests of [`super`]: differences within seeds, and what is written.

use super::*;

fn study() -> Study {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/studies/mix-ratio.toml"));
    let mut study: Study = toml::from_str(&text.unwrap()).unwrap();
    study.seeds = vec![1, 2, 3];
    study.primary = "order/ranked".into();
    study.correlate = Some("tpl/utr".into());
    study
}

/// An arm's share lies above the control's by `gain` in every seed; seeds differ by far more.
fn outcomes(study: &Study, gain: f64) -> Vec<Outcome> {
    let one = |n: usize, arm: &Arm, seed: u64| Outcome {
        of: String::new(),
        arm: arm.name.clone(),
        seed,
        supervised: [20.0, 90.0],
        clips: 100,
        scores: [
            ("order/ranked".to_string(), 0.5 + 0.1 * seed as f64 + gain * n as f64),
            ("tpl/utr".to_string(), (seed + n as u64) as f64),
        ]
        .into(),
    };
    let runs = study.seeds.iter().flat_map(|s| study.arms.iter().enumerate().map(move |(n, a)| (n, a, *s)));
    runs.map(|(n, arm, seed)| one(n, arm, seed)).collect()
}

#[test]
fn differences_are_taken_within_seeds() {
    let study = study();
    let outcomes = outcomes(&study, 0.02);
    let row = row(&study, &study.arms[1], &outcomes, &Parts::default()).unwrap();
    let [score, difference] = [&row.scores["order/ranked"], &row.against_control["order/ranked"]];
    assert!((score.mean - 0.72).abs() < 1e-9 && score.interval[1] - score.interval[0] > 0.3, "{score:?}");
    assert!((difference.mean - 0.02).abs() < 1e-9 && (difference.interval[0] - 0.02).abs() < 1e-6);
}

#[test]
fn everything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let study = study();
    write(&study, &[(Skill::Direction, 7)], &outcomes(&study, 0.02), &Parts::default(), folder.path())
        .unwrap();
    let text = std::fs::read_to_string(folder.path().join("results.md")).unwrap();
    for arm in &study.arms {
        assert!(text.contains(&arm.name));
    }
    // Both measures grow from arm to arm.
    assert!(text.contains("1.000 [1.000, 1.000]") && text.contains("Spearman's 1.000"), "{text}");
    assert!(
        text.contains("direction 7.")
            && text.contains("Within single seeds, over 3 of them (Student): 1.000; slope 0.020"),
        "{text}"
    );
    for figure in ["primary.svg", "difference.svg", "correlation.svg"] {
        assert!(std::fs::read_to_string(folder.path().join(figure)).unwrap().contains("<svg"), "{figure}");
    }
}

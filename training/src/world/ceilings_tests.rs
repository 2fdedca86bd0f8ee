//! Tests of [`super`].

use super::*;
use crate::world::WorldConfig;

fn suite(skills: &[Skill]) -> Suite {
    Suite {
        name: "small".into(),
        split: Split::Test,
        first_seed: 0,
        pairs_per_skill: 60,
        held_out_share: 0.0,
        demo_seed: 0,
        skills: skills.to_vec(),
        stream: None,
        world: WorldConfig::easy(2),
    }
}

#[test]
fn an_order_skill_stays_near_chance_for_the_blind_and_for_one_frame() {
    let found = measure(&suite(&[Skill::Direction]), 120, 60, &|_| {});
    let direction = found.skill(Skill::Direction).unwrap();
    assert_eq!((direction.n, direction.fresh.n), (120, 120));
    // The same question with both answers: the question alone is worth exactly nothing.
    assert_eq!(direction.blind.accuracy, 0.5);
    assert!((direction.fresh.single.accuracy - 0.5).abs() < 0.15, "{direction:?}");
    assert!((direction.fresh.bag.accuracy - 0.5).abs() < 0.15, "{direction:?}");
}

#[test]
fn a_skill_that_a_bag_solves_is_found_out() {
    let found = measure(&suite(&[Skill::Existence]), 150, 0, &|_| {});
    let existence = found.skill(Skill::Existence).unwrap();
    assert!(existence.bag.accuracy > 0.7 && !existence.bag_proof && !existence.order, "{existence:?}");
}

#[test]
fn ceilings_of_another_suite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    let a = suite(&[Skill::Antonym]);
    let empty = Ceilings {
        suite: a.name.clone(),
        suite_hash: a.hash(),
        fit_pairs: 1,
        skills: Vec::new(),
        needs_more_than_four: 0.0,
    };
    std::fs::write(&path, serde_json::to_string(&empty).unwrap()).unwrap();
    assert_eq!(Ceilings::load(&path, &a).unwrap(), empty);
    let b = Suite { first_seed: 1, ..a };
    assert!(Ceilings::load(&path, &b).unwrap_err().to_string().contains("another suite"));
}

#[test]
fn intervals_hold_the_accuracy_and_narrow_with_items() {
    let few = score(&[1.0, 0.0, 1.0, 1.0]);
    let many = score(&[1.0, 0.0, 1.0, 1.0].repeat(100));
    assert!(few.interval[0] < 0.75 && 0.75 < few.interval[1]);
    assert!(many.interval[1] - many.interval[0] < 0.15);
}

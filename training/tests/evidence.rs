//! Evidence is checked, not believed: taking away the frames that an answer attended to most must make that answer less likely than taking away others.
//!
//! In: the shipped model and clips of the validation worlds. Out: a failure with both means; the figures are printed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use utr_models::generate::Sampling;
use utr_runtime::answer::{Answerer, Question};
use utr_runtime::capture::{Frame, Stamp};
use utr_runtime::decode::{Finish, KvPrecision};
use utr_runtime::encode::encode_frames;
use utr_runtime::evidence::Wanted;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::View;
use utr_training::world::Renderer;
use utr_training::world::suite::Suite;

/// Pairs of each skill.
const PAIRS: usize = 6;
/// Draws of other frames.
const DRAWS: usize = 4;

#[test]
#[ignore = "takes minutes; cargo test --release --workspace --test evidence -- --ignored --nocapture"]
fn frames_with_most_evidence_matter_more_than_others() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Model { mut encoder, language } =
        Model::open(&repository.join("models/bundles/utr-nano"), None).unwrap();
    let mut answerer = Answerer::new(Arc::clone(&language), KvPrecision::F32);
    let suite = Suite::load(&repository.join("training/worlds/val.toml")).unwrap();
    let interrupt = Interrupt::default();
    let mut state = 1u64;
    let mut draw = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let (mut most, mut least, mut random, mut items) = (0.0, 0.0, 0.0, 0);
    for (skill, n) in suite.skills.iter().flat_map(|skill| (0..PAIRS).map(|n| (*skill, n))) {
        for posed in suite.pair(skill, n).twins {
            let mut renderer = Renderer::new(&posed.script, 64);
            let frames: Vec<_> = (0..32)
                .map(|t| {
                    let stamp = Stamp { index: t, pts_ms: t as u64 * 250 };
                    Arc::new(Frame { stamp, captured: Instant::now(), image: renderer.frame(t as f32) })
                })
                .collect();
            let frames = encode_frames(encoder.as_mut(), &frames, &interrupt).unwrap();
            let question = Question::new(posed.item.question.clone());
            let sampling = Sampling { max_tokens: 32, ..question.sampling };
            let question = Question { evidence: Wanted::Frames, ..question.with_sampling(sampling) };
            let answer = answerer
                .answer(&View::unread(frames.clone()), &question, &interrupt, &mut |_| Ok(()))
                .unwrap();
            let mut told = answer.tokens.clone();
            if answer.finish == Finish::Stop {
                told.extend(language.stop.first());
            }
            let share = answer.evidence.unwrap().per_frame;
            let mut order: Vec<usize> = (0..frames.len()).collect();
            order.sort_by(|a, b| share[*b].total_cmp(&share[*a]));
            let mut without = |gone: &[usize]| {
                let kept: Vec<_> =
                    (0..frames.len()).filter(|i| !gone.contains(i)).map(|i| Arc::clone(&frames[i])).collect();
                answerer.likelihood(&kept, &question, &told, &interrupt).unwrap()
            };
            most += without(&order[..8]);
            least += without(&order[24..]);
            for _ in 0..DRAWS {
                let mut mixed = order.clone();
                (0..8).for_each(|i| mixed.swap(i, i + draw(32 - i)));
                random += without(&mixed[..8]) / DRAWS as f64;
            }
            items += 1;
        }
    }
    let [most, random, least] = [most, random, least].map(|sum| sum / items as f64);
    println!(
        "{items} answers, mean nll without a quarter of the frames: most evidence {most:.4}, random {random:.4}, least {least:.4}"
    );
    assert!(most > random && random > least, "most {most:.4}, random {random:.4}, least {least:.4}");
}

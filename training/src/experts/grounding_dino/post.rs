//! From the graph's numbers to named boxes.
//!
//! Comes in: logits and boxes of every query, and the caption they were asked with. Goes out: boxes in pixels with a score and a phrase, by the rules of
//! the original and of `transformers` (reference.md §4.4), but the best first, so that the order of queries does not matter. Nothing is tracked.

use anyhow::{Result, ensure};

use super::graph::Answer;
use super::text::{Caption, MAX_TOKENS, Words};
use crate::queries::scene::iou;

/// How a box gets its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PhraseRule {
    /// The class whose block holds the likeliest token: one of the names asked for, or none where that token is `[CLS]` or `[SEP]`.
    #[default]
    Class,
    /// All tokens above the threshold in their order, as `transformers` does (may glue two names together).
    Tokens,
    /// Those of the likeliest token's block, as the original does with `remove_combined`.
    Block,
}

/// Limits on what counts as found.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct Thresholds {
    /// Least score of a box
    #[arg(long, default_value_t = 0.25)]
    pub box_threshold: f32,
    /// Least score of a token that lends its word
    #[arg(long, default_value_t = 0.25)]
    pub text_threshold: f32,
    /// Boxes that overlap a better named one by more than this share are dropped, whatever their class; neither reference does
    #[arg(long, value_name = "IOU")]
    pub nms: Option<f32>,
    /// How a box gets its words
    #[arg(long, value_enum, default_value_t)]
    pub phrase_rule: PhraseRule,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { box_threshold: 0.25, text_threshold: 0.25, nms: None, phrase_rule: PhraseRule::Class }
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Left, top, right, bottom in pixels of the source; not clipped to it.
    pub xyxy: [f32; 4],
    /// Of the likeliest token.
    pub score: f32,
    /// What it is called; empty where no word is fit.
    pub phrase: String,
}

/// The boxes above the thresholds, the best first; equals stay in the graph's order. `size` is (height, width) of the source.
///
/// # Errors
/// An answer that is not a number, and a phrase that the tokenizer cannot decode.
pub fn found(
    answer: &Answer,
    size: (u32, u32),
    caption: &Caption,
    words: &Words,
    limits: &Thresholds,
) -> Result<Vec<Found>> {
    let (height, width) = (size.0 as f32, size.1 as f32);
    let mut all = Vec::new();
    for (row, b) in answer.logits.chunks_exact(answer.columns.max(1)).zip(answer.boxes.chunks_exact(4)) {
        // Columns past the caption belong to no token.
        let shares: Vec<f32> =
            row.iter().take(caption.ids.len()).map(|v| 1.0 / (1.0 + libm::expf(-v))).collect();
        ensure!(
            !shares.iter().chain(b).any(|value| value.is_nan()),
            "the graph answered with values that are no numbers; a half-precision graph may need to be replaced by one in f32"
        );
        // The first of equals.
        let mut best = (0, limits.box_threshold);
        for (at, &share) in shares.iter().enumerate() {
            if share > best.1 {
                best = (at, share);
            }
        }
        let (best, score) = best;
        let &[x, y, w, h] = b else { continue };
        if score <= limits.box_threshold {
            continue;
        }
        let xyxy =
            [(x - w / 2.0) * width, (y - h / 2.0) * height, (x + w / 2.0) * width, (y + h / 2.0) * height];
        all.push(Found { xyxy, score, phrase: phrase(&shares, best, caption, words, limits)? });
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(match limits.nms {
        Some(most) => thinned(all, most),
        None => all,
    })
}

/// Drops what overlaps a better one, whatever it is called; what has no name is left out later and drops nothing.
fn thinned(all: Vec<Found>, most: f32) -> Vec<Found> {
    let mut kept: Vec<Found> = Vec::new();
    for one in all {
        if kept.iter().all(|k| k.phrase.is_empty() || iou(k.xyxy, one.xyxy) <= most) {
            kept.push(one);
        }
    }
    kept
}

fn phrase(
    shares: &[f32],
    best: usize,
    caption: &Caption,
    words: &Words,
    limits: &Thresholds,
) -> Result<String> {
    // Neither reference looks at the first token, at the last column, or at what lies behind it.
    let counts = |at: &usize| *at > 0 && *at < MAX_TOKENS - 1 && shares[*at] > limits.text_threshold;
    let ids = |inside: &dyn Fn(usize) -> bool| -> Vec<u32> {
        (0..shares.len()).filter(counts).filter(|at| inside(*at)).map(|at| caption.ids[at]).collect()
    };
    match limits.phrase_rule {
        PhraseRule::Tokens => words.decode(&ids(&|_| true)),
        PhraseRule::Block => {
            // The block between the delimiters around the likeliest token, without them.
            let block = caption.block[best];
            let text = words.decode(&ids(&|at| caption.block[at] == block && caption.class[at].is_some()))?;
            Ok(text.replace('.', ""))
        }
        PhraseRule::Class => {
            let named = |at: usize| caption.class.get(at).copied().flatten();
            // The full stop of a name is its own.
            let class = named(best).or_else(|| named(best.checked_sub(1)?));
            Ok(class.and_then(|c| caption.names.get(c)).cloned().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::words;
    use super::*;

    const LOW: f32 = -9.0;

    /// What is found of queries that are asked for `a cat` and `a remote control`, at boxes of their own.
    fn ask(rows: &[[f32; 9]], boxes: &[f32], limits: Thresholds) -> Result<Vec<Found>> {
        let words = words();
        // [CLS] a cat . a remote control . [SEP]
        let caption = words.caption(&["A cat".to_string(), " a remote control".to_string()]).unwrap();
        let answer = Answer { columns: 9, logits: rows.concat(), boxes: boxes.to_vec() };
        found(&answer, (100, 200), &caption, &words, &limits)
    }

    fn phrases(found: Result<Vec<Found>>) -> Vec<String> {
        found.unwrap().into_iter().map(|one| one.phrase).collect()
    }

    const ROWS: [[f32; 9]; 4] = [
        [LOW, LOW, LOW, LOW, LOW, 0.4, 1.4, LOW, LOW],
        [LOW, LOW, 2.0, LOW, LOW, LOW, 1.0, LOW, LOW],
        [LOW, LOW, LOW, LOW, LOW, 0.5, 1.5, LOW, LOW],
        [LOW; 9],
    ];
    const BOXES: [f32; 16] =
        [0.26, 0.25, 0.5, 0.5, 0.5, 0.5, 0.2, 0.4, 0.25, 0.25, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1];

    fn limits(phrase_rule: PhraseRule, nms: Option<f32>) -> Thresholds {
        Thresholds { nms, phrase_rule, ..Thresholds::default() }
    }

    #[test]
    fn boxes_come_in_pixels_best_first_with_the_words_of_each_rule() {
        let of = |rule| phrases(ask(&ROWS, &BOXES, limits(rule, None)));
        assert_eq!(of(PhraseRule::Tokens), ["cat control", "remote control", "remote control"]);
        assert_eq!(of(PhraseRule::Block), ["cat", "remote control", "remote control"]);
        assert_eq!(of(PhraseRule::Class), ["a cat", "a remote control", "a remote control"]);
        let found = ask(&ROWS, &BOXES, limits(PhraseRule::Class, None)).unwrap();
        assert_eq!(found[0].xyxy.map(f32::round), [80.0, 30.0, 120.0, 70.0]);
        assert!((found[0].score - 0.8808).abs() < 1e-4);
        assert_eq!(found[2].xyxy.map(f32::round), [2.0, 0.0, 102.0, 50.0]);
    }

    #[test]
    fn overlapping_boxes_are_dropped_only_where_asked_and_only_by_named_ones() {
        let class = |rows, boxes, nms| phrases(ask(rows, boxes, limits(PhraseRule::Class, nms)));
        assert_eq!(class(&ROWS, &BOXES, None).len(), 3);
        assert_eq!(class(&ROWS, &BOXES, Some(0.8)), ["a cat", "a remote control"]);
        // One place for all: the class does not matter.
        let same = [0.25, 0.25, 0.5, 0.5].repeat(4);
        assert_eq!(class(&ROWS, &same, Some(0.8)), ["a cat"]);
        let mut unnamed = ROWS;
        unnamed[1] = [LOW, LOW, LOW, LOW, LOW, LOW, LOW, LOW, 3.0];
        assert_eq!(class(&unnamed, &same, Some(0.8)), ["", "a remote control"]);
    }

    #[test]
    fn the_first_of_equal_tokens_names_the_box_and_what_is_no_number_is_an_error() {
        let mut rows = [[LOW; 9], [f32::NEG_INFINITY; 9]];
        (rows[0][2], rows[0][6]) = (1.0, 1.0);
        let class = limits(PhraseRule::Class, None);
        assert_eq!(phrases(ask(&rows, &BOXES[..8], class)), ["a cat"]);
        rows[1][2] = f32::NAN;
        assert!(ask(&rows, &BOXES[..8], class).unwrap_err().to_string().contains("no numbers"));
    }
}

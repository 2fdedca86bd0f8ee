//! From the graph's numbers to named boxes.
//!
//! Comes in: logits and boxes of every query, and the caption they were asked with. Goes out: boxes in pixels with a score and a phrase, by the rules of
//! the original and of `transformers` (reference.md §4.4), the best first. Nothing is tracked.

use anyhow::Result;

use super::text::{Caption, MAX_TOKENS, Words};

/// How a box gets its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PhraseRule {
    /// The class whose block holds the likeliest token: always one of the names asked for.
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
    /// Boxes that overlap a better one by more than this share are dropped, whatever their class; neither reference does
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
    /// What it is called; empty where no token passed.
    pub phrase: String,
}

/// The boxes above the thresholds. `logits` has one row of `tokens` raw values per query, `boxes` four numbers (centre and size in shares of the
/// picture); `size` is (height, width) of the source; `classes` are the names as asked.
///
/// # Errors
/// A phrase that the tokenizer cannot decode.
pub fn found(
    (logits, tokens): (&[f32], usize),
    boxes: &[f32],
    size: (u32, u32),
    caption: &Caption,
    (words, classes): (&Words, &[String]),
    limits: &Thresholds,
) -> Result<Vec<Found>> {
    let (height, width) = (size.0 as f32, size.1 as f32);
    let mut all = Vec::new();
    for (row, b) in logits.chunks_exact(tokens.max(1)).zip(boxes.chunks_exact(4)) {
        // Columns past the caption belong to no token.
        let shares: Vec<f32> =
            row.iter().take(caption.ids.len()).map(|v| 1.0 / (1.0 + libm::expf(-v))).collect();
        let Some((best, &score)) = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)) else {
            continue;
        };
        if score <= limits.box_threshold {
            continue;
        }
        let &[x, y, w, h] = b else { continue };
        let xyxy =
            [(x - w / 2.0) * width, (y - h / 2.0) * height, (x + w / 2.0) * width, (y + h / 2.0) * height];
        let phrase = phrase(&shares, best, caption, (words, classes), limits)?;
        all.push(Found { xyxy, score, phrase });
    }
    if let Some(most) = limits.nms {
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut kept: Vec<Found> = Vec::new();
        for one in all {
            if kept.iter().all(|k| crate::queries::scene::iou(k.xyxy, one.xyxy) <= most) {
                kept.push(one);
            }
        }
        return Ok(kept);
    }
    Ok(all)
}

fn phrase(
    shares: &[f32],
    best: usize,
    caption: &Caption,
    (words, classes): (&Words, &[String]),
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
            Ok(class.and_then(|c| classes.get(c)).map(|c| c.trim().to_lowercase()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::words;
    use super::*;

    fn ask(rule: PhraseRule, nms: Option<f32>) -> Vec<Found> {
        let words = words();
        let classes = vec!["a cat".to_string(), "a remote control".to_string()];
        let caption = words.caption(&classes).unwrap();
        // [CLS] a cat . a remote control . [SEP]
        let low = -9.0;
        let rows = [
            [low, low, 2.0, low, low, low, 1.0, low, low],
            [low, low, low, low, low, 0.5, 1.5, low, low],
            [low, low, low, low, low, 0.4, 1.4, low, low],
            [low; 9],
        ];
        let boxes = [0.5, 0.5, 0.2, 0.4, 0.25, 0.25, 0.5, 0.5, 0.26, 0.25, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1];
        let limits = Thresholds { nms, phrase_rule: rule, ..Thresholds::default() };
        found((&rows.concat(), 9), &boxes, (100, 200), &caption, (&words, &classes), &limits).unwrap()
    }

    #[test]
    fn boxes_come_in_pixels_with_the_words_of_each_rule() {
        let phrases = |rule| ask(rule, None).into_iter().map(|f| f.phrase).collect::<Vec<_>>();
        assert_eq!(phrases(PhraseRule::Tokens), ["cat control", "remote control", "remote control"]);
        assert_eq!(phrases(PhraseRule::Block), ["cat", "remote control", "remote control"]);
        assert_eq!(phrases(PhraseRule::Class), ["a cat", "a remote control", "a remote control"]);
        let first = &ask(PhraseRule::Class, None)[0];
        assert_eq!(first.xyxy.map(f32::round), [80.0, 30.0, 120.0, 70.0]);
        assert!((first.score - 0.8808).abs() < 1e-4);
    }

    #[test]
    fn overlapping_boxes_are_dropped_only_where_asked() {
        assert_eq!(ask(PhraseRule::Class, None).len(), 3);
        assert_eq!(ask(PhraseRule::Class, Some(0.8)).len(), 2);
    }
}

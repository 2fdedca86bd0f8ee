//! From logits to the next token.
//!
//! Comes in: the logits of one position and the sampling settings. Goes out: a token id. Greedy choice equals the
//! reference token for token; with a temperature the filter is Hugging Face's nucleus (top-p) filter and the draw comes
//! from a seeded ChaCha8 stream, so that an answer can be repeated on any machine. The loop around it, stop tokens and
//! detokenization belong to the caller.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How answers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Zero takes the most likely token; above zero divides the logits.
    pub temperature: f32,
    /// Probability mass of the most likely tokens that may be drawn, above 0 up to 1; 1 keeps all.
    pub top_p: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// Goes on to `max_tokens` past the end of the turn, as benchmarks of servers need it (vLLM's and llama.cpp's name).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0, max_tokens: 256, ignore_eos: false }
    }
}

impl Sampling {
    /// Whether the most likely token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// An error that names the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::Argument(format!(
                "temperature is {}; it must be zero or above",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::Argument(format!(
                "top-p is {}; it must be above 0 and at most 1",
                self.top_p
            )));
        }
        if self.max_tokens == 0 {
            return Err(Error::Argument("max-tokens is 0; an answer needs at least one token".into()));
        }
        Ok(())
    }
}

/// Draws one token after another for one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// Scratch: (scaled logit, id), reused between tokens.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler at the start of its seed's stream.
    pub fn new(sampling: Sampling) -> Result<Self> {
        sampling.validate()?;
        Ok(Self { sampling, rng: ChaCha8Rng::seed_from_u64(sampling.seed), candidates: Vec::new() })
    }

    /// The settings.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The next token for `logits` (vocabulary,).
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let best = argmax(logits)?;
        if self.sampling.is_greedy() {
            return Ok(best);
        }
        let temperature = self.sampling.temperature;
        self.candidates.clear();
        self.candidates.extend(logits.iter().zip(0u32..).map(|(&logit, id)| (logit / temperature, id)));
        // Most likely first; equal logits by id, so that the order is the same everywhere.
        self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let top = self.candidates.first().map_or(0.0, |c| c.0);
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.0 - top).exp()).sum();
        let mut mass = 0.0;
        // A token stays while the mass before it is below top-p: the least likely ones, together at most 1 - top-p, go.
        let keep = self.candidates.iter().take_while(|c| {
            let stays = mass < f64::from(self.sampling.top_p) * total;
            mass += f64::from(c.0 - top).exp();
            stays
        });
        let keep = keep.count().max(1);
        let kept = self.candidates.get(..keep).unwrap_or(&self.candidates);
        let kept_mass: f64 = kept.iter().map(|c| f64::from(c.0 - top).exp()).sum();
        let mut target = self.rng.random::<f64>() * kept_mass;
        for &(logit, id) in kept {
            target -= f64::from(logit - top).exp();
            if target < 0.0 {
                return Ok(id);
            }
        }
        Ok(kept.last().map_or(best, |c| c.1))
    }
}

/// The id of the largest logit, the lowest one among equals. Empty logits or a NaN are an error.
pub fn argmax(logits: &[f32]) -> Result<u32> {
    let mut best: Option<(f32, u32)> = None;
    for (&logit, id) in logits.iter().zip(0u32..) {
        if logit.is_nan() {
            return Err(Error::Argument(format!(
                "the logit of token {id} is NaN: the weights or the input are broken"
            )));
        }
        if best.is_none_or(|(top, _)| logit > top) {
            best = Some((logit, id));
        }
    }
    best.map(|(_, id)| id).ok_or_else(|| Error::Argument("no logits to choose from".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed, max_tokens: 1, ignore_eos: false }).unwrap()
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        assert_eq!(sampler(0.0, 1.0, 0).sample(&[1.0, 3.0, 2.0, 3.0]).unwrap(), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]).unwrap(), 0);
        assert!(argmax(&[0.0, f32::NAN]).is_err());
        assert!(argmax(&[]).is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (temperature, top_p, word) in
            [(-1.0, 1.0, "temperature"), (f32::NAN, 1.0, "temperature"), (1.0, 0.0, "top-p")]
        {
            let error =
                Sampler::new(Sampling { temperature, top_p, seed: 0, max_tokens: 1, ..Sampling::default() })
                    .unwrap_err();
            assert!(error.to_string().contains(word));
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let mut sampler = sampler(2.0, 1.0, 7);
        let logits = [0.0, 2.0 * 3f32.ln()];
        let ones: u32 = (0..4000).map(|_| sampler.sample(&logits).unwrap()).sum();
        assert!((2880..3120).contains(&ones), "expected about 3000 of 4000, drew {ones}");
    }

    #[test]
    fn nucleus_keeps_the_token_that_crosses_the_mass() {
        // Probabilities 0.5, 0.3, 0.2: top-p 0.6 keeps two, 0.5 keeps one.
        let logits = [0.3f32.ln(), 0.5f32.ln(), 0.2f32.ln()];
        let drawn = |top_p| {
            let mut sampler = sampler(1.0, top_p, 3);
            let mut ids: Vec<u32> = (0..300).map(|_| sampler.sample(&logits).unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!((drawn(0.6), drawn(0.45), drawn(1.0)), (vec![0, 1], vec![1], vec![0, 1, 2]));
    }

    proptest! {
        #[test]
        fn equal_seeds_draw_equal_tokens(logits in prop::collection::vec(-9f32..9.0, 1..40), seed: u64) {
            let (mut a, mut b) = (sampler(0.8, 0.9, seed), sampler(0.8, 0.9, seed));
            for _ in 0..5 {
                let id = a.sample(&logits).unwrap();
                prop_assert_eq!(id, b.sample(&logits).unwrap());
                prop_assert!((id as usize) < logits.len());
            }
        }
    }
}

//! The streaming reference (design: the window): one dense pass in f64, straight from the definition.
//!
//! Comes in: a decoder's weights, the rows of the prompt, of every frame since the stream began, and of the suffix behind the newest frame. Goes
//! out: the suffix's final-normed states. Every key is rotated to the position the definition names, for every query anew: nothing is cached, nothing is
//! relative, and no code of the runtime or of the network is used.

use std::collections::HashMap;

use utr_models::config::TextConfig;
use utr_models::weights::Weights;

/// A decoder in f64.
pub struct Reference {
    config: TextConfig,
    weights: HashMap<String, Vec<f64>>,
}

/// What is read: (rows, hidden) each.
pub struct Stream<'a> {
    pub prefix: &'a [f32],
    /// Frames `first..first + frames.len()` of the stream; earlier ones must be too old to have an influence.
    pub frames: &'a [Vec<f32>],
    pub first: usize,
    pub suffix: &'a [f32],
    pub window: usize,
}

/// Where a row stands.
#[derive(Clone, Copy)]
enum Kind {
    Prefix(usize),
    /// (frame, offset)
    Frame(usize, usize),
    Suffix(usize),
}

impl Reference {
    pub fn new(config: &TextConfig, weights: &Weights) -> Self {
        let values = |t: &candle_core::Tensor| {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
        };
        Self {
            config: config.clone(),
            weights: weights.iter().map(|(n, t)| (n.clone(), values(t))).collect(),
        }
    }

    fn weight(&self, name: &str) -> &[f64] {
        &self.weights[&format!("language_model.{name}")]
    }

    fn linear(&self, x: &[f64], name: &str, bias: bool) -> Vec<f64> {
        let weight = self.weight(&format!("{name}.weight"));
        let outs = weight.len() / x.len();
        let bias = if bias { self.weight(&format!("{name}.bias")).to_vec() } else { vec![0.0; outs] };
        weight
            .chunks(x.len())
            .zip(bias)
            .map(|(w, b)| b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
            .collect()
    }

    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.config.rms_norm_eps).sqrt();
        x.iter().zip(self.weight(name)).map(|(x, w)| x * scale * w).collect()
    }

    /// Rotates a head to an absolute position.
    fn rotate(&self, head: &[f64], position: usize) -> Vec<f64> {
        let half = head.len() / 2;
        let mut out = vec![0.0; head.len()];
        for i in 0..half {
            let angle = position as f64 * self.config.rope_theta.powf(-2.0 * i as f64 / head.len() as f64);
            let (sin, cos) = angle.sin_cos();
            out[i] = head[i] * cos - head[i + half] * sin;
            out[i + half] = head[i + half] * cos + head[i] * sin;
        }
        out
    }

    /// (suffix rows, hidden) final-normed states.
    pub fn suffix_states(&self, stream: &Stream) -> Vec<Vec<f64>> {
        let hidden = self.config.hidden;
        let rows = |x: &[f32]| {
            x.chunks(hidden).map(|r| r.iter().map(|v| f64::from(*v)).collect()).collect::<Vec<Vec<f64>>>()
        };
        let p = stream.prefix.len() / hidden;
        let t = stream.frames.first().map_or(0, |f| f.len() / hidden);
        let newest = stream.first + stream.frames.len() - 1;
        let since = |frame: usize| (frame + 1).saturating_sub(stream.window);

        let mut x = rows(stream.prefix);
        let mut kinds: Vec<Kind> = (0..p).map(Kind::Prefix).collect();
        for (i, frame) in stream.frames.iter().enumerate() {
            x.extend(rows(frame));
            kinds.extend((0..t).map(|o| Kind::Frame(stream.first + i, o)));
        }
        x.extend(rows(stream.suffix));
        kinds.extend((0..stream.suffix.len() / hidden).map(Kind::Suffix));
        // The row's own position, and the first frame it sees.
        let place = |kind: Kind| match kind {
            Kind::Prefix(j) => (j, 0),
            Kind::Frame(f, o) => (p + f * t + o, since(f)),
            Kind::Suffix(r) => (p + (newest + 1) * t + r, since(newest)),
        };
        // The position at which a row sees a key, where it sees it.
        let seen = |row: Kind, key: Kind| {
            let (position, since) = place(row);
            match (row, key) {
                (Kind::Prefix(i), Kind::Prefix(j)) => (j <= i).then_some(j),
                (Kind::Prefix(_), _) => None,
                (_, Kind::Prefix(j)) => Some(j + since * t),
                (_, Kind::Frame(f, _)) => (f >= since && place(key).0 <= position).then_some(place(key).0),
                (Kind::Suffix(_), Kind::Suffix(_)) => (place(key).0 <= position).then_some(place(key).0),
                (Kind::Frame(..), Kind::Suffix(_)) => None,
            }
        };
        for layer in 0..self.config.layers {
            x = self.block(layer, &x, &|i, j| seen(kinds[i], kinds[j]), &|i| place(kinds[i]).0);
        }
        let count = stream.suffix.len() / hidden;
        x[x.len() - count..].iter().map(|x| self.norm(x, "norm.weight")).collect()
    }

    fn block(
        &self,
        layer: usize,
        x: &[Vec<f64>],
        seen: &dyn Fn(usize, usize) -> Option<usize>,
        position: &dyn Fn(usize) -> usize,
    ) -> Vec<Vec<f64>> {
        let at = |part: &str| format!("layers.{layer}.{part}");
        let (heads, kv_heads, dim) = (self.config.heads, self.config.kv_heads, self.config.head_dim);
        let normed: Vec<_> = x.iter().map(|x| self.norm(x, &at("input_layernorm.weight"))).collect();
        let project = |part: &str| normed.iter().map(|x| self.linear(x, &at(part), true)).collect::<Vec<_>>();
        let (q, k, v) =
            (project("self_attn.q_proj"), project("self_attn.k_proj"), project("self_attn.v_proj"));
        let head = |x: &[f64], h: usize| x[h * dim..(h + 1) * dim].to_vec();
        (0..x.len())
            .map(|i| {
                let mut mixed = Vec::new();
                for h in 0..heads {
                    let query = self.rotate(&head(&q[i], h), position(i));
                    let shared = h / (heads / kv_heads);
                    let scored: Vec<(f64, usize)> = (0..x.len())
                        .filter_map(|j| {
                            let key = self.rotate(&head(&k[j], shared), seen(i, j)?);
                            let dot: f64 = query.iter().zip(&key).map(|(a, b)| a * b).sum();
                            Some((dot / (dim as f64).sqrt(), j))
                        })
                        .collect();
                    let most = scored.iter().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scored.iter().map(|s| (s.0 - most).exp()).sum();
                    let mut out = vec![0.0; dim];
                    for (score, j) in scored {
                        let weight = (score - most).exp() / total;
                        out.iter_mut().zip(head(&v[j], shared)).for_each(|(o, v)| *o += weight * v);
                    }
                    mixed.extend(out);
                }
                let attended: Vec<f64> = x[i]
                    .iter()
                    .zip(self.linear(&mixed, &at("self_attn.o_proj"), false))
                    .map(|(a, b)| a + b)
                    .collect();
                let h = self.norm(&attended, &at("post_attention_layernorm.weight"));
                let (gate, up) = (
                    self.linear(&h, &at("mlp.gate_proj"), false),
                    self.linear(&h, &at("mlp.up_proj"), false),
                );
                let h: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                attended
                    .iter()
                    .zip(self.linear(&h, &at("mlp.down_proj"), false))
                    .map(|(a, b)| a + b)
                    .collect()
            })
            .collect()
    }
}

//! Which samples a micro-batch holds.
//!
//! Comes in: lengths of samples, positive with media and negative for text alone, and a seed. Goes out: their order in each epoch, grouped as the reference's
//! trainer groups them (`group_by_modality_length`, reference.md §2.5): micro-batches of one kind and of similar length, those of one update
//! about as long together. Restarts and ranks draw the same order. No sample is read.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::sync::Mutex;

/// Draws a permutation of so many numbers.
pub type Permute<'a> = &'a mut dyn FnMut(usize) -> Vec<usize>;

/// Spreads indices, longest first, over `chunks` of equal size, each to the chunk that is shortest so far; where they do not divide, in turn.
fn even_chunks(indices: &[usize], lengths: &[i64], chunks: usize) -> Vec<usize> {
    if !indices.len().is_multiple_of(chunks) {
        return (0..chunks).flat_map(|chunk| indices.iter().skip(chunk).step_by(chunks).copied()).collect();
    }
    let size = indices.len() / chunks;
    // The sum of a full chunk counts as infinite.
    let mut filled: Vec<(Vec<usize>, i64)> = vec![(Vec::with_capacity(size), 0); chunks];
    for index in indices {
        let open = filled.iter_mut().filter(|(chunk, _)| chunk.len() < size);
        // The first of the shortest, as `min` gives.
        if let Some((chunk, sum)) = open.min_by_key(|(_, sum)| *sum) {
            chunk.push(*index);
            *sum += lengths[*index];
        }
    }
    filled.into_iter().flat_map(|(chunk, _)| chunk).collect()
}

/// One kind of sample: shuffled, cut into the samples of an update, each sorted by length and spread over its micro-batches.
pub fn group_by_length(lengths: &[i64], batch: usize, world: usize, permute: Permute<'_>) -> Vec<usize> {
    let shuffled = permute(lengths.len());
    let update = |samples: &[usize]| {
        let mut samples = samples.to_vec();
        samples.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
        even_chunks(&samples, lengths, world)
    };
    shuffled.chunks(batch * world).flat_map(update).collect()
}

/// Both kinds, each by itself, their whole updates shuffled together; what is left of both comes last, in the order of the data. `batch` samples make a
/// micro-batch, `world` micro-batches an update. `permute` is asked for the samples with media, then for those without, then for the updates.
pub fn group_by_modality_length(
    lengths: &[i64],
    batch: usize,
    world: usize,
    permute: Permute<'_>,
) -> Vec<usize> {
    let (media, text): (Vec<usize>, Vec<usize>) = (0..lengths.len()).partition(|index| lengths[*index] > 0);
    if media.is_empty() || text.is_empty() {
        return group_by_length(lengths, batch, world, permute);
    }
    let mut grouped = |indices: &[usize]| -> Vec<usize> {
        let own: Vec<i64> = indices.iter().map(|index| lengths[*index].abs()).collect();
        group_by_length(&own, batch, world, &mut *permute).into_iter().map(|place| indices[place]).collect()
    };
    let (media, text) = (grouped(&media), grouped(&text));
    let size = batch * world;
    // The last update of each kind may be whole; the reference merges it all the same.
    let split = |kind: &[usize]| (kind.len() - 1) / size * size;
    let ((media, last_media), (text, last_text)) =
        (media.split_at(split(&media)), text.split_at(split(&text)));
    let updates: Vec<&[usize]> = media.chunks(size).chain(text.chunks(size)).collect();
    let mut rest = [last_media, last_text].concat();
    rest.sort_unstable();
    let order = permute(updates.len());
    order.into_iter().flat_map(|update| updates[update].iter().copied()).chain(rest).collect()
}

/// The order of all epochs of a stage.
#[derive(Debug)]
pub struct Order {
    lengths: Vec<i64>,
    batch: usize,
    world: usize,
    grouped: bool,
    seed: [u8; 32],
    /// The epochs that were asked for last: two meet where workers stand at both sides of a border.
    drawn: Mutex<Vec<(usize, std::sync::Arc<Vec<usize>>)>>,
}

impl Order {
    /// For samples of these lengths; `batch` samples in a micro-batch, `world` micro-batches in an update. The recipe's seed and the stage's number decide.
    pub fn new(
        lengths: Vec<i64>,
        batch: usize,
        world: usize,
        grouped: bool,
        (seed, stage): (u64, usize),
    ) -> Self {
        let seed = Sha256::digest(format!("order/{seed}/{stage}").as_bytes()).into();
        Self { lengths, batch, world, grouped, seed, drawn: Mutex::default() }
    }

    /// Samples of an epoch: of whole updates, where there is one.
    pub fn epoch(&self) -> usize {
        let (all, update) = (self.lengths.len(), self.batch * self.world);
        if all >= update { all / update * update } else { all }
    }

    /// Updates of so many epochs, at least one.
    pub fn updates(samples: usize, update: usize, epochs: f64) -> usize {
        let each = (samples / update).max(1);
        ((each as f64 * epochs).ceil() as usize).max(1)
    }

    fn draw(&self, epoch: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(epoch as u64);
        let mut permute = |n: usize| {
            let mut order: Vec<usize> = (0..n).collect();
            order.shuffle(&mut rng);
            order
        };
        if self.grouped {
            group_by_modality_length(&self.lengths, self.batch, self.world, &mut permute)
        } else {
            permute(self.lengths.len())
        }
    }

    fn of(&self, epoch: usize) -> std::sync::Arc<Vec<usize>> {
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, order)) = drawn.iter().find(|(known, _)| *known == epoch) {
            return order.clone();
        }
        let order = std::sync::Arc::new(self.draw(epoch));
        drawn.insert(0, (epoch, order.clone()));
        drawn.truncate(2);
        order
    }

    /// The samples of micro-batch `index` of update `step` (both from 0).
    pub fn micro_batch(&self, step: usize, index: usize) -> Vec<usize> {
        let (first, epoch) = ((step * self.world + index) * self.batch, self.epoch());
        (first..first + self.batch).map(|place| self.of(place / epoch)[place % epoch]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_the_same_permutations_the_order_is_the_references() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/grouping.json");
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let get = |key: &str| case[key].clone();
            let lengths: Vec<i64> = serde_json::from_value(get("lengths")).unwrap();
            let want: Vec<usize> = serde_json::from_value(get("order")).unwrap();
            let mut drawn: Vec<Vec<usize>> = serde_json::from_value(get("permutations")).unwrap();
            drawn.reverse();
            let mut permute = |n: usize| {
                let next = drawn.pop().unwrap();
                assert_eq!(next.len(), n);
                next
            };
            let [batch, world] = ["batch", "world"].map(|key| case[key].as_u64().unwrap() as usize);
            assert_eq!(
                group_by_modality_length(&lengths, batch, world, &mut permute),
                want,
                "{batch} {world}"
            );
            assert!(drawn.is_empty());
        }
    }

    #[test]
    fn an_epoch_takes_each_sample_once_and_the_next_another_order() {
        let lengths: Vec<i64> = (1..=23).map(|n| if n % 3 == 0 { -n } else { n }).collect();
        for grouped in [true, false] {
            let order = Order::new(lengths.clone(), 2, 3, grouped, (7, 1));
            let epoch = |first: usize| -> Vec<usize> {
                let places = (first..first + 3).flat_map(|step| (0..3).map(move |i| (step, i)));
                places.flat_map(|(step, i)| order.micro_batch(step, i)).collect()
            };
            let (one, two) = (epoch(0), epoch(3));
            for samples in [&one, &two] {
                let mut sorted = samples.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), 18);
            }
            assert_ne!(one, two);
            // Asked in any order, and of another run.
            let again = Order::new(lengths.clone(), 2, 3, grouped, (7, 1));
            assert_eq!(again.micro_batch(5, 2), two[16..]);
            assert_eq!(again.micro_batch(0, 0), one[..2]);
            assert_ne!(Order::new(lengths.clone(), 2, 3, grouped, (8, 1)).draw(0), again.draw(0));
        }
    }

    #[test]
    fn few_samples_come_again_within_an_update() {
        let order = Order::new(vec![1, 2, 3], 2, 4, true, (0, 0));
        let samples: Vec<usize> = (0..4).flat_map(|i| order.micro_batch(0, i)).collect();
        let count = |n: usize| samples.iter().filter(|sample| **sample == n).count();
        assert!((0..3).all(|n| (2..=3).contains(&count(n))), "{samples:?}");
        assert_eq!(
            [Order::updates(3, 8, 1.0), Order::updates(17, 8, 1.0), Order::updates(17, 8, 2.5)],
            [1, 2, 5]
        );
    }
}

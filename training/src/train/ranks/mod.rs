//! Many processes train one model.
//!
//! Each rank runs its own micro-batches of an update, in the order of their numbers; gradients are added in that same order; each rank keeps the
//! optimizer's moments of its own variables only and updates those (ZeRO, stage 1: Rajbhandari et al., 2020); then all get all variables. So
//! the bits of the result do not depend on timing, nor on the number of ranks unless the recipe lets each add up its own. [`Transport`] is what that needs: [`Alone`] and, over TCP,
//! [`ring::Ring`] are there; another library's collectives would be a third. Who takes part is decided in `place`, how they meet in `join`.

pub mod join;
pub mod link;
pub mod place;
pub mod ring;

use anyhow::{Result, ensure};

/// What ranks say to each other. Every rank makes the same calls in the same order; each returns on all of them or fails on all of them, in bounded time.
pub trait Transport {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What every rank says, by rank; a few thousand bytes each.
    fn exchange(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Sums of `terms`, each of one flat vector per variable: rank 0's one after the other, then rank 1's, …. Returns the sums of the variables that
    /// this rank owns, in their order; `owners` has a rank for each variable.
    fn reduce(&mut self, terms: Vec<Vec<Vec<f32>>>, owners: &[usize]) -> Result<Vec<Vec<f32>>>;

    /// Makes `data` on all ranks what it is on rank `from`.
    fn broadcast(&mut self, from: usize, data: &mut [f32]) -> Result<()>;

    /// Tells the others that this rank fails, and why, so that they end too.
    fn abort(&mut self, reason: &str);
}

/// A run of one process.
pub struct Alone;

impl Transport for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![mine.to_vec()])
    }

    fn reduce(&mut self, terms: Vec<Vec<Vec<f32>>>, _: &[usize]) -> Result<Vec<Vec<f32>>> {
        let mut terms = terms.into_iter();
        let mut sums = terms.next().unwrap_or_default();
        for term in terms {
            sums.iter_mut().zip(&term).for_each(|(sum, term)| add(sum, term));
        }
        Ok(sums)
    }

    fn broadcast(&mut self, _: usize, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self, _: &str) {}
}

/// Adds `term` to `sum`, element by element.
pub(super) fn add(sum: &mut [f32], term: &[f32]) {
    sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
}

/// [`Transport::exchange`] of numbers.
pub fn exchange_numbers(ranks: &mut dyn Transport, mine: &[f64]) -> Result<Vec<Vec<f64>>> {
    let bytes: Vec<u8> = mine.iter().flat_map(|x| x.to_le_bytes()).collect();
    let number = |chunk: &[u8]| chunk.try_into().map_or(f64::NAN, f64::from_le_bytes);
    Ok(ranks.exchange(&bytes)?.iter().map(|bytes| bytes.chunks(8).map(number).collect()).collect())
}

/// Waits until every rank has come here.
pub fn barrier(ranks: &mut dyn Transport) -> Result<()> {
    ranks.exchange(&[]).map(drop)
}

/// Refuses to go on where a rank has another `digest` of `what` than rank 0.
pub fn agree(ranks: &mut dyn Transport, what: &str, digest: &[u8]) -> Result<()> {
    let all = ranks.exchange(digest)?;
    let others =
        all.iter().enumerate().filter(|(_, found)| **found != all[0]).map(|(rank, _)| rank.to_string());
    let others: Vec<String> = others.collect();
    ensure!(
        others.is_empty(),
        "rank {} and rank 0 differ in {what}: start all ranks with the same program and recipe, and on one run folder that all of them see",
        others.join(", ")
    );
    Ok(())
}

/// The owner of each variable of so many elements: neighbours stay together, and the ranks' loads are as even as whole variables allow.
pub fn owners(sizes: &[usize], ranks: usize) -> Vec<usize> {
    let total = sizes.iter().sum::<usize>().max(1) as u128;
    let mut before = 0u128;
    let owner = |size: &usize| {
        let middle = before + *size as u128 / 2;
        before += *size as u128;
        ((middle * ranks as u128 / total) as usize).min(ranks.saturating_sub(1))
    };
    sizes.iter().map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_even_and_in_order() {
        assert_eq!(owners(&[10, 10, 10, 10], 2), [0, 0, 1, 1]);
        assert_eq!(owners(&[1, 1, 1], 1), [0, 0, 0]);
        let sizes: Vec<usize> = (1..100).map(|i| i * 7 % 31 + 1).collect();
        let owners = owners(&sizes, 4);
        assert!(owners.is_sorted());
        for rank in 0..4 {
            let load: usize = sizes.iter().zip(&owners).filter(|(_, o)| **o == rank).map(|(n, _)| n).sum();
            let share = load as f64 / sizes.iter().sum::<usize>() as f64;
            assert!((0.2..0.3).contains(&share), "rank {rank} has {share}");
        }
    }
}

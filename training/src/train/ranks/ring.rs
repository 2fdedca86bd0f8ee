//! Collectives over a ring of TCP connections: each rank sends to the next one and hears from the one before.
//!
//! A sum travels from rank 0 to the last one, each adding its terms to what comes, chunk after chunk, so that all links work at once and the order of
//! additions is that of one process; it then goes on around to its owner. A chain costs each link up to twice the data where a reduce-scatter costs it
//! once; that is the price of bits that do not depend on the number of ranks. Meeting is in `join`, frames and losses in `link`.

use super::link::{Broken, CHUNK, Incoming, Outgoing};
use super::{Transport, add};
use anyhow::Result;

/// Rank `rank` of `size` ranks.
pub struct Ring {
    rank: usize,
    size: usize,
    next: Outgoing,
    previous: Incoming,
    heard: Option<String>,
}

impl Ring {
    /// A rank whose neighbours are connected.
    pub fn new(rank: usize, size: usize, next: Outgoing, previous: Incoming) -> Self {
        Self { rank, size, next, previous, heard: None }
    }

    /// Keeps the reason of an end, to pass it on. Where the next rank is lost, the one before may know why.
    fn note<T>(&mut self, result: Result<T, Broken>, sending: bool) -> Result<T> {
        result.map_err(|broken| {
            let known = match (&broken, sending) {
                (Broken::Lost(_), true) => self.previous.reason(),
                _ => None,
            };
            let text = known.unwrap_or(broken.to_string());
            self.heard.get_or_insert(text.clone());
            anyhow::anyhow!(text)
        })
    }

    fn send(&mut self, data: &[f32]) -> Result<()> {
        let sent = self.next.send_floats(data);
        self.note(sent, true)
    }

    fn receive(&mut self, count: usize) -> Result<Vec<f32>> {
        let received = self.previous.floats(count);
        self.note(received, false)
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.next.flush();
        self.note(flushed, true)
    }

    /// The sums of all variables on the last rank, nothing elsewhere.
    fn chain(&mut self, terms: &[Vec<Vec<f32>>]) -> Result<Vec<Vec<f32>>> {
        let mut sums = Vec::new();
        let (first, others) = match self.rank {
            0 => terms.split_at(1.min(terms.len())),
            _ => (&[][..], terms),
        };
        for variable in 0..terms.first().map_or(0, Vec::len) {
            let count = terms[0][variable].len();
            let mut whole = Vec::new();
            for start in (0..count).step_by(CHUNK) {
                let range = start..(start + CHUNK).min(count);
                let mut sum = match first {
                    [term] => term[variable][range.clone()].to_vec(),
                    _ => self.receive(range.len())?,
                };
                others.iter().for_each(|term| add(&mut sum, &term[variable][range.clone()]));
                match self.rank + 1 < self.size {
                    true => self.send(&sum)?,
                    false => whole.extend(sum),
                }
            }
            sums.push(whole);
        }
        self.flush()?;
        Ok(sums)
    }
}

impl Transport for Ring {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut all = vec![Vec::new(); self.size];
        let mut of = self.rank;
        all[of] = mine.to_vec();
        for _ in 1..self.size {
            let sent = self.next.send(&all[of]).and_then(|()| self.next.flush());
            self.note(sent, true)?;
            of = (of + self.size - 1) % self.size;
            let received = self.previous.receive();
            all[of] = self.note(received, false)?;
        }
        Ok(all)
    }

    fn reduce(&mut self, terms: Vec<Vec<Vec<f32>>>, owners: &[usize]) -> Result<Vec<Vec<f32>>> {
        let sizes: Vec<usize> = terms.first().map_or(Vec::new(), |term| term.iter().map(Vec::len).collect());
        let mut whole = self.chain(&terms)?;
        drop(terms);
        let last = self.size - 1;
        let mut own = Vec::new();
        for (variable, (&owner, &count)) in owners.iter().zip(&sizes).enumerate() {
            let mut sum =
                if self.rank == last { std::mem::take(&mut whole[variable]) } else { vec![0.0; count] };
            // From the last rank on, past rank 0, as far as the owner.
            if owner != last && (self.rank == last || self.rank <= owner) {
                self.pass(last, (owner + 1) % self.size, &mut sum)?;
            }
            if owner == self.rank {
                own.push(sum);
            }
        }
        self.flush()?;
        Ok(own)
    }

    fn broadcast(&mut self, from: usize, data: &mut [f32]) -> Result<()> {
        self.pass(from, from, data)?;
        self.flush()
    }

    fn abort(&mut self, reason: &str) {
        let reason = self.heard.clone().unwrap_or(format!("rank {} failed: {reason}", self.rank));
        // Who is gone need not be told.
        self.next.abort(&reason).ok();
    }
}

impl Ring {
    /// Hands `data` on from rank `from` around the ring, as far as the rank before `end`.
    fn pass(&mut self, from: usize, end: usize, data: &mut [f32]) -> Result<()> {
        let sends = (self.rank + 1) % self.size != end;
        for chunk in data.chunks_mut(CHUNK) {
            if self.rank != from {
                chunk.copy_from_slice(&self.receive(chunk.len())?);
            }
            if sends {
                self.send(chunk)?;
            }
        }
        Ok(())
    }
}

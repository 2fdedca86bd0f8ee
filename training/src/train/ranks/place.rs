//! Which rank this process is, from the variables that launchers set.
//!
//! Comes in: a look-up of environment variables. Goes out: [`Place`], or what is wrong with them. `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and
//! `MASTER_PORT` are torchrun's; under Slurm `SLURM_PROCID` and `SLURM_NTASKS` stand in for the first two, but only where `MASTER_ADDR`
//! says that ranks are to meet, since every batch job has them. `LOCAL_RANK` or `SLURM_LOCALID` picks the device. No sockets here.

use anyhow::{Context, Result, ensure};

/// Where rank 0 listens when nothing says so; torchrun's default.
const DEFAULT_PORT: u16 = 29500;

/// A process among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Host of rank 0.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// From 0, among the processes of this machine.
    pub local: usize,
}

impl Place {
    /// The place that the environment gives; one process alone has none.
    pub fn resolve(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let host = variable("MASTER_ADDR");
        let (mut names, mut found) = (["RANK", "WORLD_SIZE"], [variable("RANK"), variable("WORLD_SIZE")]);
        if host.is_some() && found.iter().all(Option::is_none) {
            names = ["SLURM_PROCID", "SLURM_NTASKS"];
            found = names.map(&variable);
        }
        if found.iter().all(Option::is_none) {
            return Ok(None);
        }
        let number = |i: usize| -> Result<usize> {
            let text = found[i]
                .as_deref()
                .with_context(|| format!("{} is set and {} is not", names[1 - i], names[i]))?;
            text.trim().parse().with_context(|| format!("{}={text:?} is not a number", names[i]))
        };
        let (rank, size) = (number(0)?, number(1)?);
        ensure!(rank < size, "{}={rank} must be below {}={size}", names[0], names[1]);
        if size == 1 {
            return Ok(None);
        }
        let host = host.context("MASTER_ADDR is not set: it must name the machine of rank 0")?;
        let port = match variable("MASTER_PORT") {
            Some(text) => {
                text.trim().parse().with_context(|| format!("MASTER_PORT={text:?} is not a port"))?
            }
            None => DEFAULT_PORT,
        };
        // Under torchrun itself its own store listens on MASTER_PORT; the ranks meet one port further.
        let store = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let port = if store { u16::wrapping_add(port, 1).max(1024) } else { port };
        let local = ["LOCAL_RANK", "SLURM_LOCALID"].into_iter().find_map(&variable);
        let local = match local {
            Some(text) => {
                text.trim().parse().with_context(|| format!("LOCAL_RANK={text:?} is not a number"))?
            }
            None => 0,
        };
        Ok(Some(Self { rank, size, host, port, local }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Place::resolve(get)
    }

    #[test]
    fn launchers_are_understood_and_batch_jobs_left_alone() {
        let place = |rank, size, port| Some(Place { rank, size, host: "node0".into(), port, local: 0 });
        let master = [("MASTER_ADDR", "node0"), ("MASTER_PORT", "4000")];
        let with = |more: &[(&'static str, &'static str)]| of(&[&master[..], more].concat()).unwrap();
        assert_eq!(with(&[("RANK", "1"), ("WORLD_SIZE", "4")]), place(1, 4, 4000));
        assert_eq!(with(&[("SLURM_PROCID", "2"), ("SLURM_NTASKS", "3")]), place(2, 3, 4000));
        let torchrun = [("RANK", "1"), ("WORLD_SIZE", "4"), ("TORCHELASTIC_USE_AGENT_STORE", "True")];
        assert_eq!(with(&torchrun), place(1, 4, 4001));
        assert_eq!(with(&[("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")]).unwrap().local, 1);
        assert_eq!(with(&[("RANK", "0"), ("WORLD_SIZE", "1")]), None);
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap(), None);
        assert_eq!(of(&[]).unwrap(), None);
    }

    #[test]
    fn half_a_place_is_refused() {
        for (variables, words) in [
            (vec![("RANK", "0")], "WORLD_SIZE is not"),
            (vec![("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")], "below"),
            (vec![("RANK", "x"), ("WORLD_SIZE", "2")], "number"),
            (vec![("RANK", "0"), ("WORLD_SIZE", "2")], "MASTER_ADDR"),
        ] {
            let error = format!("{:#}", of(&variables).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}

//! The header of a bench: what must be known of a machine to compare its rows with those of another one.
//!
//! Comes in: the board's profile and the facts that the machine says about itself. Goes out: the [`Header`] of every output. What it does not
//! say is `unknown`. Nobody needs to be root; nothing is changed or judged.

use serde::Serialize;

use crate::board::{Board, Machine};

const UNKNOWN: &str = "unknown";

/// What makes rows comparable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Header {
    /// The board's profile.
    pub board: String,
    /// What the device tree calls it.
    pub model: String,
    /// Release of Jetson Linux, such as 36.4.3.
    pub l4t: String,
    /// Name and number of nvpmodel's mode.
    pub power_mode: String,
    /// `locked` where the clocks of processor and GPU may not change, as after `jetson_clocks`; `free` where one may.
    pub clocks: String,
    /// What the system starts into: `graphical.target` has a desktop, which takes memory and time.
    pub target: String,
    /// The kernel's release.
    pub kernel: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// MiB of memory.
    pub memory_mib: Option<u64>,
    /// This program's version.
    pub version: String,
    /// The commit it was built from, where the build was told (`UTR_COMMIT`).
    pub commit: String,
    /// SHA-256 of the program's file.
    pub program: String,
}

impl Header {
    /// Puts the facts into words; `program` is left open.
    pub fn of(board: &Board, facts: &Machine) -> Self {
        let or = |found: Option<String>| found.unwrap_or_else(|| UNKNOWN.into());
        let power_mode =
            facts.power_mode.map(|id| match facts.power_modes.iter().find(|mode| mode.id == id) {
                Some(mode) => format!("{} ({id})", mode.name),
                None => id.to_string(),
            });
        let clocks: Vec<Option<bool>> =
            [&facts.cpu, &facts.gpu].into_iter().flatten().map(|c| c.locked()).collect();
        let clocks = match clocks.as_slice() {
            [] => None,
            all if all.contains(&Some(false)) => Some("free".into()),
            all => all.iter().all(|locked| *locked == Some(true)).then(|| "locked".into()),
        };
        Self {
            board: board.name.clone(),
            model: or(facts.identity.model.clone()),
            l4t: or(facts.l4t.map(|version| version.to_string())),
            power_mode: or(power_mode),
            clocks: or(clocks),
            target: or(facts.target.clone()),
            kernel: or(facts.kernel.clone()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: facts.ram.map(|ram| ram.total >> 20),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("UTR_COMMIT").unwrap_or(UNKNOWN).into(),
            program: UNKNOWN.into(),
        }
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = self.program.get(..12).unwrap_or(UNKNOWN);
        let memory = self.memory_mib.map_or(UNKNOWN.into(), |mib| format!("{mib} MiB"));
        let Self { board, model, l4t, power_mode, clocks, target, kernel, cores, version, commit, .. } = self;
        write!(
            f,
            "utr {version}, commit {commit}, program {program}; board {board} ({model}), {cores} cores, {memory}; "
        )?;
        write!(
            f,
            "L4T {l4t}, kernel {kernel}; power mode {power_mode}, clocks {clocks}, started into {target}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Clock, PowerMode, Version};

    #[test]
    fn a_board_says_what_makes_its_rows_comparable() {
        let clock = |min, max| Some(Clock { min: Some(min), max: Some(max), ..Clock::default() });
        let mut facts = Machine {
            l4t: Some(Version(36, 4, 3)),
            power_mode: Some(2),
            power_modes: vec![PowerMode { id: 2, name: "MAXN_SUPER".into() }],
            cpu: clock(1728, 1728),
            gpu: clock(306, 1020),
            target: Some("multi-user.target".into()),
            ..Machine::default()
        };
        let board = Board::named("jetson-orin-nano").unwrap();
        let header = Header::of(&board, &facts);
        let found = [&header.board, &header.l4t, &header.power_mode, &header.clocks, &header.kernel];
        assert_eq!(found, ["jetson-orin-nano", "36.4.3", "MAXN_SUPER (2)", "free", UNKNOWN]);
        facts.gpu = clock(1020, 1020);
        facts.power_mode = Some(7);
        let header = Header::of(&board, &facts);
        assert!(
            header.to_string().contains("L4T 36.4.3, kernel unknown; power mode 7, clocks locked"),
            "{header}"
        );
        facts.gpu = clock(1020, 1020).map(|clock| Clock { min: None, ..clock });
        assert_eq!(Header::of(&board, &facts).clocks, UNKNOWN);
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown() {
        let header = Header::of(&Board::named("generic").unwrap(), &Machine::default());
        let found = [&header.model, &header.l4t, &header.power_mode, &header.clocks, &header.target];
        assert!(found.iter().all(|found| *found == UNKNOWN), "{header:?}");
    }
}

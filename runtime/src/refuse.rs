//! What does not fit into memory is refused, with the numbers and with what would fit.
//!
//! Comes in: what decides how much memory a model needs, what computes, how the window is wished for, and what is
//! left. Goes out: the [`Need`], or [`Error::Memory`], which names only what really fits: other flags, a smaller
//! model, larger boards. It is arithmetic: nothing is measured, loaded or freed here.

use clap::ValueEnum;
use utr_models::manifest::WindowMode;

use crate::board::Board;
use crate::budget::{Available, Choice, Need, Sizes, Wish, mode_name, size};
use crate::decode::KvPrecision;
use crate::encode::Engines;
use crate::error::{Error, Result};
use crate::estimate::largest_model;

/// Refuses a model that does not fit into what is left. `available` is none where the machine does not say;
/// then it may try.
///
/// # Errors
/// [`Error::Memory`] with the parts of the need, and what would fit.
pub fn admit(sizes: &Sizes, engines: Engines, wish: Wish, available: Option<Available>) -> Result<Need> {
    let choice = sizes.choice(wish);
    let need = sizes.need(choice, engines);
    let Some(available) = available.filter(|available| need.total() > available.free) else {
        return Ok(need);
    };
    Err(Error::Memory {
        name: sizes.name().into(),
        needs: format!("{} ({need})", size(need.total())),
        left: available.to_string(),
        remedy: remedy(sizes, engines, choice, available),
    })
}

/// Refuses a window whose keys and values, `bytes` beside the loaded model, do not fit into what is left.
///
/// # Errors
/// [`Error::Memory`] with what would need less.
pub fn check_window(name: &str, bytes: u64, available: Option<Available>) -> Result<()> {
    match available {
        Some(available) if bytes > available.free => Err(Error::Memory {
            name: format!("the window of {name}"),
            needs: format!("{} (keys and values)", size(bytes)),
            left: available.to_string(),
            remedy: "less in another --window-mode, with fewer --frames or a smaller --kv".into(),
        }),
        _ => Ok(()),
    }
}

fn remedy(sizes: &Sizes, engines: Engines, choice: Choice, available: Available) -> String {
    let list = |all: Vec<(String, u64)>| -> String {
        all.iter().map(|(flags, bytes)| format!("{flags} ({})", size(*bytes))).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    let fitting = alternatives(sizes, engines, choice, available.free);
    if fitting.is_empty() {
        parts.push("no --frames, --kv or --window-mode makes it fit".to_string());
        // With the default engines, which take nothing.
        let bare = sizes.need(choice, Engines::default()).total();
        if bare <= available.free {
            parts.push(format!("without --encoder and --device it would ({})", size(bare)));
        }
        if let Some((model, bytes)) = largest_model(available.free, sizes.second_of_q4(), engines) {
            parts.push(format!("a bundle of {model} in 4 bits would (about {})", size(bytes)));
        }
        let fits = |board: &Board| {
            let total = sizes.on(board).need(choice, engines).total();
            Available::of_board(board).is_some_and(|there| total <= there.free)
        };
        let boards = Board::all().unwrap_or_default();
        let boards: Vec<&str> =
            boards.iter().filter(|board| fits(board)).map(|board| board.name.as_str()).collect();
        if !boards.is_empty() {
            parts.push(format!("boards it fits on: {}", boards.join(", ")));
        }
    } else {
        parts.push(format!("it fits with {}", list(fitting)));
    }
    if sizes.need(choice, engines).total() <= available.total {
        parts.push(
            "or stop other programs, the desktop first (sudo systemctl set-default multi-user.target)".into(),
        );
        parts.push("a reboot gives fragmented memory back".into());
    }
    parts.join("; ")
}

/// Changes of a choice that fit into `free` bytes, as typed, with what they then need: one alone where that is
/// enough, else several together.
fn alternatives(sizes: &Sizes, engines: Engines, choice: Choice, free: u64) -> Vec<(String, u64)> {
    let total = |choice: &Choice| sizes.need(*choice, engines).total();
    let fewer = |choice: Choice| {
        let mut choices = (1..choice.frames).rev().map(|frames| Choice { frames, ..choice });
        choices.find(|choice| total(choice) <= free)
    };
    let fitting = |choices: Vec<Choice>| -> Vec<(String, u64)> {
        let less = |other: &Choice| total(other) < total(&choice) && total(other) <= free;
        choices.into_iter().filter(less).map(|other| (typed(choice, other), total(&other))).collect()
    };
    let mut alone: Vec<Choice> = fewer(choice).into_iter().collect();
    alone.extend([KvPrecision::F16, KvPrecision::Q8].map(|kv| Choice { kv, ..choice }));
    alone.extend([WindowMode::Rolling, WindowMode::Exact].map(|mode| Choice { mode, ..choice }));
    let found = fitting(alone);
    if !found.is_empty() {
        return found;
    }
    let least = Choice { mode: WindowMode::Exact, kv: KvPrecision::Q8, ..choice };
    let all = fitting(vec![least]);
    if all.is_empty() { fitting(fewer(least).into_iter().collect()) } else { all }
}

/// The flags that make one choice of another.
fn typed(from: Choice, to: Choice) -> String {
    let kv = to.kv.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
    let flags = [
        (from.frames != to.frames).then(|| format!("--frames {}", to.frames)),
        (from.kv != to.kv).then(|| format!("--kv {kv}")),
        (from.mode != to.mode).then(|| format!("--window-mode {}", mode_name(to.mode))),
    ];
    flags.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use utr_models::DeviceChoice;
    use utr_models::gguf::Format;
    use utr_models::manifest::Memory;

    use super::*;
    use crate::budget::Second;
    use crate::shape::{Bits, Model, Shape, Tower};

    const MIB: u64 = 1 << 20;
    const GPU: Engines = Engines { encoder: None, device: DeviceChoice::Cuda(None) };

    /// In 4 bits, without a second copy of the matrices, whatever machine tests.
    fn seven() -> Sizes {
        let model = Model { decoder: Shape::Qwen2Seven, tower: Some(Tower::SiglipSo400m) };
        model.sizes(Bits::Q4, model.frame_tokens().unwrap(), false).with_second(Second::None)
    }

    fn board(name: &str) -> Board {
        Board::named(name).unwrap()
    }

    fn on(name: &str) -> Option<Available> {
        Available::of_board(&board(name))
    }

    #[test]
    fn seven_billion_are_refused_on_eight_gigabytes_with_the_numbers_and_what_would_fit() {
        let sizes = seven().with_matrices(4 << 30, Format::Q4_0).on(&board("jetson-orin-nano"));
        let wish = Wish { kv: KvPrecision::F32, ..Wish::default() };
        let refused = |sizes: &Sizes, name: &str| {
            admit(sizes, Engines::default(), wish, on(name)).err().map(|error| error.to_string())
        };
        let message = refused(&sizes, "jetson-orin-nano").unwrap();
        for part in [
            "GiB (weights",
            "once more for the processor's products 4.0 GiB",
            "keys and values",
            "program 64 MiB)",
            "6.6 GiB are left of 7.4 GiB",
            "no --frames, --kv or --window-mode makes it fit",
            "a bundle of qwen2-1.5b+siglip-b16 in 4 bits would",
            "boards it fits on: jetson-orin-nx, jetson-agx-orin-32, jetson-agx-orin, jetson-thor",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        // A reboot does not help a board that is too small, nor do other engines.
        assert!(!message.contains("reboot") && !message.contains("without --encoder"), "{message}");
        let there = |name: &str| refused(&sizes.on(&board(name)), name);
        assert!(there("jetson-orin-nx").is_none() && there("jetson-xavier-nx").is_some());
        assert!(admit(&sizes, Engines::default(), Wish::default(), None).is_ok());
    }

    #[test]
    fn what_engines_take_is_part_of_the_need() {
        let sizes = seven();
        let need = sizes.need(sizes.choice(Wish::exact()), Engines::default());
        let available = Some(Available { total: 1 << 40, free: need.total() + (1 << 30) });
        assert_eq!(admit(&sizes, Engines::default(), Wish::exact(), available).unwrap().engines, 0);
        let message = admit(&sizes, GPU, Wish::exact(), available).unwrap_err().to_string();
        let bare = format!("without --encoder and --device it would ({})", size(need.total()));
        for part in ["program 64 MiB, engines 2.0 GiB)", &bare] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn what_a_refusal_names_really_fits_and_what_it_leaves_out_does_not() {
        let sizes = seven();
        let live = Choice { frames: 32, mode: WindowMode::Ahead, kv: KvPrecision::F32 };
        let need = |choice| sizes.need(choice, GPU).total();
        let alternatives = |free| alternatives(&sizes, GPU, live, free);
        let exact = Choice { mode: WindowMode::Exact, ..live };
        let free = need(exact);
        let found = alternatives(free);
        let flags: Vec<&str> = found.iter().map(|(flags, _)| flags.as_str()).collect();
        assert!(flags.contains(&"--window-mode exact") && flags.contains(&"--kv q8"), "{flags:?}");
        assert!(found.iter().all(|(_, bytes)| *bytes <= free), "{found:?}");
        let frames: usize =
            flags.iter().find_map(|flag| flag.strip_prefix("--frames ")).unwrap().parse().unwrap();
        assert!(
            need(Choice { frames, ..live }) <= free && need(Choice { frames: frames + 1, ..live }) > free
        );
        // Where no single change is enough, several together are named.
        let least = need(Choice { kv: KvPrecision::Q8, mode: WindowMode::Exact, frames: 32 });
        let found = alternatives(least);
        assert!(found.iter().all(|(_, bytes)| *bytes <= least) && !found.is_empty(), "{found:?}");
        assert_eq!(alternatives(1000 * MIB), []);
        // The board could hold it, other programs are in the way.
        let available = Available { total: 1 << 40, free: 1000 * MIB };
        let message = admit(&sizes, GPU, Wish::exact(), Some(available)).unwrap_err().to_string();
        assert!(message.contains("multi-user.target") && message.contains("reboot"), "{message}");
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let memory = Memory { weights: u64::MAX, window: u64::MAX, kv: 1, scratch: 1 };
        let sizes = Sizes::of_decoder("absurd", &Shape::Tiny.config(), memory, usize::MAX);
        let refused = admit(&sizes, GPU, Wish::default(), on("jetson-thor")).unwrap_err();
        assert!(refused.to_string().contains("absurd"), "{refused}");
    }

    #[test]
    fn a_window_that_does_not_fit_is_refused() {
        let free = |free| Some(Available { total: 1000 * MIB, free });
        let message = check_window("m", 300 * MIB, free(299 * MIB)).unwrap_err().to_string();
        assert!(message.contains("300 MiB") && message.contains("--kv"), "{message}");
        assert!(check_window("m", 300 * MIB, free(300 * MIB)).is_ok());
    }
}

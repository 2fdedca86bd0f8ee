//! Queries: tracks in, conversations out. The fourth stage of the pipeline (design.md §2).
//!
//! Comes in: clips' tracks ([`tracks`]). Goes out: UTR queries that ask for a whole trajectory from one attribute at one frame
//! ([`conversation`], in the words of [`wording`]), made into the dialogues of a data set ([`dialogue`], kept even by [`balance`], with questions for what is
//! [`absent`]); captions and plain instructions to mix with ([`caption`]); all in the trajectory text of reference.md §7 ([`trajectory`]) and as LLaVA
//! conversation files ([`llava`]), which [`mix`] joins and a [`card`] describes.
//! No pixels are looked at and nothing is tokenized here.

pub mod absent;
pub mod balance;
pub mod caption;
pub mod card;
pub mod command;
pub mod conversation;
pub mod dialogue;
pub mod llava;
pub mod mix;
pub mod scene;
pub mod tracks;
pub mod trajectory;
pub mod wording;

#[cfg(test)]
mod tests;

pub use conversation::{Attribute, Listing, QueryFrame, UtrTurn, utr_turn, utr_turns};
pub use tracks::{ClipTracks, Track, TrackAction, TrackBox};
pub use trajectory::Trajectory;
pub use wording::Wording;

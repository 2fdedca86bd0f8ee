//! Queries: tracks in, conversations out. The fourth stage of the pipeline (design.md §2).
//!
//! Comes in: one clip's tracks ([`tracks`]). Goes out: UTR conversations that ask for a whole trajectory from one
//! attribute at one frame ([`conversation`]), captions and plain instructions to mix with ([`caption`]), in the
//! trajectory text of reference.md §7 ([`trajectory`]), and LLaVA conversation files ([`llava`]).
//! No pixels are looked at and nothing is tokenized here.

pub mod caption;
pub mod conversation;
pub mod llava;
pub mod scene;
pub mod tracks;
pub mod trajectory;

#[cfg(test)]
mod tests;

pub use conversation::{Attribute, Listing, QueryFrame, UtrTurn, utr_turn, utr_turns};
pub use tracks::{ClipTracks, Track, TrackAction, TrackBox};
pub use trajectory::Trajectory;

//! Inspect: pages that let a person see at a glance whether a UTR data set is right.
//!
//! Comes in: conversations, tracks and clips. Goes out: `index.html` and one page per clip: the sampled frames with boxes and ids, the tracks over
//! time, the conversations with the queried frame marked, and a warning wherever the boxes or frames of an answer are not those of the tracks (its words are not judged). The pages need
//! nothing but the files beside them. In the order of the work: [`shape`] and
//! [`audit`] judge, [`strip`], [`timeline`] and [`talk`] draw, [`page`] and [`index`]
//! put together, [`command`] reads and writes. No data is changed here.

pub mod audit;
pub mod command;
pub mod html;
pub mod index;
pub mod page;
pub mod shape;
pub mod strip;
pub mod talk;
pub mod timeline;

#[cfg(test)]
mod tests;

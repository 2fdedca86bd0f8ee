//! Training: samples in, checkpoints out.
//!
//! Comes in: a [`recipe::Recipe`] and its sources of samples. Goes out: a checkpoint folder (Hugging Face layout, optimizer state, loss log).
//! The two stages of the paper are stages of a recipe: `align` moves the projector only, `tune` everything. `driver.rs` is the loop; it calls
//! `encode` (sample → token ids and patches), the network of `utr-models`, `optimizer` and `checkpoint` in this order.

pub mod checkpoint;
pub mod curves;
pub mod driver;
pub mod encode;
pub mod optimizer;
pub mod recipe;
pub mod start;

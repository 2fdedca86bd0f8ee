//! Training: samples in, checkpoints out.
//!
//! Comes in: a [`recipe::Recipe`] and its sources of samples. Goes out: a checkpoint folder (Hugging Face layout, optimizer state, loss log).
//! The two stages of the paper are stages of a recipe: `align` moves the projector only, `tune` everything. `driver.rs` is the loop; it calls
//! `gradient` (with `encode`, sample → token ids and patches, or `data`, which reads them from disk, and the network of `utr-models`), `ranks`, `optimizer`, `guard`, `report` and
//! `checkpoint` in this order.

pub mod assemble;
pub mod checkpoint;
pub mod curves;
pub mod data;
pub mod driver;
pub mod encode;
pub mod events;
pub mod features;
pub mod flops;
pub mod folder;
pub mod gradient;
pub mod guard;
pub mod lora;
pub mod memory;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod ranks;
pub mod recipe;
pub mod report;
pub mod stage;
pub mod start;

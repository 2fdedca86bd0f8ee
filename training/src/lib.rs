//! Video to UTR data to a trained, measured, quantized bundle: the library behind `utr-train`.
//!
//! The modules in the order of the data: world, experts → tracks → queries → train → tpl, eval, probe → export. `data` calls the stages up to the queries, `run` those
//! from training on; `inspect` shows what the queries say beside what the clips show.

pub mod figures;
pub mod files;
pub mod parts;
pub mod sample;
pub mod stats;

pub mod world;

pub mod experts;

pub mod tracks;

pub mod queries;

pub mod inspect;

pub mod train;
pub mod validate;

pub mod tpl;

pub mod eval;

pub mod probe;

pub mod ablate;

pub mod data;

pub mod export;

pub mod run;

//! What crosses crates, one module per topic, in one binary.
//!
//! `golden` compares the network with numbers made by transformers, `command_line` runs the built programs, `house`
//! holds the repository to its own rules. Comparisons that need Python are not here: `make test-peers` runs them.

mod golden;
mod house;

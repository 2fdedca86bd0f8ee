//! What crosses crates, one module per topic, in one binary.
//!
//! `golden` and `anyres` compare the network with numbers made by transformers, `house` holds the repository to its own rules, `deploy` runs
//! `cross/deploy.sh` against stand-ins, `client` asks a running `utr serve`. The other programs are run by the tests of their crates; comparisons
//! that need Python are in `make test-peers`.

mod anyres;
mod client;
mod deploy;
mod golden;
mod house;

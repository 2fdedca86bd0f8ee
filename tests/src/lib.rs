//! Nothing to import: the tests that cross crates are under `all/`, the golden data under `golden/`, the peers under `peers/`.

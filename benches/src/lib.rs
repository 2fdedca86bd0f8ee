//! Benchmarks live in their own targets; this library is empty.

//! Ask a camera about its last 32 frames: the library behind `utr`.

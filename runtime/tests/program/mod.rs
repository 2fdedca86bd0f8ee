//! The program under test.

/// UTR_PROGRAM where that is set (such as one for another machine, run under emulation), else the one that was built with these tests: cargo names it
/// to the runtime's own; those of other packages lie beside it.
pub fn utr() -> String {
    let beside = || {
        let tests = std::env::current_exe().unwrap();
        let built = tests.ancestors().nth(2).unwrap().join("utr");
        assert!(built.exists(), "{} is missing; run: cargo test --release --workspace", built.display());
        built.to_str().unwrap().to_string()
    };
    std::env::var("UTR_PROGRAM")
        .unwrap_or_else(|_| option_env!("CARGO_BIN_EXE_utr").map_or_else(beside, String::from))
}

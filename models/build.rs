//! Compiles the kernels of `cuda/` to PTX, with the feature `cuda` only; without it this does nothing.
//!
//! Comes in: `cuda/kernels.cu` and what it includes; the compiler that NVCC names, else `nvcc`. Goes out: `kernels.ptx` in cargo's folder for
//! outputs, for compute capability 8.0: drivers translate it for that and every later GPU. `make cuda` fetches a compiler.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-env-changed=NVCC");
    println!("cargo:rerun-if-env-changed=UTR_PTX_VERSION");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let folder = std::env::var_os("OUT_DIR").ok_or("cargo named no folder for outputs (OUT_DIR)")?;
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let status = Command::new(&nvcc)
        .args([
            "--ptx",
            "-gencode=arch=compute_80,code=compute_80",
            "-O3",
            "-std=c++17",
            "cuda/kernels.cu",
            "-o",
        ])
        .arg(PathBuf::from(folder).join("kernels.ptx"))
        .status()
        .map_err(|e| {
            format!(
                "{nvcc}: {e}. The feature `cuda` needs CUDA's compiler: `make cuda` fetches one, or set NVCC"
            )
        })?;
    if status.success() { Ok(()) } else { Err(format!("{nvcc} could not compile cuda/kernels.cu: {status}")) }
}

//! Where a network runs: the CPU or a CUDA device.
//!
//! Comes in: what was typed (`auto`, `cpu`, `cuda`, `cuda:N`). Goes out: candle's device, or an error that says what is missing and what to do. The
//! driver is looked for while the program runs: a program with the feature `cuda` starts without one. `auto` says what it took.

use crate::error::{Error, Result};
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// A device as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// This process's CUDA device where there is one, else the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device by its number; without one, the process's own.
    Cuda(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no device: write auto, cpu, cuda or cuda:N");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(|n| Self::Cuda(Some(n)))
                .ok_or_else(wrong),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(n)) => write!(f, "cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device; `local` is the process's number among those of its machine, which take a device each. The text says what was taken where the choice
    /// was not the user's.
    pub fn open(self, local: usize) -> Result<(Device, Option<String>)> {
        // A launcher may show each process its own device alone, as the first; where there is a second one, it did not.
        let own = || {
            let alone = |reason: &str| {
                reason.starts_with("no CUDA device ") && (local == 1 || local > 1 && cuda(1).is_err())
            };
            cuda(local).or_else(|reason| if alone(&reason) { cuda(0) } else { Err(reason) })
        };
        let said = |device: &Device| Some(format!("device: {:?}", device.location()));
        match self {
            Self::Cpu => Ok((Device::Cpu, None)),
            Self::Cuda(Some(n)) => cuda(n).map(|device| (device, None)).map_err(Error::Argument),
            Self::Cuda(None) => own().map(|d| (d.clone(), said(&d))).map_err(Error::Argument),
            Self::Auto => Ok(match own() {
                Ok(device) => (device.clone(), said(&device)),
                Err(reason) => (Device::Cpu, Some(format!("device: cpu ({reason})"))),
            }),
        }
    }
}

/// Opens a CUDA device, or says in words why not.
#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, String> {
    // One stream, whichever thread works: candle's `new_cuda` takes one for each thread, and nothing would order what two threads queue.
    let device =
        Device::new_cuda_with_stream(number).map_err(|error| explained(number, &error.to_string()))?;
    if let Device::Cuda(cuda) = &device {
        // SAFETY: all work for the device is queued on that stream, so that there is nothing for events to order.
        unsafe { cuda.disable_event_tracking() };
    }
    // Programs for boards have no kernels that need the CUDA runtime (models/cuda/link/nvcc).
    candle_core::quantized::cuda::set_force_dmmv(cfg!(target_arch = "aarch64"));
    Ok(device)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err("this program was built without CUDA: `make cuda` builds a utr-train with it, `make cuda-utr` a utr, `CUDA=1 make cross` one for boards; \
         --device cpu goes without"
        .into())
}

/// What the driver's error means.
#[cfg(any(test, feature = "cuda"))]
fn explained(number: usize, error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    let has = |part: &str| error.contains(part);
    if has("STUB_LIBRARY") {
        return "no CUDA driver: libcuda.so.1 was not found. Install NVIDIA's driver (`nvidia-smi` must list the GPU), or name \
                the library's folder in UTR_CUDA_LIBRARIES; --device cpu goes without"
            .into();
    }
    if has("NO_DEVICE") {
        return format!(
            "no CUDA device: the driver finds no GPU ({first}). `nvidia-smi` must list it; look at CUDA_VISIBLE_DEVICES, in a \
             container at --gpus; --device cpu goes without"
        );
    }
    if has("INVALID_DEVICE") {
        return format!(
            "no CUDA device {number} ({first}): `nvidia-smi --list-gpus` lists those there are, from 0"
        );
    }
    if has("CUBLAS") || has("CURAND") {
        return format!(
            "the driver is there, but CUDA's libraries do not work ({first}): libcublas.so.13 (or .12) and libcurand.so.10 must be \
             where the loader looks, or in a folder that UTR_CUDA_LIBRARIES names"
        );
    }
    format!("CUDA device {number} cannot be opened: {first}")
}

/// A test found no GPU: where one was promised (UTR_NEEDS_GPU, as `make gpu` sets it) that is a failure.
#[cfg(test)]
pub(crate) fn skipped(reason: &Error) {
    assert!(std::env::var_os("UTR_NEEDS_GPU").is_none(), "no CUDA device: {reason}");
    eprintln!("skipped: no CUDA device ({reason})");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spelled_four_ways() {
        for (text, want) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(None)),
            ("cuda:3", DeviceChoice::Cuda(Some(3))),
        ] {
            assert_eq!(text.parse(), Ok(want));
            assert_eq!(want.to_string().parse(), Ok(want));
        }
        for bad in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
            assert!(bad.parse::<DeviceChoice>().unwrap_err().contains("cuda:N"), "{bad}");
        }
    }

    #[test]
    fn a_missing_driver_is_told_from_a_missing_device() {
        let driver = explained(0, "Cuda(DriverError(CUDA_ERROR_STUB_LIBRARY, \"...\"))");
        assert!(driver.starts_with("no CUDA driver") && driver.contains("--device cpu"), "{driver}");
        let device = explained(0, "DriverError(CUDA_ERROR_NO_DEVICE)\nbacktrace");
        assert!(device.starts_with("no CUDA device") && !device.contains("backtrace"), "{device}");
        assert!(explained(7, "CUDA_ERROR_INVALID_DEVICE").contains("device 7"));
        assert!(explained(0, "CUBLAS_STATUS_NOT_INITIALIZED").contains("libcublas"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_without_cuda_says_so() {
        assert!(DeviceChoice::Cuda(None).open(1).unwrap_err().to_string().contains("make cuda"));
        let (device, said) = DeviceChoice::Auto.open(0).unwrap();
        assert!(device.is_cpu() && said.unwrap().contains("device: cpu"));
    }
}

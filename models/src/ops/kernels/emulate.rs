//! The kernels on the CPU, for tests: `cuda/kernels.cu` compiled for the host by the system's C++ compiler.
//!
//! Comes in: a [`Launch`] on CPU tensors. Goes out: its outputs. All memory that a kernel gets lies between guards: what it writes beyond an
//! array is found there, what it reads beyond one is not a number; outputs begin as not-a-numbers. Threads run in an order that
//! a seed decides (see `cuda/host/emulate.h`). What this cannot show is speed, and that the driver takes the launch.

use super::launch::{Launch, Scalar};
use candle_core::{CpuStorage, DType, Result, Storage, bail};
use half::bf16;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether this thread's CPU tensors count as being on a device.
pub fn active() -> bool {
    SEED.get().is_some()
}

/// Runs `f` with CPU tensors taken for tensors on a device, threads in the order of `seed`.
pub fn with<R>(seed: u64, f: impl FnOnce() -> R) -> R {
    let before = SEED.replace(Some(seed));
    let result = f();
    SEED.set(before);
    result
}

type Emulate = unsafe extern "C" fn(*const c_char, u32, u32, u32, *mut *mut c_void, u64) -> c_int;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// The compiled kernels; `None` where the machine has no C++ compiler.
fn library() -> Option<Emulate> {
    static LIBRARY: OnceLock<Option<Emulate>> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            eprintln!("skipped: no C++ compiler ({compiler}); the CUDA kernels are not checked");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/kernels.cu");
        let words = "-O2 -std=c++17 -Wall -Werror -Wno-unknown-pragmas -shared -fPIC -x c++";
        let output = Command::new(&compiler)
            .args(words.split(' '))
            .arg(&source)
            .arg("-o")
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        let path = CString::new(file.to_str().unwrap()).unwrap();
        // SAFETY: a library of our own; the symbol has the type that `emulate.h` gives it.
        unsafe {
            let handle = dlopen(path.as_ptr(), 2);
            assert!(!handle.is_null(), "{:?}", std::ffi::CStr::from_ptr(dlerror()));
            let symbol = dlsym(handle, c"utr_emulate".as_ptr());
            assert!(!symbol.is_null(), "no utr_emulate in the compiled kernels");
            Some(std::mem::transmute::<*mut c_void, Emulate>(symbol))
        }
    })
}

/// Whether kernels can run here.
pub fn available() -> bool {
    library().is_some()
}

/// An array between guards.
struct Guarded {
    words: Vec<u64>,
    bytes: usize,
}

/// Words of a guard.
const GUARD: usize = 16;

impl Guarded {
    /// All ones: not-a-numbers, or numbers larger than any size.
    fn new(bytes: usize) -> Self {
        Self { words: vec![u64::MAX; bytes.div_ceil(8) + 2 * GUARD], bytes }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: plain numbers, seen as bytes.
        let all =
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.words.len() * 8) };
        &all[GUARD * 8..GUARD * 8 + self.bytes]
    }

    fn address(&mut self) -> u64 {
        self.words[GUARD..].as_mut_ptr() as u64
    }

    fn fill(&mut self, from: impl Iterator<Item = u8>) {
        let start = GUARD * 8;
        // SAFETY: as above; nothing else looks at the words meanwhile.
        let all = unsafe {
            std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), self.words.len() * 8)
        };
        all[start..start + self.bytes].iter_mut().zip(from).for_each(|(to, from)| *to = from);
    }

    fn intact(&self) -> bool {
        // SAFETY: as above.
        let all =
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.words.len() * 8) };
        let (before, rest) = all.split_at(GUARD * 8);
        before.iter().chain(&rest[self.bytes..]).all(|byte| *byte == 255)
    }
}

/// Runs a kernel on arrays that it may change; gives none back where it wrote outside them.
fn call(launch: &Launch<'_>, arrays: &mut [Vec<u8>]) -> Result<()> {
    let Some(emulate) = library() else { bail!("no C++ compiler") };
    let name = CString::new(launch.name()?).unwrap();
    let mut guarded: Vec<Guarded> = arrays
        .iter()
        .map(|array| {
            let mut guarded = Guarded::new(array.len());
            guarded.fill(array.iter().copied());
            guarded
        })
        .collect();
    let mut numbers: Vec<u64> = guarded.iter_mut().map(Guarded::address).collect();
    numbers.extend(launch.scalars.iter().map(|scalar| match scalar {
        Scalar::Int(value) => u64::from(*value as u32),
        Scalar::Size(value) => *value,
        Scalar::Float(value) => u64::from(value.to_bits()),
    }));
    let mut arguments: Vec<*mut c_void> = numbers.iter_mut().map(|n| (n as *mut u64).cast()).collect();
    let [x, y] = launch.grid.map(|blocks| blocks as u32);
    let seed = SEED.get().unwrap_or(0);
    // SAFETY: the kernel gets as many arguments as it has parameters, which the comparison with the twins would show otherwise.
    let status = unsafe { emulate(name.as_ptr(), x, y, launch.threads, arguments.as_mut_ptr(), seed) };
    assert_eq!(status, 0, "no kernel {name:?}");
    for (i, (array, guarded)) in arrays.iter_mut().zip(&guarded).enumerate() {
        assert!(guarded.intact(), "{name:?} wrote outside its array {i}");
        array.copy_from_slice(guarded.bytes());
    }
    Ok(())
}

/// The bytes of a dense tensor.
fn bytes(storage: &Storage, layout: &candle_core::Layout) -> Result<Vec<u8>> {
    let Some((from, to)) = layout.contiguous_offsets() else { bail!("kernels need dense tensors") };
    Ok(match storage {
        Storage::Cpu(CpuStorage::F32(x)) => x[from..to].iter().flat_map(|x| x.to_le_bytes()).collect(),
        Storage::Cpu(CpuStorage::BF16(x)) => x[from..to].iter().flat_map(|x| x.to_le_bytes()).collect(),
        Storage::Cpu(CpuStorage::U32(x)) => x[from..to].iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => bail!("kernels take f32, bf16 and u32 tensors only"),
    })
}

/// Runs a kernel on CPU tensors; inputs must come back as they were.
pub fn run(launch: &Launch<'_>) -> Result<Vec<Storage>> {
    let mut arrays = Vec::new();
    for x in launch.inputs {
        let (storage, layout) = x.storage_and_layout();
        arrays.push(bytes(&storage, layout)?);
    }
    let before = arrays.clone();
    arrays.extend(launch.outputs.iter().map(|(count, dtype)| vec![255; count * dtype.size_in_bytes()]));
    call(launch, &mut arrays)?;
    let outputs = arrays.split_off(before.len());
    assert_eq!(arrays, before, "{} changed its inputs", launch.kernel);
    let storage = |(bytes, (_, dtype)): (Vec<u8>, &(usize, DType))| {
        Storage::Cpu(match dtype {
            DType::BF16 => {
                CpuStorage::BF16(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect())
            }
            _ => {
                let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                CpuStorage::F32(bytes.chunks_exact(4).map(number).collect())
            }
        })
    };
    Ok(outputs.into_iter().zip(launch.outputs).map(storage).collect())
}

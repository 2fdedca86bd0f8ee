//! Starting a kernel: dense tensors in, fresh memory out.
//!
//! Comes in: a kernel's name, its grid, its operands and sizes, in the order of its parameters (inputs, outputs, sizes). Goes out: the outputs.
//! On a GPU nothing waits: the work is queued on candle's stream of the device. What the sizes mean is the caller's; that inputs are
//! dense and of the type that the name says is checked here.

use candle_core::{DType, Result, Storage, Tensor, bail};

/// A size or a factor.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// `int`.
    Int(i32),
    /// `size_t`.
    Size(u64),
    /// `float`.
    Float(f32),
}

impl Scalar {
    /// A size that the kernels keep as an `int`.
    pub fn int(value: usize) -> Result<Self> {
        match i32::try_from(value) {
            Ok(value) => Ok(Self::Int(value)),
            Err(_) => bail!("a size of {value} is more than the kernels count to"),
        }
    }
}

/// One start of a kernel.
pub struct Launch<'a> {
    /// Without the element type that its name ends with.
    pub kernel: &'a str,
    /// The type in its name: that of its operands.
    pub dtype: DType,
    /// The head width that it is made for, where there are several.
    pub width: Option<usize>,
    /// Blocks.
    pub grid: [usize; 2],
    /// Threads of a block.
    pub threads: u32,
    /// Dense tensors on one device.
    pub inputs: &'a [&'a Tensor],
    /// Elements and type of each output.
    pub outputs: &'a [(usize, DType)],
    /// What follows.
    pub scalars: &'a [Scalar],
}

/// Blocks of 256 threads for so many elements; each thread takes several where there are very many.
pub fn spread(elements: usize) -> [usize; 2] {
    [elements.div_ceil(256).clamp(1, 1 << 16), 1]
}

impl Launch<'_> {
    /// The whole name.
    pub fn name(&self) -> Result<String> {
        let dtype = match self.dtype {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            other => bail!("there are no kernels for {other:?}"),
        };
        Ok(match self.width {
            Some(width) => format!("{}_{dtype}_{width}", self.kernel),
            None => format!("{}_{dtype}", self.kernel),
        })
    }

    /// Starts the kernel; gives its outputs.
    pub fn run(&self) -> Result<Vec<Storage>> {
        let Some(first) = self.inputs.first() else { bail!("{}: no operand", self.kernel) };
        match first.device() {
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(device) => device::run(self, device),
            #[cfg(test)]
            candle_core::Device::Cpu => super::emulate::run(self),
            other => bail!("{}: no kernel for {:?}", self.kernel, other.location()),
        }
    }
}

#[cfg(feature = "cuda")]
mod device {
    //! On a CUDA device.

    use super::{Launch, Scalar};
    use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
    use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
    use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Storage, bail};

    /// What nvcc made of `cuda/kernels.cu`.
    const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

    /// Where the first element of a dense tensor lies.
    ///
    /// The address stays good while the storage is borrowed; memory that is given back is reused only by work that is queued later.
    fn address(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
        let Some((from, _)) = layout.contiguous_offsets() else {
            bail!("a kernel needs dense tensors, got {:?} with strides {:?}", layout.shape(), layout.stride())
        };
        let stream = storage.device.cuda_stream();
        Ok(match &storage.slice {
            CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0 + 4 * from as u64,
            CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0 + 2 * from as u64,
            CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0 + 4 * from as u64,
            _ => bail!("a kernel takes f32, bf16 and u32 tensors only"),
        })
    }

    /// Memory that a kernel will fill.
    fn fresh(device: &CudaDevice, count: usize, dtype: DType) -> Result<CudaStorage> {
        // SAFETY: the kernel writes every element before anything reads it; tests hold all kernels to that.
        unsafe {
            Ok(match dtype {
                DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device.clone()),
                DType::BF16 => {
                    CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, device.clone())
                }
                other => bail!("a kernel gives f32 and bf16 only, not {other:?}"),
            })
        }
    }

    /// Queues a kernel with these addresses and sizes.
    fn queue(launch: &Launch<'_>, device: &CudaDevice, addresses: &[u64]) -> Result<()> {
        let function = device.get_or_load_custom_func(&launch.name()?, "utr", PTX)?;
        let mut builder = function.builder();
        addresses.iter().for_each(|address| {
            builder.arg(address);
        });
        for scalar in launch.scalars {
            match scalar {
                Scalar::Int(value) => builder.arg(value),
                Scalar::Size(value) => builder.arg(value),
                Scalar::Float(value) => builder.arg(value),
            };
        }
        let [x, y] = launch.grid.map(|blocks| blocks as u32);
        let config =
            LaunchConfig { grid_dim: (x, y, 1), block_dim: (launch.threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: inputs and outputs have the sizes that the kernel is told, which the tests check at the bounds of each array.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }

    pub fn run(launch: &Launch<'_>, device: &CudaDevice) -> Result<Vec<Storage>> {
        let inputs: Vec<_> = launch.inputs.iter().map(|x| x.storage_and_layout()).collect();
        let mut addresses = Vec::new();
        for (storage, layout) in &inputs {
            match &**storage {
                Storage::Cuda(storage) => addresses.push(address(storage, layout)?),
                _ => bail!("{}: an operand is not on the device", launch.kernel),
            }
        }
        let mut outputs = Vec::new();
        for (count, dtype) in launch.outputs {
            let storage = fresh(device, *count, *dtype)?;
            addresses.push(address(&storage, &Layout::contiguous(*count))?);
            outputs.push(storage);
        }
        queue(launch, device, &addresses)?;
        Ok(outputs.into_iter().map(Storage::Cuda).collect())
    }
}

// All kernels in one file: what nvcc compiles to PTX, and what the tests compile for the host.
#include "attention.cu"
#include "elements.cu"
#include "loss.cu"
#include "norm.cu"

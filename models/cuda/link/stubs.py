#!/usr/bin/env python3
"""Static libraries that stand for CUDA's at link time and open the real ones at the first call.

candle links libcuda and friends, so that its programs do not start where no driver is installed. A program linked with these archives does:
each function jumps through a slot that first leads to open.c, which finds the real function or, where its library is missing, one that
returns an error. The names come from the cudarc crate, which is the only one to call them.

usage: stubs.py CUDARC_FOLDER OUTPUT_FOLDER [x86_64|aarch64 [FFI]], with CC and AR for another machine than this one

FFI is candle-kernels' ffi.rs, where what it names is not compiled either: libcudart.a then holds those functions in place of the CUDA runtime's.
"""
import os
import pathlib
import platform
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Module of cudarc, name to link, what its functions return where the library or the function is missing (an error status), and
# the files to try.
LIBRARIES = [
    ("driver", "cuda", 34, ["libcuda.so.1"]),
    ("nvrtc", "nvrtc", 11, ["libnvrtc.so.13", "libnvrtc.so.12"]),
    ("curand", "curand", 101, ["libcurand.so.10"]),
    ("cublaslt", "cublasLt", 1, ["libcublasLt.so.13", "libcublasLt.so.12"]),
    ("cublas", "cublas", 1, ["libcublas.so.13", "libcublas.so.12"]),
]
# Each function jumps through its slot. The slot first leads to code that names the library and the function's number and goes on to
# `utr_cuda_first_call`, where the registers that may hold arguments are kept while open.c looks for the function.
X86_64 = {
    "function": """
    jmpq *slots+{at}(%rip)
first{i}:
    leaq library(%rip), %r10
    movl ${i}, %r11d
    jmp utr_cuda_first_call""",
    "jump": "jmp",
    "first_call": """
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    subq $128, %rsp
""" + "".join(f"    movups %xmm{i}, {16 * i}(%rsp)\n" for i in range(8)) + """
    movq %r10, %rdi
    movl %r11d, %esi
    call utr_cuda_find
    movq %rax, %r11
""" + "".join(f"    movups {16 * i}(%rsp), %xmm{i}\n" for i in range(8)) + """
    addq $128, %rsp
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    jmpq *%r11
""",
}
# Not x16 and x17: the linker may use them between a jump and where it leads.
AARCH64 = {
    "function": """
    adrp x9, slots+{at}
    ldr x9, [x9, :lo12:slots+{at}]
    br x9
first{i}:
    adrp x9, library
    add x9, x9, :lo12:library
    mov w10, #{i}
    b utr_cuda_first_call""",
    "jump": "b",
    "first_call": """
    stp x29, x30, [sp, #-224]!
    mov x29, sp
""" + "".join(f"    stp x{i}, x{i + 1}, [sp, #{16 + 8 * i}]\n" for i in (0, 2, 4, 6)) + """
    str x8, [sp, #80]
""" + "".join(f"    stp q{i}, q{i + 1}, [sp, #{96 + 16 * i}]\n" for i in (0, 2, 4, 6)) + """
    mov x0, x9
    mov w1, w10
    bl utr_cuda_find
    mov x9, x0
""" + "".join(f"    ldp q{i}, q{i + 1}, [sp, #{96 + 16 * i}]\n" for i in (0, 2, 4, 6)) + """
    ldr x8, [sp, #80]
""" + "".join(f"    ldp x{i}, x{i + 1}, [sp, #{16 + 8 * i}]\n" for i in (0, 2, 4, 6)) + """
    ldp x29, x30, [sp], #224
    br x9
""",
}
MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}


def functions(cudarc: pathlib.Path, module: str) -> list[str]:
    text = (cudarc / "src" / module / "sys" / "mod.rs").read_text()
    found = sorted(set(re.findall(r"^\s*pub unsafe fn ((?:cu|nv)\w+)\s*\(", text, re.MULTILINE)) - {"culib"})
    if not found:
        sys.exit(f"stubs.py: no functions in module {module} of {cudarc}: another version of cudarc than 0.19?")
    return found


def assembly(machine: dict, link: str, status: int, files: list[str], names: list[str]) -> str:
    """One library: its functions, their slots, their names."""
    lines = ["    .text"]
    for i, name in enumerate(names):
        jump = machine["function"].format(i=i, at=8 * i)
        lines += [f"    .globl {name}", f"    .type {name}, %function", f"{name}:{jump}"]
    lines += ["    .data", "    .balign 8", "slots:"] + [f"    .quad first{i}" for i in range(len(names))]
    lines += ["names:"] + [f"    .quad name{i}" for i in range(len(names))]
    lines += ["files:"] + [f"    .quad file{i}" for i in range(len(files))] + ["    .quad 0"]
    # struct library of open.c
    lines += ["library:", "    .quad names, slots, files, 0", f"    .long {status}, 0"]
    lines += ['    .section .rodata'] + [f'name{i}: .asciz "{name}"' for i, name in enumerate(names)]
    lines += [f'file{i}: .asciz "{file}"' for i, file in enumerate(files)]
    if link == "cuda":
        lines += ["    .text", "    .globl utr_cuda_first_call", "    .hidden utr_cuda_first_call", "utr_cuda_first_call:"]
        lines.append(machine["first_call"])
    return "\n".join(lines + ['    .section .note.GNU-stack, "", %progbits', ""])


def left_out(machine: dict, ffi: pathlib.Path) -> str:
    """Functions of candle's that launch kernels and are not compiled here: whoever calls one is told so, and the program ends."""
    names = re.findall(r"^\s*pub fn (\w+)\(", ffi.read_text(), re.MULTILINE)
    if not names:
        sys.exit(f"stubs.py: no functions in {ffi}: another version of candle-kernels than 0.11?")
    lines = ["    .text"]
    for name in names:
        lines += [f"    .globl {name}", f"    .type {name}, %function", f"{name}:", f"    {machine['jump']} utr_cuda_left_out"]
    return "\n".join(lines + ['    .section .note.GNU-stack, "", %progbits', ""])


def main() -> None:
    cudarc, output = map(pathlib.Path, sys.argv[1:3])
    name = sys.argv[3] if len(sys.argv) > 3 else platform.machine()
    ffi = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else None
    if name not in MACHINES:
        sys.exit(f"stubs.py: written for {' and '.join(MACHINES)}, not for {name}: install CUDA's toolkit and set CUDA_HOME instead")
    output.mkdir(parents=True, exist_ok=True)
    compiler, archiver = os.environ.get("CC", "cc"), os.environ.get("AR", "ar")
    run = lambda *words: subprocess.run([str(w) for w in words], check=True)

    def archive(link: str, text: str, *more: str) -> None:
        source, objects = output / f"{link}.s", [output / f"{link}.o", *(output / f"{file}.o" for file in more)]
        source.write_text(text)
        run(compiler, "-c", source, "-o", objects[0])
        for file, made in zip(more, objects[1:]):
            run(compiler, "-c", "-O2", "-Wall", "-fPIC", HERE / file, "-o", made)
        (output / f"lib{link}.a").unlink(missing_ok=True)
        run(archiver, "rcs", output / f"lib{link}.a", *objects)
        for file in [source, *objects]:
            file.unlink()

    for module, link, status, files in LIBRARIES:
        text = assembly(MACHINES[name], link, status, files, functions(cudarc, module))
        archive(link, text, *(["open.c"] if link == "cuda" else []))
    if ffi:
        archive("cudart", left_out(MACHINES[name], ffi), "left_out.c")


if __name__ == "__main__":
    main()

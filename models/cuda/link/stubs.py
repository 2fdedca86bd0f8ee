#!/usr/bin/env python3
"""Static libraries that stand for CUDA's at link time and open the real ones at the first call.

candle links libcuda and friends, so that its programs do not start where no driver is installed. A program linked with these archives does:
each function jumps through a slot that first leads to open.c, which finds the real function or, where its library is missing, one that
returns an error. The names come from the cudarc crate, which is the only one to call them.

usage: stubs.py CUDARC_FOLDER OUTPUT_FOLDER
"""
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
# The registers that may hold arguments are kept while open.c looks for the function.
FIRST_CALL = """
    .text
    .globl utr_cuda_first_call
    .hidden utr_cuda_first_call
utr_cuda_first_call:
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    subq $128, %rsp
{save}
    movq %r10, %rdi
    movl %r11d, %esi
    call utr_cuda_find
    movq %rax, %r11
{restore}
    addq $128, %rsp
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    jmpq *%r11
"""


def functions(cudarc: pathlib.Path, module: str) -> list[str]:
    text = (cudarc / "src" / module / "sys" / "mod.rs").read_text()
    found = sorted(set(re.findall(r"^\s*pub unsafe fn ((?:cu|nv)\w+)\s*\(", text, re.MULTILINE)) - {"culib"})
    if not found:
        sys.exit(f"stubs.py: no functions in module {module} of {cudarc}: another version of cudarc than 0.19?")
    return found


def assembly(link: str, status: int, files: list[str], names: list[str]) -> str:
    """One library: its functions, their slots, their names."""
    lines = ["    .text"]
    for i, name in enumerate(names):
        lines += [
            f"    .globl {name}", f"    .type {name}, @function",
            f"{name}:", f"    jmpq *slots+{8 * i}(%rip)", f"first{i}:", "    leaq library(%rip), %r10",
            f"    movl ${i}, %r11d", "    jmp utr_cuda_first_call",
        ]
    lines += ["    .data", "    .balign 8", "slots:"] + [f"    .quad first{i}" for i in range(len(names))]
    lines += ["names:"] + [f"    .quad name{i}" for i in range(len(names))]
    lines += ["files:"] + [f"    .quad file{i}" for i in range(len(files))] + ["    .quad 0"]
    # struct library of open.c
    lines += ["library:", "    .quad names, slots, files, 0", f"    .long {status}, 0"]
    lines += ['    .section .rodata'] + [f'name{i}: .asciz "{name}"' for i, name in enumerate(names)]
    lines += [f'file{i}: .asciz "{file}"' for i, file in enumerate(files)]
    if link == "cuda":
        save = "\n".join(f"    movups %xmm{i}, {16 * i}(%rsp)" for i in range(8))
        restore = "\n".join(f"    movups {16 * i}(%rsp), %xmm{i}" for i in range(8))
        lines.append(FIRST_CALL.format(save=save, restore=restore))
    return "\n".join(lines + ['    .section .note.GNU-stack, "", @progbits', ""])


def main() -> None:
    cudarc, output = map(pathlib.Path, sys.argv[1:3])
    if platform.machine() != "x86_64":
        sys.exit(f"stubs.py: written for x86_64 only, this is {platform.machine()}: install CUDA's toolkit and set CUDA_HOME instead")
    output.mkdir(parents=True, exist_ok=True)
    run = lambda *words: subprocess.run([str(w) for w in words], check=True)
    for module, link, status, files in LIBRARIES:
        source, objects = output / f"{link}.s", [output / f"{link}.o"]
        source.write_text(assembly(link, status, files, functions(cudarc, module)))
        run("cc", "-c", source, "-o", objects[0])
        if link == "cuda":
            objects.append(output / "open.o")
            run("cc", "-c", "-O2", "-Wall", "-fPIC", HERE / "open.c", "-o", objects[1])
        archive = output / f"lib{link}.a"
        archive.unlink(missing_ok=True)
        run("ar", "rcs", archive, *objects)
        for file in [source, *objects]:
            file.unlink()


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# test_aarch64.sh PYTHON   builds the quantisation kernels for each instruction set of this machine and, with a cross
# compiler, for AArch64; runs all of them, that one under emulation; fails unless they give the same bits.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/kernel_programs.sh
kernel_flags "$1"
out=build/aarch64
for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  command -v "$tool" >/dev/null || {
    echo "$tool is not in PATH; run: sudo apt-get install g++-aarch64-linux-gnu qemu-user-static" >&2
    exit 1
  }
done

build_kernels "$out" portable g++ DEFAULT kernel_bits -static
build_kernels "$out" aarch64 aarch64-linux-gnu-g++ DEFAULT kernel_bits -static
"$out/portable-kernel_bits" >"$out/portable.txt"
qemu-aarch64-static "$out/aarch64-kernel_bits" >"$out/aarch64.txt"
names=(aarch64)
if grep -qw avx2 /proc/cpuinfo; then
  build_kernels "$out" avx2 g++ AVX2 kernel_bits -static -mavx2 -mfma -mf16c
  "$out/avx2-kernel_bits" >"$out/avx2.txt"
  names+=(avx2)
fi
for name in "${names[@]}"; do
  diff "$out/portable.txt" "$out/$name.txt" || {
    echo "the kernels built for $name give other bits than the portable ones" >&2
    exit 1
  }
done
echo "$(wc -l <"$out/portable.txt") results have the same bits: portable, ${names[*]}"

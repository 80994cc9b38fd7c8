#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# test_aarch64.sh PYTHON   builds the quantisation kernels for each instruction set of this machine and, with a cross
# compiler, for AArch64; runs all of them, that one under emulation; fails unless they give the same bits.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/aarch64
torch=$("$1" -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "include"))')
kernels=(csrc/quant/*_kernel.cpp)
flags=(-std=c++20 -O3 -ffp-contract=off -Wno-psabi -Icsrc -Icsrc/include -isystem "$torch")
mkdir -p "$out"
for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  command -v "$tool" >/dev/null || {
    echo "$tool is not in PATH; run: sudo apt-get install g++-aarch64-linux-gnu qemu-user-static" >&2
    exit 1
  }
done

# build NAME COMPILER CAPABILITY FLAG...
build() {
  local name=$1 compiler=$2 capability=$3 source objects=() pids=()
  shift 3
  for source in "${kernels[@]}"; do
    objects+=("$out/$name-$(basename "$source" .cpp).o")
    "$compiler" "${flags[@]}" "$@" "-DCPU_CAPABILITY=$capability" "-DCPU_CAPABILITY_$capability" -c "$source" \
      -o "${objects[-1]}" &
    pids+=($!)
    [ "${#pids[@]}" -lt 2 ] || { wait "${pids[0]}"; pids=("${pids[@]:1}"); }
  done
  wait "${pids[@]}"
  "$compiler" "${flags[@]}" "-DTORCHSLIM_KERNELS=$capability" -static tests/kernels/kernel_bits.cpp csrc/core/crc32.cpp \
    "${objects[@]}" -o "$out/$name"
}

build portable g++ DEFAULT
build aarch64 aarch64-linux-gnu-g++ DEFAULT
"$out/portable" >"$out/portable.txt"
qemu-aarch64-static "$out/aarch64" >"$out/aarch64.txt"
names=(aarch64)
if grep -qw avx2 /proc/cpuinfo; then
  build avx2 g++ AVX2 -mavx2 -mfma -mf16c
  "$out/avx2" >"$out/avx2.txt"
  names+=(avx2)
fi
for name in "${names[@]}"; do
  diff "$out/portable.txt" "$out/$name.txt" || {
    echo "the kernels built for $name give other bits than the portable ones" >&2
    exit 1
  }
done
echo "$(wc -l <"$out/portable.txt") results have the same bits: portable, ${names[*]}"

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# sanitize.sh PYTHON   builds the quantisation kernels for each instruction set of this machine under AddressSanitizer and
# UndefinedBehaviorSanitizer and runs them: on arrays that end where they must, and on the numbers of test_aarch64.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/kernel_programs.sh
kernel_flags "$1"
out=build/sanitize
sanitizers=(-O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all)
export ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1

# check NAME CAPABILITY FLAG...
check() {
  local name=$1 capability=$2
  shift 2
  build_kernels "$out" "$name" g++ "$capability" "kernel_bounds kernel_bits" "$@" "${sanitizers[@]}"
  "$out/$name-kernel_bits" >"$out/$name.txt"
  echo "$name: $("$out/$name-kernel_bounds")"
}

check portable DEFAULT
if grep -qw avx2 /proc/cpuinfo; then
  check avx2 AVX2 -mavx2 -mfma -mf16c
  diff "$out/portable.txt" "$out/avx2.txt"
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# fuzz.sh PYTHON run|search [SECONDS]   builds the readers of .ptl files under AddressSanitizer and UndefinedBehaviorSanitizer.
#   run     reads the corpus and 2,000 changed copies of each of its files
#   search  lets libFuzzer (clang) look for inputs that break them, for SECONDS (60)
set -euo pipefail
cd "$(dirname "$0")/.."
torch=$("$1" -c 'import torch, os; print(os.path.dirname(torch.__file__))')
out=build/fuzz
mkdir -p "$out"
sources=(tests/fuzz/ptl_fuzz.cpp csrc/deploy/{zip_file,pickle_file,ptl_program}.cpp csrc/core/crc32.cpp)
flags=(-std=c++20 -O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all -Icsrc -Icsrc/include
  -isystem "$torch/include" -L"$torch/lib" "-Wl,-rpath,$torch/lib" -lc10)
if [ "$2" = run ]; then
  g++ "${sources[@]}" -DTORCHSLIM_FUZZ_MAIN -fsanitize=address,undefined "${flags[@]}" -o "$out/run"
  (ulimit -s 8192 && "$out/run" 2000 tests/fuzz/corpus/*)
else
  clang++ "${sources[@]}" -fsanitize=fuzzer,address,undefined "${flags[@]}" -o "$out/search"
  mkdir -p "$out/found"
  "$out/search" -max_total_time="${3:-60}" -rss_limit_mb=512 -malloc_limit_mb=64 "$out/found" tests/fuzz/corpus
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# build.sh PYTHON BUILD_FOLDER JOBS TARGET... -- CMAKE_FLAG...   configures once, then builds the targets
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 build=$2 jobs=$3
shift 3
targets=()
while [ "$1" != -- ]; do
  targets+=("$1")
  shift
done
shift
bin=$(dirname "$python")
flags="$*"
if [ ! -f "$build/build.ninja" ] || ! grep -qxF -- "$flags" "$build/flags.txt" 2>/dev/null; then
  echo "[build] configuring $build"
  launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  prefix=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
  mkdir -p "$build"
  "$bin/cmake" -G Ninja -S . -B "$build" -DCMAKE_MAKE_PROGRAM="$(realpath "$bin/ninja")" \
    "-DCMAKE_PREFIX_PATH=$prefix;$PWD/build/debian/usr" -DPython3_EXECUTABLE="$(realpath -s "$python")" \
    "${launcher[@]}" "$@" >"$build/configure.log" 2>&1 || {
    cat "$build/configure.log"
    exit 1
  }
  printf '%s\n' "$flags" >"$build/flags.txt"
fi
"$bin/ninja" -C "$build" -j "$jobs" --quiet "${targets[@]}"

# SPDX-License-Identifier: BSD-3-Clause
# For sourcing from the repository's root: builds programs of the quantisation kernels alone, without LibTorch to link with.
kernels=(csrc/quant/*_kernel.cpp)

# kernel_flags PYTHON   sets `flags`
kernel_flags() {
  local torch
  torch=$("$1" -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "include"))')
  flags=(-std=c++20 -O3 -ffp-contract=off -Wno-psabi -Icsrc -Icsrc/include -isystem "$torch")
}

# build_kernels FOLDER NAME COMPILER CAPABILITY "PROGRAM..." FLAG...   compiles the kernels for one instruction set, and
# with them each tests/kernels/PROGRAM.cpp to FOLDER/NAME-PROGRAM
build_kernels() {
  local folder=$1 name=$2 compiler=$3 capability=$4 programs=$5 source program pid objects=() pids=()
  shift 5
  mkdir -p "$folder"
  for source in "${kernels[@]}"; do
    objects+=("$folder/$name-$(basename "$source" .cpp).o")
    "$compiler" "${flags[@]}" "$@" "-DCPU_CAPABILITY=$capability" "-DCPU_CAPABILITY_$capability" -c "$source" \
      -o "${objects[-1]}" &
    pids+=($!)
    [ "${#pids[@]}" -lt 2 ] || { wait "${pids[0]}"; pids=("${pids[@]:1}"); }
  done
  wait "${pids[0]}"
  pids=()
  for program in $programs; do
    "$compiler" "${flags[@]}" "$@" "-DTORCHSLIM_KERNELS=$capability" "tests/kernels/$program.cpp" csrc/core/crc32.cpp \
      "${objects[@]}" -o "$folder/$name-$program" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid"
  done
}

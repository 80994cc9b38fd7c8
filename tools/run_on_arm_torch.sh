#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# run_on_arm_torch.sh PYTHON SCRIPT ARGUMENT...   runs a Python script with torch 2.1.0 for AArch64, under emulation
# Debian's Python for arm64 and torch's wheel are unpacked to build/runtimes/arm64; PYTHON's pip downloads the wheel.
set -euo pipefail
tools=$(realpath "$(dirname "$0")")
version=2.1.0
folder=$tools/../build/runtimes/arm64
python=$1
shift
emulator=$(PATH="$PATH:$tools/../build/debian/usr/bin" command -v qemu-aarch64-static) || {
  echo "qemu-aarch64-static is missing; run: sudo apt-get install qemu-user-static" >&2
  exit 1
}
"$tools/debian_root.sh" arm64 "$folder/debian" python3 libstdc++6
packages=$folder/torch-$version
if [ ! -d "$packages" ]; then
  echo "[setup] unpacking torch $version for AArch64"
  rm -rf "$packages.part"
  release=$(readlink "$folder/debian/usr/bin/python3") # python3.11
  "$python" -m pip install --quiet --target "$packages.part" --no-compile --root-user-action ignore --no-warn-conflicts \
    --platform manylinux2014_aarch64 --implementation cp --python-version "${release#python}" \
    --only-binary=:all: "torch==$version"
  mv "$packages.part" "$packages"
fi
# One thread: the emulator shares cores badly. No warnings: this Python has no NumPy, and torch says so.
exec env -i HOME="$HOME" OMP_NUM_THREADS=1 PYTHONPATH="$packages" \
  "$emulator" -L "$folder/debian" "$folder/debian/usr/bin/python3" -W ignore "$@"

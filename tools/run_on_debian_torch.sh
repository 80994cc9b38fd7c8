#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# run_on_debian_torch.sh SCRIPT ARGUMENT...   runs a Python script with Debian's python3-torch (1.13.1 in Debian 12)
# It is unpacked to build/runtimes/debian with all that it needs, the C library included, and not installed.
set -euo pipefail
tools=$(realpath "$(dirname "$0")")
root=$tools/../build/runtimes/debian
"$tools/debian_root.sh" "$(dpkg --print-architecture || true)" "$root" python3-torch
root=$(realpath "$root")
loader=$(find "$root"/lib*/ -maxdepth 2 -name 'ld-linux-*.so.*' -print -quit)
system=$(echo "$root"/usr/lib/*-linux-gnu)
libraries=$root/lib/${system##*/}:$system:$system/blas:$system/lapack:$root/usr/lib
exec env -i HOME="$HOME" OMP_WAIT_POLICY=PASSIVE PYTHONHOME="$root/usr" \
  "$loader" --library-path "$libraries" "$root/usr/bin/python3" "$@"

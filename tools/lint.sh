#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# lint.sh VENV [--fix]   clang-format, ruff and mypy over everything git tracks
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1/bin
mapfile -t sources < <(git ls-files '*.h' '*.cpp' '*.hpp')
if [ "${2:-}" = --fix ]; then
  "$bin/clang-format" -i "${sources[@]}"
  "$bin/ruff" check --fix .
  "$bin/ruff" format .
  exit
fi
"$bin/clang-format" --dry-run --Werror "${sources[@]}"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Brings a machine to where torchslim builds, says what it does, and does nothing where nothing is missing.
#   setup.sh venv PYTHON VENV TORCH_INDEX   the virtual environment with torch and the build tools
#   setup.sh extras VENV EXTRA              what the extra EXTRA of pyproject.toml names
#   setup.sh debian PACKAGE FILE            Debian's PACKAGE, which brings FILE
#   setup.sh data FOLDER                    Fashion-MNIST as plain idx files
set -euo pipefail
cd "$(dirname "$0")/.."
torch_version=2.13.0
unpacked=build/debian # Debian packages land here when we are not root

say() { printf '[setup] %s\n' "$*"; }
fail() {
  printf '[setup] %s\n' "$*" >&2
  exit 1
}

# True where the build of torch that pip would take needs CUDA's packages.
plain_index_has_only_cuda() {
  "$1" -m pip install --quiet --dry-run --ignore-installed --no-deps --report - "torch==$torch_version" |
    "$1" -c 'import json, sys
requires = json.load(sys.stdin)["install"][0]["metadata"].get("requires_dist", [])
sys.exit(0 if any(r.startswith(("nvidia", "cuda")) for r in requires) else 1)'
}

setup_venv() {
  local python=$1 venv=$2 index=$3 stamp="$2/.torchslim-$torch_version"
  [ -f "$stamp" ] && return
  command -v g++ >/dev/null || fail "no C++ compiler found: apt-get install g++"
  if [ ! -x "$venv/bin/python" ]; then
    say "creating the virtual environment $venv"
    "$python" -m venv "$venv" || fail "$python cannot make a virtual environment: apt-get install python3-venv"
  fi
  say "installing torch $torch_version (CPU), numpy, cmake, ninja"
  local options=()
  if plain_index_has_only_cuda "$venv/bin/python"; then
    say "the plain index has no CPU build; using $index"
    options=(--index-url "$index")
  fi
  "$venv/bin/python" -m pip install --quiet "${options[@]}" "torch==$torch_version"
  "$venv/bin/python" -m pip install --quiet "numpy>=1.26" "setuptools>=77" wheel cmake ninja
  touch "$stamp"
}

setup_extras() {
  local venv=$1 extra=$2 stamp
  stamp="$venv/.torchslim-extra-$extra-$(sha1sum pyproject.toml | cut -c1-12)"
  [ -f "$stamp" ] && return
  say "installing the packages of the extra [$extra]"
  "$venv/bin/python" - "$extra" <<'PY' | xargs -d '\n' "$venv/bin/python" -m pip install --quiet
import sys, tomllib
with open("pyproject.toml", "rb") as f:
    print("\n".join(tomllib.load(f)["project"]["optional-dependencies"][sys.argv[1]]))
PY
  touch "$stamp"
}

setup_debian() {
  local package=$1 file=$2
  [ -e "$file" ] || [ -e "$unpacked$file" ] && return
  command -v apt-get >/dev/null || fail "$file is missing and this system has no apt-get: install $package by hand"
  say "installing Debian's $package"
  if [ "$(id -u)" = 0 ]; then
    apt-cache show "$package" >/dev/null 2>&1 || apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  else
    say "not root: unpacking it under $unpacked"
    mkdir -p "$unpacked"
    (cd "$unpacked" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb .) ||
      fail "could not download $package; run: sudo apt-get install $package"
  fi
  [ -e "$file" ] || [ -e "$unpacked$file" ] || fail "$package is installed, but $file is still missing"
}

setup_data() {
  local folder=$1 source=/usr/share/datasets/fashion-mnist name
  setup_debian dataset-fashion-mnist "$source/train-images-idx3-ubyte.gz"
  [ -d "$source" ] || source="$unpacked$source"
  say "unpacking Fashion-MNIST to $folder"
  mkdir -p "$folder"
  for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
    gzip -dc "$source/$name-ubyte.gz" >"$folder/$name-ubyte.part"
    mv "$folder/$name-ubyte.part" "$folder/$name-ubyte"
  done
}

command=$1
shift
"setup_$command" "$@"

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# debian_root.sh ARCHITECTURE FOLDER PACKAGE...   unpacks Debian packages and all that they need into FOLDER
# Nothing is installed and nobody needs to be root: apt works with folders of its own in FOLDER/apt and the sources of
# this machine. FOLDER/complete says that it was done.
set -euo pipefail
architecture=$1 folder=$(realpath -m "$2")
shift 2
[ -f "$folder/complete" ] && [ "$(cat "$folder/complete")" = "$*" ] && exit
command -v apt-get >/dev/null || {
  echo "debian_root.sh: this system has no apt-get; the packages $* are Debian's" >&2
  exit 1
}
echo "[setup] unpacking Debian's $* ($architecture)"
rm -rf "$folder"
apt=$folder/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status" # nothing is installed yet
options=(
  -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
  -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
  -o APT::Sandbox::User= -o Debug::NoLocking=1
  -o APT::Install-Recommends=0 -o Acquire::Languages=none
)
apt-get "${options[@]}" -qq update
apt-get "${options[@]}" -qq -y --download-only install "$@" >/dev/null
for package in "$apt"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$folder"
done
rm -rf "$apt"
echo "$*" >"$folder/complete"

# SPDX-License-Identifier: BSD-3-Clause
# make demo   the main job on 60,000 real images, 12 minutes; QUICK=1: the short form, under 2; MINUTES=N: at most N
# make demo-cpp  the same in C++, and how near its numbers are to Python's
# make results  quantisation on Fashion-MNIST, 3 seeds: the tables and pictures of docs/results
# make test   every test, C++ and Python
# make test-aarch64  the quantisation kernels for phones' processors, under emulation: the same bits
# make test-runtimes  the files of many networks in the lite interpreters of torch 2.13 and of Debian's torch 1.13.1, and a report
# make test-arm  the same files and report in that of torch 2.1.0 for AArch64, under emulation
# make sanitize  the quantisation kernels and the readers of files under AddressSanitizer and UndefinedBehaviorSanitizer
# make fuzz   looks for files that break the readers, with clang's libFuzzer; SECONDS=60
# make bench  speed against the peers, as ratios
# make zoo    prepare, train, convert networks of a public collection, and how far the integers are from eval;
#             FILES=1: the smaller ones, and how far their files are in each runtime
# make profile  where a training step on grids spends its time: docs/qat_step.md
# make pictures  the staircases in docs/api/quant/pictures, drawn from the ops
# make lint   clang-format, ruff, mypy
# make build  the library and the Python bindings, in place
# Each installs what it needs the first time and takes seconds to find that nothing is missing after that.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# Used only where the plain package index has no CPU build of torch.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
QUICK ?=
MINUTES ?=
FILES ?=
SECONDS ?= 60
JOBS ?= 2

PY := $(VENV)/bin/python
BUILD := build/cmake
DATA := build/data/fashion-mnist
TEST_FLAGS := -DTORCHSLIM_BUILD_TESTS=ON -DTORCHSLIM_BUILD_EXAMPLES=ON
CMAKE_FLAGS := -DTORCHSLIM_BUILD_PYTHON=ON -DTORCHSLIM_INPLACE=ON
export OMP_WAIT_POLICY := PASSIVE
# The wheel that a test builds is compiled from the same sources: what the cache holds serves both folders.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export PYTHONPATH := $(CURDIR)/python$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: demo demo-cpp results test test-aarch64 test-runtimes test-arm sanitize fuzz bench zoo profile pictures lint format build setup tests-build clean

setup:
	@tools/setup.sh venv "$(PYTHON)" "$(VENV)" "$(TORCH_INDEX)"

build: setup
	@tools/build.sh "$(PY)" "$(BUILD)" "$(JOBS)" torchslim torchslim_python -- $(CMAKE_FLAGS)

$(DATA)/t10k-labels-idx1-ubyte:
	@tools/setup.sh data "$(DATA)"

demo: build $(DATA)/t10k-labels-idx1-ubyte
	@tools/setup.sh extras "$(VENV)" examples
	@$(PY) examples/110_distill_fashion_mnist.py --data "$(DATA)" --out build/demo $(if $(QUICK),--quick) $(if $(MINUTES),--minutes $(MINUTES))

demo-cpp: setup $(DATA)/t10k-labels-idx1-ubyte
	@tools/build.sh "$(PY)" "$(BUILD)" "$(JOBS)" distill_fashion_mnist -- $(CMAKE_FLAGS) $(TEST_FLAGS)
	@$(BUILD)/examples/cpp/distill_fashion_mnist --data "$(DATA)" --out build/demo_cpp $(if $(QUICK),--quick)
	@$(PY) tools/compare_reports.py build/demo/report.json build/demo_cpp/report.json

results: build $(DATA)/t10k-labels-idx1-ubyte
	@tools/setup.sh extras "$(VENV)" examples
	@$(PY) examples/120_quantise_fashion_mnist.py --data "$(DATA)" --out build/quantise
	@$(PY) examples/130_quantise_after_training.py --data "$(DATA)" --out build/quantise
	@$(PY) docs/write_results.py --results build/quantise

tests-build: setup
	@tools/setup.sh debian ccache /usr/bin/ccache
	@tools/setup.sh debian catch2 /usr/include/catch2/catch.hpp
	@tools/build.sh "$(PY)" "$(BUILD)" "$(JOBS)" all -- $(CMAKE_FLAGS) $(TEST_FLAGS)

test: tests-build $(DATA)/t10k-labels-idx1-ubyte
	@tools/setup.sh extras "$(VENV)" test
	@tools/setup.sh extras "$(VENV)" examples
	@tools/setup.sh extras "$(VENV)" export
	@$(PY) tools/run_tests.py --build "$(BUILD)" --data "$(DATA)"

test-aarch64: setup
	@tools/setup.sh debian g++-aarch64-linux-gnu /usr/bin/aarch64-linux-gnu-g++
	@tools/setup.sh debian qemu-user-static /usr/bin/qemu-aarch64-static
	@tools/test_aarch64.sh "$(PY)"

LIBRARY := python/torchslim/lib/libtorchslim.so
$(LIBRARY): build ;
RUNTIME_FILES := build/runtimes/files/files.pt
$(RUNTIME_FILES): $(LIBRARY) tests/runtimes/networks.py tests/runtimes/make_files.py
	@tools/setup.sh extras "$(VENV)" test
	@$(PY) tests/runtimes/make_files.py "$(@D)"

test-runtimes: $(RUNTIME_FILES)
	@$(PY) tests/runtimes/run_files.py "$(<D)" current
	@tools/run_on_debian_torch.sh tests/runtimes/run_files.py "$(<D)" 1.13.1
	@$(PY) tests/runtimes/report_build.py "torch 1.13.1" tools/run_on_debian_torch.sh

test-arm: $(RUNTIME_FILES)
	@tools/setup.sh debian qemu-user-static /usr/bin/qemu-aarch64-static
	@tools/run_on_arm_torch.sh "$(PY)" tests/runtimes/run_files.py "$(<D)" 2.1.0
	@$(PY) tests/runtimes/report_build.py "torch 2.1.0, AArch64" tools/run_on_arm_torch.sh "$(PY)"

sanitize: setup
	@tools/sanitize.sh "$(PY)"
	@tools/fuzz.sh "$(PY)" run

fuzz: setup
	@tools/setup.sh debian clang /usr/bin/clang++
	@tools/setup.sh debian libclang-rt-dev "$$(clang++ -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$$(uname -m).a"
	@tools/fuzz.sh "$(PY)" search "$(SECONDS)"

bench: build
	@tools/setup.sh extras "$(VENV)" test
	@$(PY) tests/benchmarks/run.py --out build/bench.json

zoo: build
	@tools/setup.sh extras "$(VENV)" test
	@$(if $(FILES),tools/setup.sh extras "$(VENV)" export)
	@$(PY) tests/zoo/run.py $(if $(FILES),--files)

profile: build
	@$(PY) docs/profile_qat_step.py

pictures: build
	@tools/setup.sh extras "$(VENV)" examples
	@$(PY) docs/draw_pictures.py

lint: setup
	@tools/setup.sh extras "$(VENV)" lint
	@tools/lint.sh "$(VENV)"

format: setup
	@tools/setup.sh extras "$(VENV)" lint
	@tools/lint.sh "$(VENV)" --fix

clean:
	rm -rf build python/torchslim/lib python/torchslim/_C*.so

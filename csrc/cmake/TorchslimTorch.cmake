# SPDX-License-Identifier: BSD-3-Clause
# What every target here asks of LibTorch: the minor version this release was written for, warnings as errors.
set(TORCHSLIM_TORCH_SERIES "2.13")
set(TORCHSLIM_TORCH_INCLUDE "${TORCH_INSTALL_PREFIX}/include")
file(STRINGS "${TORCHSLIM_TORCH_INCLUDE}/torch/headeronly/version.h" _torch_version_lines
     REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX MATCHALL "[0-9]+" _torch_version_numbers "${_torch_version_lines}")
list(JOIN _torch_version_numbers "." TORCHSLIM_TORCH_VERSION)
if(NOT TORCHSLIM_TORCH_VERSION MATCHES "^2\\.13\\.")
  message(FATAL_ERROR "torchslim ${PROJECT_VERSION} builds against LibTorch ${TORCHSLIM_TORCH_SERIES}, but "
                      "${TORCH_INSTALL_PREFIX} holds ${TORCHSLIM_TORCH_VERSION}; install torch==2.13.0.")
endif()

function(torchslim_warnings target)
  # GCC 12 warns of overlapping copies inside std::string where there are none (its bug 105651).
  target_compile_options(${target} PRIVATE -Wall -Wextra -Werror -Wno-unused-parameter -Wno-restrict)
endfunction()

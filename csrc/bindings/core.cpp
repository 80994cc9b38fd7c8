// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/core/atomic_file.h>
#include <torchslim/version.h>

#include "bindings/bindings.h"
#include "core/cpu_dispatch.h"

namespace torchslim::bindings {
namespace {

std::optional<core::CpuCapability> capability_by_name(const std::optional<std::string>& name) {
  if (!name) {
    return std::nullopt;
  }
  TORCH_CHECK_VALUE(*name == "portable" || *name == "avx2",
                    "force_cpu_capability: expected `portable`, `avx2` or None, got `", *name, "`");
  return *name == "avx2" ? core::CpuCapability::kAvx2 : core::CpuCapability::kPortable;
}

/// Makes FileError an OSError with its errno, so that Python sees FileNotFoundError,
/// PermissionError and the like.
void file_error_to_python(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(pointer);
  } catch (const core::FileError& error) {
    pybind11::set_error(PyExc_OSError, pybind11::make_tuple(error.code().value(), error.what()));
  }
}

}  // namespace

void init_core(pybind11::module_& m) {
  pybind11::register_local_exception_translator(&file_error_to_python);
  m.def("version", &version);
  m.def("write_file", [](const std::string& path, const pybind11::bytes& content) {
    core::write_file(path, std::string_view(content));
  });
  m.def("built_with_torch", &built_with_torch);
  m.def("cpu_capability", [] { return core::cpu_capability() == core::CpuCapability::kAvx2 ? "avx2" : "portable"; });
  m.def("force_cpu_capability",
        [](const std::optional<std::string>& name) { core::force_cpu_capability(capability_by_name(name)); });
}

}  // namespace torchslim::bindings

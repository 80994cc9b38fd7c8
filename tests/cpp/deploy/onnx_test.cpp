// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/onnx.h>

#include "cpp/catch.hpp"
#include "cpp/deploy/files.h"
#include "cpp/deploy/networks.h"
#include "deploy/protobuf.h"

using namespace torchslim::deploy;  // NOLINT

TEST_CASE("ProtobufMessage: the wire format of the specification's examples", "[deploy][onnx]") {
  CHECK(ProtobufMessage().number(1, 150).text() == std::string("\x08\x96\x01", 3));
  CHECK(ProtobufMessage().bytes(2, "testing").text() == "\x12\x07testing");
  CHECK(ProtobufMessage().message(3, ProtobufMessage().number(1, 150)).text() == "\x1a\x03\x08\x96\x01");
  CHECK(ProtobufMessage().number(1, -2).text() == "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(ProtobufMessage().real(2, 1.0F).text() == std::string("\x15\x00\x00\x80\x3f", 5));
}

TEST_CASE("save_onnx: an int8 file of each network, its weights in it once", "[deploy][onnx]") {
  torch::manual_seed(1);
  const std::string path = files::temporary("net.onnx");
  for (const auto& make : {networks::vgg, networks::resnet, networks::mobilenet}) {
    const IntegerGraph graph = lower(make(true));
    const SavedFile file = save_onnx(graph, path);
    const std::string bytes = files::content(path);
    CHECK(file.kind == "int8");
    CHECK(file.bytes == static_cast<int64_t>(bytes.size()));
    CHECK(file.bytes < count_weights(graph).total + 25'000);
    for (const IntegerNode& node : graph.nodes) {
      if (node.codes.defined()) {
        const std::string codes(static_cast<const char*>(node.codes.const_data_ptr()), node.codes.nbytes());
        const size_t place = bytes.find(codes);
        CHECK(place != std::string::npos);
        CHECK(bytes.find(codes, place + 1) == std::string::npos);
      }
    }
    CHECK(bytes.find("torchslim.onnx/1") != std::string::npos);
    CHECK(bytes.find(checksum(graph)) != std::string::npos);
  }
}

TEST_CASE("save_onnx: codes that fit take half a byte each", "[deploy][onnx]") {
  torch::manual_seed(2);
  const std::string path = files::temporary("net.onnx");
  IntegerGraph graph = lower(networks::vgg(true));
  int64_t codes = 0;
  for (IntegerNode& node : graph.nodes) {
    if (node.codes.defined()) {
      node.codes = node.codes.clamp(-7, 7);
      codes += node.codes.numel();
    }
  }
  const int64_t four = save_onnx(graph, path).bytes, eight = save_onnx(graph, path, {{}, {}, {}, 17, {}}).bytes;
  CHECK(eight - four >= codes / 2);
  CHECK(eight - four <= codes / 2 + 100);
}

TEST_CASE("save_onnx: float files, and the doors that are shut", "[deploy][onnx]") {
  torch::manual_seed(3);
  const std::string path = files::temporary("float.onnx");
  const auto graph = networks::resnet(false);
  CHECK(save(graph, path).kind == "float");
  const std::string before = files::content(path);
  CHECK_THROWS_WITH(save(graph, path, {{}, {}, {}, 12, {}}), ContainsSubstring("opset must be in [13, 21], got 12"));
  CHECK_THROWS_WITH(save_float_onnx(graph, files::temporary("net.ptl")), ContainsSubstring("must end in .onnx here"));
  CHECK_THROWS_WITH(save_float_onnx(networks::resnet(true), path), ContainsSubstring("is fake-quantised"));
  CHECK_THROWS_WITH(save_onnx(IntegerGraph(), path), ContainsSubstring("the graph is empty"));
  CHECK_THROWS_WITH(save(graph, files::temporary("net.pte")), ContainsSubstring("written from Python alone"));
  CHECK(files::content(path) == before);
}

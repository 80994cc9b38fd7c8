// SPDX-License-Identifier: BSD-3-Clause
#include <sys/resource.h>
#include <torch/torch.h>
#include <torchslim/core/atomic_file.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/deploy/run_ptl.h>
#include <torchslim/deploy/save.h>
#include <torchslim/quant/prepared_graph.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "cpp/catch.hpp"
#include "cpp/deploy/files.h"
#include "cpp/deploy/networks.h"
#include "deploy/zip_file.h"

using namespace torchslim::deploy;

TEST_CASE("save_ptl: three networks compute in the file what the reference computes", "[deploy][ptl]") {
  torch::manual_seed(GENERATE(1, 2, 3));
  const std::string path = files::temporary("net.ptl");
  for (const auto& make : {networks::vgg, networks::resnet, networks::mobilenet}) {
    const IntegerGraph graph = lower(make(true));
    save_ptl(graph, path);
    PtlModel file(path);
    for (const int64_t batch : {1, 2, 33}) {
      const at::Tensor images = networks::images(graph, batch);
      CHECK(file(images).equal(run_integer(graph, images).values));
    }
  }
}

TEST_CASE("save_ptl: ReLU6 on a grid that goes beyond 6 is a bound in the file", "[deploy][ptl]") {
  torch::manual_seed(4);
  networks::Builder net(1, 12);
  const int64_t bounded = net.conv({8}, torchslim::graph::OpKind::kRelu6);
  net.graph.nodes.back().grid->scale.fill_(0.043F);
  net.graph.nodes.back().grid->zero_point.fill_(-70);
  const int64_t free = net.conv({8}, std::nullopt);
  net.add(bounded, free, torchslim::graph::OpKind::kRelu6);  // of two memory formats
  net.add(free, net.last(), std::nullopt);
  net.activation(torchslim::graph::OpKind::kRelu6);
  net.max_pool(2, 1);
  net.activation(torchslim::graph::OpKind::kRelu);
  const IntegerGraph graph = lower(net.graph);
  const std::string path = files::temporary("relu6.ptl");
  save_ptl(graph, path);
  const at::Tensor images = networks::images(graph, 16) * 4;
  CHECK(PtlModel(path)(images).equal(run_integer(graph, images).values));
}

TEST_CASE("save_ptl: the file holds each number once and little else", "[deploy][ptl]") {
  torch::manual_seed(5);
  const std::string path = files::temporary("size.ptl");
  for (const auto& make : {networks::vgg, networks::resnet, networks::mobilenet}) {
    const IntegerGraph graph = lower(make(true));
    const SavedFile file = save_ptl(graph, path);
    int64_t channels = 0;
    for (const IntegerNode& node : graph.nodes) {
      channels += node.bias.defined() ? node.bias.numel() : 0;
    }
    const int64_t codes = count_weights(graph).total;
    const std::string bytes = files::content(path);
    int64_t in_records = 0;
    int64_t code_records = 0;
    for (const ZipEntry& entry : read_zip(bytes, path)) {
      in_records += static_cast<int64_t>(entry.content.size());
      code_records += static_cast<int64_t>(entry.content.size()) == codes ? 1 : 0;
    }
    INFO("codes " << codes << ", channels " << channels << ", records " << file.records << " of " << in_records
                  << " bytes, file " << file.bytes);
    CHECK(file.bytes == static_cast<int64_t>(bytes.size()));
    CHECK(file.kind == "int8");
    CHECK(code_records == 1);
    // 8 bytes for a channel's scale and 4 for its bias; the rest is program, manifest and the archive itself.
    CHECK(in_records < codes + 12 * channels + 9000);
    CHECK(file.bytes < codes + 12 * channels + 250 * file.records + 9000);
  }
}

TEST_CASE("save_ptl: the same graph gives the same bytes", "[deploy][ptl]") {
  torch::manual_seed(6);
  const IntegerGraph graph = lower(networks::resnet());
  const std::string first = files::temporary("first.ptl");
  const std::string second = files::temporary("another_name.ptl");
  save_ptl(graph, first);
  save_ptl(graph, second);
  CHECK(files::content(first) == files::content(second));
  const torchslim::graph::Graph floats = networks::resnet(false);
  save_float_ptl(floats, first);
  save_float_ptl(floats, second);
  CHECK(files::content(first) == files::content(second));
}

TEST_CASE("save_ptl: the manifest says what goes in and comes out", "[deploy][ptl]") {
  torch::manual_seed(7);
  const IntegerGraph graph = lower(networks::mobilenet());
  const std::string path = files::temporary("manifest.ptl");
  SaveOptions options;
  options.mean = {0.25};
  options.std = {0.5};
  options.labels = {"a \"quoted\" name"};
  save_ptl(graph, path, options);
  const std::string manifest = PtlModel(path).manifest();
  for (const char* part :
       {R"("kind": "int8")", R"("shape":[null,1,28,28])", R"("mean":[0.25],"std":[0.5])", R"("engine": "qnnpack")",
        R"(["conv30","conv2d",[7,40,1,1],364],)", R"("a \"quoted\" name")", R"("torch": "2.13.)"}) {
    CHECK_THAT(manifest, ContainsSubstring(part));
  }
  CHECK_THAT(manifest, ContainsSubstring(checksum(graph)));
}

TEST_CASE("save_float_ptl: the file computes what the float graph computes", "[deploy][ptl]") {
  torch::manual_seed(8);
  const std::string path = files::temporary("float.ptl");
  for (const auto& make : {networks::vgg, networks::resnet, networks::mobilenet}) {
    const torchslim::graph::Graph graph = make(false);
    const SavedFile file = save(graph, path);
    CHECK(file.kind == "float");
    int64_t weights = 0;
    for (const auto& node : graph.nodes) {
      const bool folded = node.kind == torchslim::graph::OpKind::kBatchNorm2d;
      weights += !folded && node.weight.defined() ? node.weight.value.numel() : 0;
    }
    CHECK(file.bytes < 4 * weights + 25000);
  }
}

TEST_CASE("save_float_ptl: a quantised graph and NaN are refused", "[deploy][ptl]") {
  torch::manual_seed(9);
  const std::string path = files::temporary("refused.ptl");
  CHECK_THROWS_WITH(save_float_ptl(networks::vgg(true), path), ContainsSubstring("is fake-quantised"));
  torchslim::graph::Graph graph = networks::vgg(false);
  graph.nodes[1].weight.value.view(-1)[3] = NAN;
  CHECK_THROWS_WITH(save_float_ptl(graph, path), ContainsSubstring(".weight holds NaN or infinity"));
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("save: a C++ module, by reference or holder", "[deploy][ptl]") {
  torch::manual_seed(10);
  torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).bias(false)), torch::nn::BatchNorm2d(8),
                            torch::nn::ReLU());
  net->eval();
  const at::Tensor images = torch::rand({4, 3, 9, 9});
  const std::string path = files::temporary("module.ptl");
  CHECK(save(net, images.narrow(0, 0, 1), path).kind == "float");
  CHECK(torch::allclose(PtlModel(path)(images), net->forward(images), 1e-5, 1e-6));
  struct Net : torch::nn::Module {
    torch::nn::Conv2d conv = register_module("conv", torch::nn::Conv2d(3, 4, 1));
    at::Tensor forward(at::Tensor x) { return conv(x); }
  } module;
  save(module, images.narrow(0, 0, 1), path);
  CHECK(torch::allclose(PtlModel(path)(images), module.forward(images), 1e-5, 1e-6));
}

TEST_CASE("save: an example of several images, whose dimension moves, gives a file for any number", "[deploy][ptl]") {
  torch::manual_seed(11);
  struct Tokens : torch::nn::Module {
    torch::nn::Linear first = register_module("first", torch::nn::Linear(6, 8));
    torch::nn::Linear last = register_module("last", torch::nn::Linear(8, 4));
    at::Tensor forward(at::Tensor x) { return last(first(x.transpose(0, 1)).relu().transpose(0, 1)); }
  };
  const auto module = std::make_shared<Tokens>();
  const at::Tensor images = torch::randn({7, 5, 6});
  const std::string path = files::temporary("tokens.ptl");
  save(*module, images.narrow(0, 0, 4), path);
  CHECK(torch::allclose(PtlModel(path)(images), module->forward(images), 1e-5, 1e-6));
  torchslim::quant::PreparedGraph prepared = torchslim::quant::prepare(module, images.narrow(0, 0, 1));
  prepared->forward(images);
  prepared->eval();
  CHECK(save(*prepared, images.narrow(0, 0, 4), path).kind == "int8");
  CHECK(PtlModel(path)(images).equal(prepared->forward(images)));
}

TEST_CASE("save: other suffixes and wrong options are refused by name", "[deploy][ptl]") {
  torch::manual_seed(11);
  const IntegerGraph graph = lower(networks::mobilenet());
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.slim")),
                    ContainsSubstring(".slim files are not available yet"));
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.pte")), ContainsSubstring("written from Python alone"));
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.onnx")), ContainsSubstring("must end in .ptl here"));
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.pt")), ContainsSubstring("must end in .ptl"));
  SaveOptions options;
  options.mean = {0.1, 0.2};
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.ptl"), options), ContainsSubstring("got 2 and 0"));
  options.std = {0.1, 0.2};
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.ptl"), options), ContainsSubstring("1 input channels"));
  options = {};
  options.bytecode = 9;
  CHECK_THROWS_WITH(save_ptl(graph, files::temporary("net.ptl"), options),
                    ContainsSubstring("bytecode must be in [4, 7]"));
}

TEST_CASE("save_ptl: where the file cannot be written the old one stays whole", "[deploy][ptl]") {
  torch::manual_seed(12);
  const IntegerGraph graph = lower(networks::mobilenet());
  const std::string path = files::temporary("kept/net.ptl");
  std::filesystem::create_directories(files::temporary("kept"));
  save_ptl(graph, path);
  const std::string old = files::content(path);
  const IntegerGraph other = lower(networks::mobilenet());
  CHECK_THROWS_AS(save_ptl(other, files::temporary("no_such_directory/net.ptl")), torchslim::core::FileError);
  SECTION("no space: the size of files is limited") {
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit limit = before;
    limit.rlim_cur = 4096;
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK_THROWS_AS(save_ptl(other, path), torchslim::core::FileError);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
  }
  SECTION("the path is a directory") {
    std::filesystem::create_directories(files::temporary("kept/directory.ptl"));
    CHECK_THROWS_AS(save_ptl(other, files::temporary("kept/directory.ptl")), torchslim::core::FileError);
  }
  SECTION("no permission") {
    if (::geteuid() != 0) {  // root may write anywhere
      std::filesystem::permissions(files::temporary("kept"),
                                   std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
      CHECK_THROWS_AS(save_ptl(other, path), torchslim::core::FileError);
      std::filesystem::permissions(files::temporary("kept"), std::filesystem::perms::owner_all);
    }
  }
  CHECK(files::content(path) == old);
  size_t entries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(files::temporary("kept"))) {
    entries += entry.is_regular_file() ? 1 : 0;
  }
  CHECK(entries == 1);  // no temporary is left
  std::filesystem::remove_all(files::temporary("kept"));
}

TEST_CASE("save_ptl: the quantised engine is the one of before, also after an error", "[deploy][ptl]") {
  torch::manual_seed(13);
  const auto before = at::globalContext().qEngine();
  REQUIRE(before != at::QEngine::QNNPACK);
  IntegerGraph graph = lower(networks::mobilenet());
  save_ptl(graph, files::temporary("engine.ptl"));
  CHECK(at::globalContext().qEngine() == before);
  graph.nodes.back().weight_scale.fill_(-1);  // packs, but cannot run
  CHECK_THROWS(save_ptl(graph, files::temporary("engine.ptl")));
  CHECK(at::globalContext().qEngine() == before);
}

// SPDX-License-Identifier: BSD-3-Clause
//
// The main job without Python: a ResNet teacher learns Fashion-MNIST; a small MobileNet learns from it while half of its
// weights are pruned and all of it is rounded to 8 bits; the file that comes out runs in integers and is compared, output
// by output, with the integer reference.
//
//   distill_fashion_mnist --data build/data/fashion-mnist --out build/demo_cpp           the whole job
//   distill_fashion_mnist --data build/data/fashion-mnist --out build/demo_cpp --quick   fewer images, smaller networks
//
// Ends with the table of examples/110_distill_fashion_mnist.py, from the same code.
#include <torch/torch.h>
#include <torchslim/torchslim.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "fashion_mnist.h"
#include "training.h"

namespace ts = torchslim;

namespace {

struct Arguments {
  std::string data = "build/data/fashion-mnist";
  std::string out = "build/demo_cpp";
  int64_t seed = 0;
  int threads = 2;
  bool quick = false;
};

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--quick") {
      arguments.quick = true;
      continue;
    }
    TORCH_CHECK(i + 1 < words.size(), "unknown argument or no value after it: ", words[i],
                "; known: --data DIR --out DIR --seed N --threads N --quick");
    const std::string& value = words[i + 1];
    if (words[i] == "--data") {
      arguments.data = value;
    } else if (words[i] == "--out") {
      arguments.out = value;
    } else if (words[i] == "--seed") {
      arguments.seed = std::stoll(value);
    } else if (words[i] == "--threads") {
      arguments.threads = std::stoi(value);
    } else {
      TORCH_CHECK(false, "unknown argument ", words[i], "; known: --data DIR --out DIR --seed N --threads N --quick");
    }
    ++i;
  }
  return arguments;
}

// The numbers of the run; those of examples/fashion_mnist/recipe.py.
struct Recipe {
  ts::models::ResNetOptions teacher;
  ts::models::MobileNetV1Options student;
  int64_t images = 0;  // of the training set; 0: all
  int64_t teacher_epochs, student_epochs;
  double teacher_lr, student_lr;
};

Recipe full_recipe() {
  return {.teacher = ts::models::ResNetOptions()
                         .in_channels(1)
                         .depth(8)
                         .channels({64, 128})
                         .stem_channels(32)
                         .stem_kernel(5)
                         .stem_stride(2)
                         .downsample(ts::models::Downsample::kPool),
          .student = ts::models::MobileNetV1Options()
                         .in_channels(1)
                         .channels({16, 32, 64, 80, 80, 80})
                         .strides({2, 1, 2, 1, 1, 1}),
          .images = 0,
          .teacher_epochs = 5,
          .student_epochs = 10,
          .teacher_lr = 0.15,
          .student_lr = 4e-3};
}

Recipe quick_recipe() {
  return {.teacher = ts::models::ResNetOptions().in_channels(1).depth(8).channels({32, 64, 128}).stem_stride(2),
          .student =
              ts::models::MobileNetV1Options().in_channels(1).channels({16, 32, 48, 56, 56}).strides({2, 1, 2, 1, 1}),
          .images = 12000,
          .teacher_epochs = 4,
          .student_epochs = 8,
          .teacher_lr = 0.1,
          .student_lr = 5e-3};
}

constexpr double kSparsity = 0.5;

at::Tensor label_loss(const at::Tensor& logits, const at::Tensor& labels) {
  namespace F = torch::nn::functional;
  return F::cross_entropy(logits, labels, F::CrossEntropyFuncOptions().label_smoothing(0.05));
}

ts::models::ResNet train_teacher(const Recipe& recipe, const ImageSet& set, at::Generator& generator) {
  ts::models::ResNet teacher(recipe.teacher);
  torch::optim::SGD optimizer(
      teacher->parameters(),
      torch::optim::SGDOptions(recipe.teacher_lr).momentum(0.9).nesterov(true).weight_decay(5e-4));
  Stage stage;
  stage.name = "teacher";
  stage.epochs = recipe.teacher_epochs;
  stage.peak_lr = recipe.teacher_lr;
  stage.loss = [&](const at::Tensor& images, const at::Tensor& labels, const at::Tensor&) {
    return label_loss(teacher->forward(images), labels);
  };
  train(stage, set, optimizer, generator);
  teacher->eval();
  return teacher;
}

// Prunes, quantises and, where `teacher_logits` is defined, distils in one loop.
ts::models::MobileNetV1 train_student(const std::string& name, const Recipe& recipe, const ImageSet& set,
                                      const at::Tensor& teacher_logits, at::Generator& generator) {
  ts::models::MobileNetV1 student(recipe.student);
  ts::quant::prepare(*student);
  torch::optim::AdamW optimizer(student->parameters(),
                                torch::optim::AdamWOptions(recipe.student_lr).weight_decay(0.02));
  Stage stage;
  stage.name = name;
  stage.epochs = recipe.student_epochs;
  stage.peak_lr = recipe.student_lr;
  const int64_t steps = steps_of(stage, set);
  ts::prune::MagnitudePruner pruner(*student, ts::prune::PolynomialSchedule(steps * 3 / 10, steps * 8 / 10, kSparsity),
                                    optimizer);
  ts::distill::KDLoss kd_loss(ts::distill::KDLossOptions().temperature(4).ce_weight(0.1).kd_weight(0.9));
  stage.loss = [&](const at::Tensor& images, const at::Tensor& labels, const at::Tensor& places) {
    const auto logits = student->forward(images);
    return teacher_logits.defined() ? kd_loss(logits, teacher_logits.index_select(0, places), labels)
                                    : label_loss(logits, labels);
  };
  stage.after_step = [&] { pruner.step(); };
  train(stage, set, optimizer, generator);
  pruner.finalize();
  student->eval();
  return student;
}

// The student's network in float, with its weights and statistics: what `float` means in the table.
ts::graph::Graph float_graph(const Recipe& recipe, ts::models::MobileNetV1& student, const at::Tensor& example) {
  ts::models::MobileNetV1 plain(recipe.student);
  const torch::NoGradGuard no_grad;
  const auto parameters = student->named_parameters();
  for (auto& item : plain->named_parameters()) {
    item.value().copy_(parameters[item.key()]);
  }
  const auto buffers = student->named_buffers();
  for (auto& item : plain->named_buffers()) {
    item.value().copy_(buffers[item.key()]);
  }
  plain->eval();
  return ts::graph::capture(plain, example);
}

struct Run {
  Arguments arguments;
  Recipe recipe;
  ImageSet test;
  ts::models::ResNet teacher;
  ts::models::MobileNetV1 student, alone;
};

// Writes the three files, runs them on the test images and compares.
ts::deploy::Report test_files(Run& run) {
  const at::Tensor images = to_float(run.test.images);
  const at::Tensor example = images.slice(0, 0, 1).clone();
  const std::string out = run.arguments.out + "/";
  const auto accuracy_of = [&](const at::Tensor& logits) { return accuracy(logits, run.test.labels); };
  ts::deploy::Report report;

  const auto teacher_saved = ts::deploy::save(run.teacher, example, out + "teacher.ptl");
  const auto float_saved = ts::deploy::save(float_graph(run.recipe, run.student, example), out + "student_float.ptl");
  const auto integers = ts::deploy::lower(ts::graph::capture(run.student, example));
  const auto int8_saved = ts::deploy::save_ptl(integers, out + "student.ptl");
  report.bytes = {
      .teacher_float = teacher_saved.bytes, .student_float = float_saved.bytes, .student_int8 = int8_saved.bytes};

  ts::deploy::PtlModel teacher_file(teacher_saved.path), float_file(float_saved.path), int8_file(int8_saved.path);
  const auto fake_quantised = logits_of([&](const at::Tensor& batch) { return run.student->forward(batch); }, run.test);
  const auto int8_logits = ts::deploy::run_batches(int8_file, images);
  report.accuracy = {.teacher = accuracy_of(ts::deploy::run_batches(teacher_file, images)),
                     .student_alone = accuracy_of(
                         logits_of([&](const at::Tensor& batch) { return run.alone->forward(batch); }, run.test)),
                     .float_student = accuracy_of(ts::deploy::run_batches(float_file, images)),
                     .fake_quant = accuracy_of(fake_quantised),
                     .int8 = accuracy_of(int8_logits)};
  report.agreement = ts::deploy::compare_outputs(int8_logits, fake_quantised, integers.nodes.back().scale);
  report.reference_differences = ts::deploy::count_reference_differences(int8_logits, integers, images);
  report.weights = ts::deploy::count_weights(integers);
  report.float_latency = ts::deploy::measure_latency(float_file, example);
  report.int8_latency = ts::deploy::measure_latency(int8_file, example);
  return report;
}

void run(const Arguments& arguments) {
  at::set_num_threads(arguments.threads);
  torch::manual_seed(arguments.seed);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(arguments.seed);
  const Recipe recipe = arguments.quick ? quick_recipe() : full_recipe();
  const ImageSet training = read_fashion_mnist(arguments.data, "train", recipe.images);
  std::filesystem::create_directories(arguments.out);

  const auto start = std::chrono::steady_clock::now();
  auto teacher = train_teacher(recipe, training, generator);
  const auto teach = [&](const at::Tensor& images) { return teacher->forward(images); };
  auto student = train_student("student", recipe, training, logits_of(teach, training), generator);
  auto alone = train_student("alone", recipe, training, {}, generator);

  Run trained{arguments, recipe, read_fashion_mnist(arguments.data, "t10k"), teacher, student, alone};
  auto report = test_files(trained);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.quick = arguments.quick;
  report.seed = arguments.seed;
  report.machine = ts::deploy::machine_name();
  report.versions = {{"torchslim", ts::version()}, {"libtorch", ts::built_with_torch()}};
  ts::core::write_file(arguments.out + "/report.json", ts::deploy::to_json(report));
  std::cout << ts::deploy::format_table(report) << std::endl;
  TORCH_CHECK(*report.reference_differences == 0, "student.ptl differs from the integer reference in ",
              *report.reference_differences, " outputs, 0 expected");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse({argv + 1, argv + argc}));
  } catch (const c10::Error& error) {
    std::cerr << "error: " << error.what_without_backtrace() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}

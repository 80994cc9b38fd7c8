// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/pickle_file.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace torchslim::deploy {
namespace {

using Pointer = std::shared_ptr<const PickleValue>;

constexpr uint64_t kMostWork = 1 << 24;  // elements that growing lists may move
constexpr int kMostDepth = 64;           // programs nest some ten deep; a destructor goes down as far

class PickleReader {
 public:
  PickleReader(std::string_view bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  Pointer read() {
    while (true) {
      const char opcode = take(1)[0];
      if (opcode == '.') {  // STOP
        require(at_ == bytes_.size() && stack_.size() == 1 && marks_.empty(), "it goes on behind its end");
        return stack_.back();
      }
      step(opcode);
    }
  }

 private:
  void require(bool condition, const char* reason) const {
    TORCH_CHECK_VALUE(condition, "torchslim: ", what_, " is no program of PyTorch Mobile: ", reason, " (byte ", at_,
                      ")");
  }

  std::string_view take(uint64_t size) {
    require(size <= bytes_.size() - at_, "it is cut short");
    const std::string_view taken = bytes_.substr(at_, size);
    at_ += size;
    return taken;
  }

  uint64_t number(int size) {
    const std::string_view field = take(size);
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; --i) {
      value = value << 8 | static_cast<uint8_t>(field[i]);
    }
    return value;
  }

  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    require(end != std::string_view::npos, "a name has no end");
    const std::string_view taken = take(end - at_);
    take(1);
    return taken;
  }

  Pointer pop() {
    require(!stack_.empty() && (marks_.empty() || stack_.size() > marks_.back()), "a value is missing");
    Pointer value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }

  void push(PickleValue value) { stack_.push_back(std::make_shared<const PickleValue>(std::move(value))); }

  void push_number(int64_t number) {
    PickleValue value;
    value.kind = PickleValue::Kind::kNumber;
    value.number = number;
    push(std::move(value));
  }

  void push_text(std::string_view text) {
    PickleValue value;
    value.kind = PickleValue::Kind::kText;
    value.text = text;
    push(std::move(value));
  }

  // The values from `begin` on, as one.
  PickleValue gathered(size_t begin, PickleValue::Kind kind) {
    PickleValue value;
    value.kind = kind;
    value.items.assign(stack_.begin() + static_cast<int64_t>(begin), stack_.end());
    stack_.resize(begin);
    for (const Pointer& item : value.items) {
      value.depth = std::max(value.depth, item->depth + 1);
    }
    require(value.depth <= kMostDepth, "it nests too deep");
    return value;
  }

  void push_tuple(size_t size) {
    require(stack_.size() >= size + (marks_.empty() ? 0 : marks_.back()), "a value is missing");
    push(gathered(stack_.size() - size, PickleValue::Kind::kItems));
  }

  size_t unmark() {
    require(!marks_.empty(), "a mark is missing");
    const size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }

  // A list or dictionary with more in it; the old value may be another's, so it stays as it is.
  void extend() {
    PickleValue more = gathered(unmark(), PickleValue::Kind::kItems);
    const Pointer before = pop();
    more.items.insert(more.items.begin(), before->items.begin(), before->items.end());
    more.depth = std::max(more.depth, before->depth);
    work_ += more.items.size();
    require(work_ <= kMostWork + bytes_.size(), "its lists grow too often");
    push(std::move(more));
  }

  // What a call, or a class, makes of one or two values.
  void push_other(int values) {
    PickleValue value;
    for (int i = 0; i < values; ++i) {
      value.depth = std::max(value.depth, pop()->depth);
    }
    push(std::move(value));
  }

  void remember(uint64_t place) {
    require(!stack_.empty(), "a value is missing");
    memo_[place] = stack_.back();
  }

  void recall(uint64_t place) {
    const auto found = memo_.find(place);
    require(found != memo_.end(), "it recalls what it never had");
    stack_.push_back(found->second);
  }

  void step(char opcode) {
    switch (opcode) {
      case '\x80':  // PROTO
        require(number(1) == 2, "it has another protocol");
        return;
      case '(':  // MARK
        marks_.push_back(stack_.size());
        return;
      case 'K':  // BININT1
        return push_number(static_cast<int64_t>(number(1)));
      case 'M':  // BININT2
        return push_number(static_cast<int64_t>(number(2)));
      case 'J':  // BININT
        return push_number(static_cast<int32_t>(number(4)));
      case '\x8a': {  // LONG1
        const uint64_t size = number(1);
        require(size <= 8, "a number is too long");
        const uint64_t value = number(static_cast<int>(size));
        const bool negative = size > 0 && size < 8 && (value >> (8 * size - 1) & 1) != 0;
        return push_number(static_cast<int64_t>(negative ? value | ~uint64_t{0} << 8 * size : value));
      }
      case 'G':  // BINFLOAT
        take(8);
        return push_other(0);
      case 'N':     // NONE
      case '\x88':  // NEWTRUE
      case '\x89':  // NEWFALSE
        return push_other(0);
      case 'X':  // BINUNICODE
        return push_text(take(number(4)));
      case 'c': {  // GLOBAL
        line();
        line();
        return push_other(0);
      }
      case ')':  // EMPTY_TUPLE
      case ']':  // EMPTY_LIST
      case '}':  // EMPTY_DICT
        return push(gathered(stack_.size(), PickleValue::Kind::kItems));
      case '\x85':  // TUPLE1
        return push_tuple(1);
      case '\x86':  // TUPLE2
        return push_tuple(2);
      case '\x87':  // TUPLE3
        return push_tuple(3);
      case 't':  // TUPLE
        return push(gathered(unmark(), PickleValue::Kind::kItems));
      case 'a': {  // APPEND
        require(!stack_.empty(), "a value is missing");
        marks_.push_back(stack_.size() - 1);
        return extend();
      }
      case 'e':  // APPENDS
      case 'u':  // SETITEMS
        return extend();
      case 'R':     // REDUCE
      case '\x81':  // NEWOBJ
      case 'b':     // BUILD
        return push_other(2);
      case 'Q':  // BINPERSID
        return push_other(1);
      case 'q':  // BINPUT
        return remember(number(1));
      case 'r':  // LONG_BINPUT
        return remember(number(4));
      case 'h':  // BINGET
        return recall(number(1));
      case 'j':  // LONG_BINGET
        return recall(number(4));
      default:
        require(false, "it holds an opcode that LibTorch does not write");
    }
  }

  std::string_view bytes_;
  const std::string& what_;
  uint64_t at_ = 0;
  uint64_t work_ = 0;
  std::vector<Pointer> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Pointer> memo_;
};

}  // namespace

Pointer read_pickle(std::string_view pickle, const std::string& what) { return PickleReader(pickle, what).read(); }

}  // namespace torchslim::deploy

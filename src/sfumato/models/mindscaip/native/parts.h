// What the network is made of: linear maps, and how tokens lie in memory.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "attention.h"
#include "geometry.h"
#include "rows.h"

namespace sfumato {

// Memory that is taken piece by piece and given back all at once; kept for the next time.
class Arena {
 public:
  float* take(size_t n) {
    n = (n + PANEL - 1) / PANEL * PANEL;
    while (block_ < blocks_.size() && used_ + n > blocks_[block_].size) block_++, used_ = 0;
    if (block_ == blocks_.size()) {
      const size_t size = std::max(n, (size_t)1 << 20);
      blocks_.push_back({std::unique_ptr<float[]>(new float[size]), size});
      used_ = 0;
    }
    float* p = blocks_[block_].numbers.get() + used_;
    used_ += n;
    return p;
  }
  float* zeros(size_t n) { return (float*)memset(take(n), 0, n * sizeof(float)); }
  void clear() { block_ = used_ = 0; }
  int64_t bytes() const {
    size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    return (int64_t)(total * sizeof(float));
  }

 private:
  struct Block {
    std::unique_ptr<float[]> numbers;
    size_t size;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0;
};

struct Settings {
  int width, heads, inner, hidden, layers, radial, degree, l_max, gated, node_ffn, layer_readout;
  float scale, smear_height;  // 1/(τ√d); of the Gaussians
  double smear_width;
  GraphSettings graph;

  // Up to which degree polynomials are summed: one that the attention is compiled for.
  int terms() const { return degree == 0 ? 0 : degree <= 6 ? 6 : 12; }
};

// y = x Wᵀ + b. Gradients of all weights lie in one array; those of W and b from `at` and `at_bias` on.
struct Linear {
  int out = 0, in = 0;
  const float *w = nullptr, *b = nullptr;
  size_t at = 0, at_bias = 0;
  Packed to, back;
  std::vector<float> bias;  // b, zero beyond it

  void pack() {
    to.pack(w, in, out, 1, in);
    back.pack(w, out, in, in, 1);
    bias.assign(b ? padded(out) : 0, 0.f);
    if (b) std::copy(b, b + out, bias.begin());
  }
  void forward(Rows rows, const float* x, float* y, bool add) const {
    multiply(rows, x, padded(in), to, y, padded(out), b ? bias.data() : nullptr, add);
  }
  void push(Rows rows, const float* dx, float* dy, bool add) const {
    multiply(rows, dx, padded(in), to, dy, padded(out), nullptr, add);
  }
  void pull(Rows rows, const float* gy, float* gx) const {
    multiply(rows, gy, padded(out), back, gx, padded(in), nullptr, false);
  }
  // d/dt of gyᵀ x: ġyᵀ x + gyᵀ ẋ.
  void second(Rows rows, const float* dgy, const float* x, const float* gy, const float* dx, float* gradients) const {
    const Outer terms[2] = {{dgy, padded(out), x, padded(in)}, {gy, padded(out), dx, padded(in)}};
    add_outer(rows, out, in, terms, 2, gradients + at, gradients + at_bias);
  }
};

// W₂ f(W₁ n) of rows that are normalized already.
struct FeedForward {
  Linear up, down;
  int hidden = 0;
  bool gated = false;
};

// Tokens in windows, atom by atom, each atom's own token first: of edges that leave atoms, or that arrive.
struct Side {
  std::vector<int> first;         // (atoms + 1) rows
  std::vector<int> edge;          // (rows) or −1
  std::vector<int> row;           // (edges)
  std::vector<int> own, others;   // rows of atoms, and of edges
  std::vector<int> from;          // (rows) where each lies on the other side
  std::vector<size_t> keys, square;  // where the padded keys, and the m × width maps of an atom begin
  float *log_e = nullptr, *by_log_e = nullptr, *d_log_e = nullptr;  // (padded keys)
  float *maps = nullptr, *by_cosine = nullptr, *turn = nullptr;     // (degree + 1)·squares, squares, squares

  void arrange(int atoms, const std::vector<int>& counts) {
    first.assign(atoms + 1, 0), keys.assign(atoms + 1, 0), square.assign(atoms + 1, 0), own.resize(atoms);
    for (int a = 0; a < atoms; a++) {
      const int m = counts[a] + 1;
      own[a] = first[a];
      first[a + 1] = first[a] + m;
      keys[a + 1] = keys[a] + padded(m);
      square[a + 1] = square[a] + (size_t)m * padded(m);
    }
    edge.assign(first[atoms], -1), others.clear();
  }
  void put(int a, int place, int e) {
    const int r = first[a] + 1 + place;
    edge[r] = e, row[e] = r;
  }
  Window window(int a, int D, bool only_own) const {
    const int m = first[a + 1] - first[a];
    return {m, padded(m), only_own ? 1 : m, log_e + keys[a], maps + (D + 1) * square[a],
            turn ? turn + square[a] : nullptr};
  }
};

// Windows that are worked on together, so that what they need stays in the processor's cache.
struct Group {
  int first_atom, last_atom, first_row, last_row;
  Rows rows() const { return {nullptr, first_row, last_row - first_row}; }
};

constexpr int TOGETHER = 72;  // rows at least

template <class Do>
static void each_group(const Side& side, Do act) {
  const int atoms = (int)side.own.size();
  for (int a = 0; a < atoms;) {
    int b = a + 1;
    while (b < atoms && side.first[b] - side.first[a] < TOGETHER) b++;
    act(Group{a, b, side.first[a], side.first[b]});
    a = b;
  }
}

SFUMATO_INLINE void copy_row(const float* from, float* to, int C) { memcpy(to, from, C * sizeof(float)); }

}  // namespace sfumato

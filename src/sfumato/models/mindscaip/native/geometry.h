// From positions to what the network sees of them: distances, log e, cosines and harmonics, in double precision.
//
// Three passes: forward; pull, from gradients by these to those by positions and strain; push, from a change of
// positions and strain to changes of these. Nothing that is learned lies here, so there is no second pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace sfumato {

struct GraphSettings {
  double k, d0, beta, cutoff, rank_offset, f_max;
  int mutual;
};

// The pairs of a batch (see graph/layout.py): edges sorted by source, then witnesses sorted by source.
struct Topology {
  int64_t n_atoms, n_edges, n_pairs, n_systems;
  const int64_t *numbers, *system, *source, *target, *shift, *reverse;
};

// Consecutive structures of a batch, with numbers of their own: atoms and edges from 0, pairs edge after edge,
// then witnesses.
struct Part {
  int64_t first_system, first_atom, first_edge, first_witness;
  int systems, atoms, edges, pairs;

  Part(const Topology& t, int64_t begin, int64_t end) : first_system(begin), systems((int)(end - begin)) {
    auto atom = [&](int64_t g) { return std::lower_bound(t.system, t.system + t.n_atoms, g) - t.system; };
    auto pair = [&](int64_t from, int64_t to, int64_t a) {
      return std::lower_bound(t.source + from, t.source + to, a) - t.source;
    };
    first_atom = atom(begin);
    int64_t last_atom = atom(end);
    first_edge = pair(0, t.n_edges, first_atom);
    first_witness = pair(t.n_edges, t.n_pairs, first_atom);
    atoms = (int)(last_atom - first_atom);
    edges = (int)(pair(0, t.n_edges, last_atom) - first_edge);
    pairs = edges + (int)(pair(t.n_edges, t.n_pairs, last_atom) - first_witness);
  }
  int64_t pair(int p) const { return p < edges ? first_edge + p : first_witness + p - edges; }
};

constexpr double SUPPORT = 4.0, SATURATED = 0.999 * SUPPORT;
constexpr float FAINT = -60.f;  // an edge whose log e is below has no weight (see windows.py)

class Geometry {
 public:
  int atoms = 0, edges = 0, pairs = 0, systems = 0;
  std::vector<int> source, target, reverse, first_edge, first_witness, system;
  std::vector<double> vector, unit, distance, log_e;
  std::vector<char> seen;  // of each edge, whether its log e counts
  // Changes, from `push`.
  std::vector<double> d_distance, d_unit, d_log_e;

  void place(const GraphSettings& s, const Topology& t, const Part& part, const double* positions,
             const double* cell) {
    settings_ = s;
    number(t, part);
    for (int p = 0; p < pairs; p++) {
      const int64_t q = part.pair(p), g = t.system[t.source[q]];
      const double *from = positions + 3 * t.source[q], *to = positions + 3 * t.target[q];
      double* v = &vector[3 * p];
      for (int c = 0; c < 3; c++) {
        v[c] = to[c] - from[c];
        for (int k = 0; k < 3; k++)
          if (t.shift[3 * q + k]) v[c] += (double)t.shift[3 * q + k] * cell[9 * g + 3 * k + c];
      }
      distance[p] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      for (int c = 0; c < 3; c++) unit[3 * p + c] = v[c] / distance[p];
    }
    rank();
    weigh();
  }

  // Add −dE/dr to (N, 3) forces and dE/dε to (G, 3, 3) strain of these structures.
  // by_distance and by_log_e (edges), by_unit (edges, 3); the first is of pairs and changed.
  void pull(std::vector<double>& by_distance, const std::vector<double>& by_log_e, const std::vector<double>& by_unit,
            double* forces, double* strain) const {
    std::vector<double> by_rank(edges, 0.0);
    for (int e = 0; e < edges; e++) {
      by_rank[e] += by_log_e[e] * of_out_[e];
      if (settings_.mutual) by_rank[reverse[e]] += by_log_e[e] * of_in_[e];
      by_distance[e] += by_log_e[e] * of_length_[e];
    }
    each_step([&](int e, int p, double slope) {
      by_distance[e] += by_rank[e] * slope;
      by_distance[p] -= by_rank[e] * slope;
    });
    for (int p = 0; p < pairs; p++) {
      const double *u = &unit[3 * p], *g = p < edges ? &by_unit[3 * p] : nullptr;
      const double along = g ? g[0] * u[0] + g[1] * u[1] + g[2] * u[2] : 0.0;
      double* pull = strain + 9 * system[source[p]];
      for (int c = 0; c < 3; c++) {
        const double by_vector = by_distance[p] * u[c] + (g ? (g[c] - along * u[c]) / distance[p] : 0.0);
        forces[3 * source[p] + c] += by_vector;
        forces[3 * target[p] + c] -= by_vector;
        for (int k = 0; k < 3; k++) pull[3 * k + c] += vector[3 * p + k] * by_vector;
      }
    }
  }

  // The change of everything as atoms move by (N, 3) and structures are strained by (G, 3, 3), symmetric.
  void push(const double* moves, const double* strain) {
    d_distance.resize(pairs), d_unit.resize(3 * (size_t)edges), d_log_e.assign(edges, 0.0);
    for (int p = 0; p < pairs; p++) {
      const double *u = &unit[3 * p], *v = &vector[3 * p], *pull = strain + 9 * system[source[p]];
      double change[3], along = 0;
      for (int c = 0; c < 3; c++) {
        change[c] = moves[3 * target[p] + c] - moves[3 * source[p] + c];
        for (int k = 0; k < 3; k++) change[c] += v[k] * pull[3 * k + c];
        along += change[c] * u[c];
      }
      d_distance[p] = along;
      if (p < edges)
        for (int c = 0; c < 3; c++) d_unit[3 * p + c] = (change[c] - along * u[c]) / distance[p];
    }
    std::vector<double> d_rank(edges, 0.0);
    each_step([&](int e, int p, double slope) { d_rank[e] += slope * (d_distance[e] - d_distance[p]); });
    for (int e = 0; e < edges; e++) {
      d_log_e[e] = of_out_[e] * d_rank[e] + of_length_[e] * d_distance[e];
      if (settings_.mutual) d_log_e[e] += of_in_[e] * d_rank[reverse[e]];
    }
  }

 private:
  GraphSettings settings_{};
  std::vector<double> rank_, of_out_, of_in_, of_length_;
  std::vector<int> step_edge_, step_pair_;  // the steps of ranks that are neither 0 nor 1 …
  std::vector<double> step_slope_;          // … and their slopes by distance

  template <class Do>
  void each_step(Do act) const {
    for (size_t i = 0; i < step_slope_.size(); i++) act(step_edge_[i], step_pair_[i], step_slope_[i]);
  }

  void number(const Topology& t, const Part& part) {
    atoms = part.atoms, edges = part.edges, pairs = part.pairs, systems = part.systems;
    source.resize(pairs), target.resize(pairs), reverse.resize(edges), system.resize(atoms);
    vector.resize(3 * (size_t)pairs), unit.resize(3 * (size_t)pairs), distance.resize(pairs);
    first_edge.assign(atoms + 1, 0), first_witness.assign(atoms + 1, 0);
    for (int a = 0; a < atoms; a++) system[a] = (int)(t.system[part.first_atom + a] - part.first_system);
    for (int p = 0; p < pairs; p++) {
      const int64_t q = part.pair(p);
      source[p] = (int)(t.source[q] - part.first_atom), target[p] = (int)(t.target[q] - part.first_atom);
      if (p < edges) reverse[p] = t.reverse[q] < 0 ? -1 : (int)(t.reverse[q] - part.first_edge);
      (p < edges ? first_edge : first_witness)[source[p] + 1]++;
    }
    for (int a = 0; a < atoms; a++) first_edge[a + 1] += first_edge[a], first_witness[a + 1] += first_witness[a];
  }

  // rank_e = Σ_t s((d_e − d_t)/d0) over the pairs of its atom, s(x) = σ(x/(1 − (x/4)²)) (Liu et al. 2026, Eq. 9).
  void rank() {
    rank_.assign(edges, settings_.rank_offset);
    step_edge_.clear(), step_pair_.clear(), step_slope_.clear();
    for (int a = 0; a < atoms; a++)
      for (int e = first_edge[a]; e < first_edge[a + 1]; e++) {
        for (int p = first_edge[a]; p < first_edge[a + 1]; p++) add_step(e, p);
        for (int p = edges + first_witness[a]; p < edges + first_witness[a + 1]; p++) add_step(e, p);
      }
  }

  void add_step(int e, int p) {
    const double x = (distance[e] - distance[p]) / settings_.d0;
    if (x <= -SATURATED) return;
    if (x >= SATURATED) {
      rank_[e] += 1.0;
      return;
    }
    const double w = 1 - (x / SUPPORT) * (x / SUPPORT), s = 1 / (1 + std::exp(-x / w));
    rank_[e] += s;
    if (e == p) return;
    step_edge_.push_back(e), step_pair_.push_back(p);
    step_slope_.push_back(s * (1 - s) * (2 - w) / (w * w) / settings_.d0);
  }

  // log e = −f²/(1 − f²), f = β⁻¹ log Σ exp β(rank_out/k, rank_in/k, d/cutoff), and its slopes by these three.
  void weigh() {
    const GraphSettings& s = settings_;
    log_e.assign(edges, -INFINITY), seen.assign(edges, 0);
    of_out_.assign(edges, 0.0), of_in_.assign(edges, 0.0), of_length_.assign(edges, 0.0);
    for (int e = 0; e < edges; e++) {
      const double out = rank_[e] / s.k, in = s.mutual ? rank_[reverse[e]] / s.k : -INFINITY;
      const double length = distance[e] / s.cutoff, top = std::max(std::max(out, in), length);
      const double a = std::exp(s.beta * (out - top)), b = std::exp(s.beta * (in - top)),
                   c = std::exp(s.beta * (length - top)), f = top + std::log(a + b + c) / s.beta;
      if (!(f < s.f_max)) continue;
      log_e[e] = -f * f / (1 - f * f);
      if (!((float)log_e[e] > FAINT)) continue;
      seen[e] = 1;
      const double slope = -2 * f / ((1 - f * f) * (1 - f * f)) / (a + b + c);
      of_out_[e] = slope * a / s.k, of_in_[e] = slope * b / s.k, of_length_[e] = slope * c / s.cutoff;
    }
  }
};

// Which of the candidate pairs of a batch carry an edge, and which have a say in the rank of one (see graph/layout.py).
class Selection {
 public:
  std::vector<int64_t> source, target, shift, reverse;  // edges, then witnesses

  // H pairs in one direction each, and N atoms.
  void select(const GraphSettings& s, int64_t pairs, const int64_t* i, const int64_t* j, const int64_t* images,
              const double* distance, int64_t atoms) {
    sort(pairs, i, j, distance, atoms);
    std::vector<double> rank(2 * (size_t)pairs, INFINITY), reach(atoms, -INFINITY);
    for (int64_t a = 0; a < atoms; a++)
      for (int64_t p = first_[a]; p < first_[a + 1]; p++)
        if (length_[p] < s.cutoff) rank[name_[p]] = count(s, a, p);
    std::vector<char> edge(2 * (size_t)pairs, 0);
    for (int64_t h = 0; h < pairs; h++) {
      const double out = rank[h], in = rank[pairs + h];
      const bool both = s.mutual && weighs(s, out, in, distance[h]);
      edge[h] = s.mutual ? both : weighs(s, out, -INFINITY, distance[h]);
      edge[pairs + h] = s.mutual ? both : weighs(s, in, -INFINITY, distance[h]);
      if (edge[h]) reach[i[h]] = std::max(reach[i[h]], distance[h]);
      if (edge[pairs + h]) reach[j[h]] = std::max(reach[j[h]], distance[h]);
    }
    std::vector<int64_t> number(2 * (size_t)pairs, -1), chosen;
    for (int witness = 0; witness < 2; witness++)
      for (int64_t a = 0; a < atoms; a++)
        for (int64_t p = first_[a]; p < first_[a + 1]; p++) {
          const bool is_edge = edge[name_[p]];
          if (witness ? is_edge || !(length_[p] < reach[a] + SUPPORT * s.d0) : !is_edge) continue;
          if (!witness) number[name_[p]] = (int64_t)chosen.size();
          chosen.push_back(name_[p]);
        }
    name_pairs(chosen, number, pairs, i, j, images);
  }

 private:
  std::vector<int64_t> first_, name_;  // of each atom, its pairs by distance: h for i → j, H + h for j → i
  std::vector<double> length_;

  void sort(int64_t pairs, const int64_t* i, const int64_t* j, const double* distance, int64_t atoms) {
    first_.assign(atoms + 1, 0), name_.resize(2 * (size_t)pairs), length_.resize(2 * (size_t)pairs);
    for (int64_t h = 0; h < pairs; h++) first_[i[h] + 1]++, first_[j[h] + 1]++;
    for (int64_t a = 0; a < atoms; a++) first_[a + 1] += first_[a];
    std::vector<int64_t> next(first_.begin(), first_.end() - 1);
    for (int64_t h = 0; h < pairs; h++) name_[next[i[h]]++] = h;
    for (int64_t h = 0; h < pairs; h++) name_[next[j[h]]++] = pairs + h;
    auto length = [&](int64_t name) { return distance[name < pairs ? name : name - pairs]; };
    for (int64_t a = 0; a < atoms; a++)
      std::stable_sort(name_.begin() + first_[a], name_.begin() + first_[a + 1],
                       [&](int64_t x, int64_t y) { return length(x) < length(y); });
    for (size_t p = 0; p < name_.size(); p++) length_[p] = length(name_[p]);
  }

  // The rank of a pair among those of its atom, whose distances rise.
  double count(const GraphSettings& s, int64_t a, int64_t p) const {
    double total = s.rank_offset;
    for (int64_t q = first_[a]; q < first_[a + 1]; q++) {
      const double x = (length_[p] - length_[q]) / s.d0;
      if (x <= -SATURATED) break;
      total += x >= SATURATED ? 1.0 : 1 / (1 + std::exp(-x / (1 - (x / SUPPORT) * (x / SUPPORT))));
      if (total >= s.k) return INFINITY;
    }
    return total;
  }

  static bool weighs(const GraphSettings& s, double out, double in, double distance) {
    const double x = out / s.k, y = in / s.k, z = distance / s.cutoff, top = std::max(std::max(x, y), z);
    if (!(top < s.f_max)) return false;
    const double total = std::exp(s.beta * (x - top)) + std::exp(s.beta * (y - top)) + std::exp(s.beta * (z - top));
    return top + std::log(total) / s.beta < s.f_max;
  }

  void name_pairs(const std::vector<int64_t>& chosen, const std::vector<int64_t>& number, int64_t pairs,
                  const int64_t* i, const int64_t* j, const int64_t* images) {
    source.clear(), target.clear(), shift.clear(), reverse.clear();
    for (size_t p = 0; p < chosen.size(); p++) {
      const bool back = chosen[p] >= pairs;
      const int64_t h = back ? chosen[p] - pairs : chosen[p];
      source.push_back(back ? j[h] : i[h]), target.push_back(back ? i[h] : j[h]);
      for (int c = 0; c < 3; c++) shift.push_back(back ? -images[3 * h + c] : images[3 * h + c]);
      if (number[chosen[p]] >= 0) reverse.push_back(number[back ? h : pairs + h]);
    }
  }
};

// Real solid harmonics of unit vectors up to l_max and their slopes (see models/harmonics.py).
class Harmonics {
 public:
  int l_max = -1, count = 0;

  // slopes: (3, n, n) D with ∂Y_a/∂x_c = Σ_b D_cab Y_b; norms: (l_max + 1, l_max + 1).
  void set(int highest, const double* slopes, const double* norms) {
    l_max = highest, count = (l_max + 1) * (l_max + 1);
    for (int c = 0; c < 3; c++)
      for (int a = 0; a < count; a++)
        for (int b = 0; b < count; b++) {
          const double value = slopes[((size_t)c * count + a) * count + b];
          if (value != 0) terms_.push_back({c, a, b, value});
        }
    norms_.assign(norms, norms + (l_max + 1) * (l_max + 1));
  }

  void values(const double* u, double* y) const {
    const int n = l_max + 1;
    const double x = u[0], yy = u[1], z = u[2], r2 = x * x + yy * yy + z * z;
    double real[16] = {1}, imaginary[16] = {0}, q[16][16];
    for (int m = 0; m < l_max; m++) {
      real[m + 1] = x * real[m] - yy * imaginary[m];
      imaginary[m + 1] = x * imaginary[m] + yy * real[m];
    }
    q[0][0] = 1;
    for (int l = 1; l < n; l++) {
      q[l][l] = (2 * l - 1) * q[l - 1][l - 1];
      q[l][l - 1] = (2 * l - 1) * z * q[l - 1][l - 1];
      for (int m = 0; m < l - 1; m++)
        q[l][m] = ((2 * l - 1) * z * q[l - 1][m] - (l + m - 1) * r2 * q[l - 2][m]) / (l - m);
    }
    for (int l = 0; l < n; l++)
      for (int m = -l; m <= l; m++)
        y[l * (l + 1) + m] = norms_[l * n + std::abs(m)] * q[l][std::abs(m)] * (m < 0 ? imaginary[-m] : real[m]);
  }

  void pull(const double* y, const double* g, double* by_unit) const {
    for (const Term& t : terms_) by_unit[t.axis] += g[t.of] * t.value * y[t.from];
  }

  void push(const double* y, const double* d_unit, double* dy) const {
    for (int a = 0; a < count; a++) dy[a] = 0;
    for (const Term& t : terms_) dy[t.of] += d_unit[t.axis] * t.value * y[t.from];
  }

 private:
  struct Term {
    int axis, of, from;
    double value;
  };
  std::vector<Term> terms_;
  std::vector<double> norms_;
};

}  // namespace sfumato

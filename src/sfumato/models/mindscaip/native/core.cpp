// The plain C interface of the core; see core.py for the other side of it.
#include <exception>
#include <new>

#include "pass.h"

using namespace sfumato;

namespace {

// Addresses of weights and their places in the flat gradient, in the order of the network's own parameters.
struct Weights {
  const float* const* at;
  const int64_t* place;  // −1 for a weight that is not there
  int next = 0;

  const float* take(size_t& where) {
    const int i = next++;
    where = (size_t)place[i];
    return place[i] < 0 ? nullptr : at[i];
  }
  void take(Linear& linear, int out, int in) {
    linear.out = out, linear.in = in;
    linear.w = take(linear.at);
    linear.b = take(linear.at_bias);
  }
  void take(FeedForward& feed, int width, int hidden, int out, bool gated) {
    feed.hidden = hidden, feed.gated = gated;
    take(feed.up, hidden * (gated ? 2 : 1), width);
    take(feed.down, out, hidden);
  }
};

void connect(Network& net, Weights weights) {
  const Settings& s = net.s;
  const int C = s.width;
  net.sources = weights.take(net.at_sources);
  net.targets = weights.take(net.at_targets);
  net.itself = weights.take(net.at_itself);
  weights.take(net.geometry, C, s.radial + net.harmonics.count);
  weights.take(net.mix, C, C);
  net.layers.resize(s.layers);
  for (Layer& layer : net.layers) {
    for (Half& half : layer.half) {
      weights.take(half.qkv, 3 * s.inner, C);
      weights.take(half.out, C, s.inner);
      half.angles = weights.take(half.at_angles);
      weights.take(half.edge, C, s.hidden, C, s.gated);
      weights.take(half.node, C, s.hidden, C, s.gated);
    }
    weights.take(layer.readout, C, s.hidden, C, false);
  }
  weights.take(net.energy, C, s.hidden, 1, false);
}

template <class Do>
int guarded(Do act) {
  try {
    act();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  } catch (const std::exception&) {
    return 2;
  }
}

}  // namespace

extern "C" {

// Makes a network of weights that stay where they are; null if memory does not suffice.
Network* sfumato_network(const Settings* settings, const float* const* weights, const int64_t* places,
                         const double* centers, const double* slopes, const double* norms) {
  Network* net = nullptr;
  guarded([&] {
    net = new Network;
    net->s = *settings;
    net->centers = centers;
    if (settings->l_max >= 0) net->harmonics.set(settings->l_max, slopes, norms);
    connect(*net, {weights, places});
  });
  return net;
}

int sfumato_pack(Network* net) {
  return guarded([&] { net->pack(); });
}

void sfumato_free_network(Network* net) { delete net; }

Pass* sfumato_pass() { return new (std::nothrow) Pass; }

void sfumato_free_pass(Pass* pass) { delete pass; }

// What a pass holds for the next time.
int64_t sfumato_bytes(const Pass* pass) { return pass->bytes(); }

Selection* sfumato_selection() { return new (std::nothrow) Selection; }

void sfumato_free_selection(Selection* selection) { delete selection; }

// Chooses among H pairs of N atoms; says how many edges, and how many pairs there are.
int sfumato_select(Selection* selection, const GraphSettings* settings, int64_t pairs, const int64_t* i,
                   const int64_t* j, const int64_t* shift, const double* distance, int64_t atoms, int64_t* sizes) {
  return guarded([&] {
    selection->select(*settings, pairs, i, j, shift, distance, atoms);
    sizes[0] = (int64_t)selection->reverse.size(), sizes[1] = (int64_t)selection->source.size();
  });
}

// Copies what was chosen: sources, targets and shifts of pairs, reverses of edges.
void sfumato_selected(const Selection* selection, int64_t* source, int64_t* target, int64_t* shift, int64_t* reverse) {
  auto copy = [](const std::vector<int64_t>& from, int64_t* to) {
    if (!from.empty()) memcpy(to, from.data(), from.size() * sizeof(int64_t));
  };
  copy(selection->source, source), copy(selection->target, target);
  copy(selection->shift, shift), copy(selection->reverse, reverse);
}

// Structures begin … end of a batch; energies of their atoms. Distances and log e of their edges, if asked for.
int sfumato_forward(Pass* pass, const Network* net, const Topology* t, int64_t begin, int64_t end,
                    const double* positions, const double* cell, int learn, double* energies, double* distance,
                    double* log_e) {
  return guarded([&] {
    pass->forward(*net, *t, begin, end, positions, cell, learn != 0, energies);
    const Geometry& g = pass->geometry();
    if (distance) memcpy(distance, g.distance.data(), sizeof(double) * g.edges);
    if (log_e) memcpy(log_e, g.log_e.data(), sizeof(double) * g.edges);
  });
}

int sfumato_pull(Pass* pass, const double* extra_distance, const double* extra_log_e, double* forces,
                 double* strain) {
  return guarded([&] { pass->pull(extra_distance, extra_log_e, forces, strain); });
}

int sfumato_learn(Pass* pass, const double* c, const double* moves, const double* strain, float* gradients) {
  return guarded([&] { pass->learn(c, moves, strain, gradients); });
}
}

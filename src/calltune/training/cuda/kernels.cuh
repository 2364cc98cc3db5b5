// What lies between a layer's matrix products, one kernel each way.
//
// Sums are taken in float, results rounded once to T. `reference.py` says what each computes, in
// MLX operations; `tests/training/cuda/` compiles this file for the host, with one thread a block
// (LANES is 1 there), and compares the two.

#ifndef ON_HOST
#define LANES 32
#endif

namespace calltune {

// Below all that is compared with it, and finite.
constexpr float LOWEST = -3.0e38f;

// Four numbers that lie together, read and written at once.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

template <typename T>
__device__ Four<T> load(const T* from, int index) {
  return reinterpret_cast<const Four<T>*>(from)[index];
}

template <typename T>
__device__ void store(T* to, int index, const Four<T>& values) {
  reinterpret_cast<Four<T>*>(to)[index] = values;
}

__device__ inline float sum_of_lanes(float value) {
#ifndef ON_HOST
  for (int step = LANES / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffff, value, step);
  }
#endif
  return value;
}

__device__ inline float most_of_lanes(float value) {
#ifndef ON_HOST
  for (int step = LANES / 2; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, step));
  }
#endif
  return value;
}

// Two sums over the block, known to all of its threads; at most 1,024 of them.
__device__ inline float2 sum_of_block(float one, float other) {
  one = sum_of_lanes(one);
  other = sum_of_lanes(other);
#ifndef ON_HOST
  __shared__ float2 parts[LANES];
  const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  __syncthreads();
  if (lane == 0) {
    parts[warp] = make_float2(one, other);
  }
  __syncthreads();
  const bool has_part = lane * LANES < blockDim.x;
  one = sum_of_lanes(has_part ? parts[lane].x : 0.0f);
  other = sum_of_lanes(has_part ? parts[lane].y : 0.0f);
#endif
  return make_float2(one, other);
}

__device__ inline float most_of_block(float value) {
  value = most_of_lanes(value);
#ifndef ON_HOST
  __shared__ float parts[LANES];
  const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  __syncthreads();
  if (lane == 0) {
    parts[warp] = value;
  }
  __syncthreads();
  value = most_of_lanes(lane * LANES < blockDim.x ? parts[lane] : LOWEST);
#endif
  return value;
}

// --- Norms around a residual, and the LoRA products beside them: one block a row of D numbers ----

// values += sum over k of z[k] * matrix[k][4 i .. 4 i + 3], the matrix being (N, D).
template <typename T, int N, int D>
__device__ void add_products(float (&values)[4], const T* z, const T* matrix, int i) {
  for (int k = 0; k < N; k++) {
    const Four<T> row = load(matrix + k * D, i);
    const float factor = float(z[k]);
    for (int j = 0; j < 4; j++) {
      values[j] += factor * float(row.at[j]);
    }
  }
}

// sums[k] += values . matrix[k][4 i .. 4 i + 3]
template <typename T, int N, int D>
__device__ void take_products(float (&sums)[N], const Four<T>& values, const T* matrix, int i) {
  for (int k = 0; k < N; k++) {
    const Four<T> row = load(matrix + k * D, i);
    for (int j = 0; j < 4; j++) {
      sums[k] += float(values.at[j]) * float(row.at[j]);
    }
  }
}

// Sums over the block, written by its first thread.
template <typename T, int N>
__device__ void store_sums(const float (&sums)[N], T* to) {
  for (int k = 0; k < N; k += 2) {
    const float2 found = sum_of_block(sums[k], k + 1 < N ? sums[k + 1] : 0.0f);
    if (threadIdx.x == 0) {
      to[k] = T(found.x);
      if (k + 1 < N) {
        to[k + 1] = T(found.y);
      }
    }
  }
}

// r' = r + z b; h = x + norm(r') * post, or x + r'; y = norm(h) * next; next_z = y a'.
// b is (RANK, D), a is (NEXT, D); NEXT 0 leaves y and next_z out.
template <typename T, int D, int RANK, int NEXT, bool HAS_POST>
__device__ void add_and_norm(
    const T* r, const T* z, const T* b, const T* x, const T* post, const T* next, const T* a,
    T* h, T* y, T* next_z, float post_eps, float next_eps) {
  const long row = long(blockIdx.x) * D;
  r += row, x += row, h += row, z += long(blockIdx.x) * RANK;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
    const Four<T> rs = load(r, i);
    float values[4] = {float(rs.at[0]), float(rs.at[1]), float(rs.at[2]), float(rs.at[3])};
    add_products<T, RANK, D>(values, z, b, i);
    Four<T> sums;
    for (int j = 0; j < 4; j++) {
      sums.at[j] = T(values[j]);
      squares += float(sums.at[j]) * float(sums.at[j]);
    }
    // Only for this thread, until h takes its place.
    store(h, i, sums);
  }
  const float scale = HAS_POST ? rsqrtf(sum_of_block(squares, 0.0f).x / D + post_eps) : 1.0f;
  squares = 0.0f;
  for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
    const Four<T> rs = load(h, i), xs = load(x, i);
    Four<T> weights, sums;
    if (HAS_POST) {
      weights = load(post, i);
    }
    for (int j = 0; j < 4; j++) {
      const float value = float(rs.at[j]) * (HAS_POST ? scale * float(weights.at[j]) : 1.0f);
      sums.at[j] = T(float(xs.at[j]) + value);
      squares += float(sums.at[j]) * float(sums.at[j]);
    }
    store(h, i, sums);
  }
  if constexpr (NEXT > 0) {
    y += row, next_z += long(blockIdx.x) * NEXT;
    const float next_scale = rsqrtf(sum_of_block(squares, 0.0f).x / D + next_eps);
    float products[NEXT] = {};
    for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
      const Four<T> hs = load(h, i), weights = load(next, i);
      Four<T> normed;
      for (int j = 0; j < 4; j++) {
        normed.at[j] = T(float(hs.at[j]) * next_scale * float(weights.at[j]));
      }
      store(y, i, normed);
      take_products<T, NEXT, D>(products, normed, a, i);
    }
    store_sums<T, NEXT>(products, next_z);
  }
}

// dx = dh + the gradient through y, which gets dy and next_dz a; dr = dx through the first norm;
// dz = dr b'.
template <typename T, int D, int RANK, int NEXT, bool HAS_POST>
__device__ void add_and_norm_back(
    const T* r, const T* z, const T* b, const T* h, const T* post, const T* next, const T* a,
    const T* dh, const T* dy, const T* next_dz, T* dr, T* dz, T* dx,
    float post_eps, float next_eps) {
  const long row = long(blockIdx.x) * D;
  r += row, h += row, dh += row, dr += row, dx += row;
  z += long(blockIdx.x) * RANK, dz += long(blockIdx.x) * RANK;
  float scale = 0.0f, slope = 0.0f;
  if constexpr (NEXT > 0) {
    dy += row, next_dz += long(blockIdx.x) * NEXT;
    float squares = 0.0f, products = 0.0f;
    for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
      const Four<T> hs = load(h, i), dys = load(dy, i), weights = load(next, i);
      float values[4] = {float(dys.at[0]), float(dys.at[1]), float(dys.at[2]), float(dys.at[3])};
      add_products<T, NEXT, D>(values, next_dz, a, i);
      Four<T> sums;
      for (int j = 0; j < 4; j++) {
        sums.at[j] = T(values[j]);
        squares += float(hs.at[j]) * float(hs.at[j]);
        products += float(hs.at[j]) * float(sums.at[j]) * float(weights.at[j]);
      }
      // Only for this thread, until dx takes its place.
      store(dx, i, sums);
    }
    const float2 sums = sum_of_block(squares, products);
    scale = rsqrtf(sums.x / D + next_eps);
    slope = scale * scale * scale * sums.y / D;
  }
  float squares = 0.0f, products = 0.0f, to_z[RANK] = {};
  for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
    const Four<T> dhs = load(dh, i);
    Four<T> gradients;
    if (NEXT > 0) {
      const Four<T> hs = load(h, i), dys = load(dx, i), weights = load(next, i);
      for (int j = 0; j < 4; j++) {
        gradients.at[j] =
            T(float(dhs.at[j]) + scale * float(dys.at[j]) * float(weights.at[j]) -
              float(hs.at[j]) * slope);
      }
    } else {
      gradients = dhs;
    }
    store(dx, i, gradients);
    if (!HAS_POST) {
      store(dr, i, gradients);
      take_products<T, RANK, D>(to_z, gradients, b, i);
      continue;
    }
    const Four<T> rs = load(r, i), weights = load(post, i);
    float values[4] = {float(rs.at[0]), float(rs.at[1]), float(rs.at[2]), float(rs.at[3])};
    add_products<T, RANK, D>(values, z, b, i);
    Four<T> sums;
    for (int j = 0; j < 4; j++) {
      sums.at[j] = T(values[j]);
      squares += float(sums.at[j]) * float(sums.at[j]);
      products += float(sums.at[j]) * float(gradients.at[j]) * float(weights.at[j]);
    }
    // Only for this thread, until dr takes its place.
    store(dr, i, sums);
  }
  if (HAS_POST) {
    const float2 sums = sum_of_block(squares, products);
    scale = rsqrtf(sums.x / D + post_eps);
    slope = scale * scale * scale * sums.y / D;
    for (int i = threadIdx.x; i < D / 4; i += blockDim.x) {
      const Four<T> dxs = load(dx, i), rs = load(dr, i), weights = load(post, i);
      Four<T> gradients;
      for (int j = 0; j < 4; j++) {
        gradients.at[j] =
            T(scale * float(dxs.at[j]) * float(weights.at[j]) - float(rs.at[j]) * slope);
      }
      store(dr, i, gradients);
      take_products<T, RANK, D>(to_z, gradients, b, i);
    }
  }
  store_sums<T, RANK>(to_z, dz);
}

// --- q, k and v out of their common product: one warp a token and head -------------------------

// Where a token's head lies in the packed product and in its own array.
struct Head {
  int position;  // in its row
  int kind;      // 0 q, 1 k, 2 v
  long packed, own;
};

template <int H, int G, int D>
__device__ Head find_head(long index, int length) {
  const int heads = H + 2 * G, group = H / G;
  const long token = index / heads;
  const int head = index % heads;
  const long row = token / length;
  Head found;
  found.position = token % length;
  found.packed = index * D;
  if (head < H) {
    found.kind = 0;
    const long first = (row * G + head / group) * length + found.position;
    found.own = (first * group + head % group) * D;
  } else {
    found.kind = head < H + G ? 1 : 2;
    found.own = ((row * G + (head - H) % G) * length + found.position) * D;
  }
  return found;
}

// Norm (where HAS_NORM), rotation and scale of q; norm and rotation of k; v as it is.
template <typename T, int H, int G, int D, bool HAS_NORM>
__device__ void split_heads(
    const T* packed, const float* cosine, const float* sine, const T* q_weight, const T* k_weight,
    T* q, T* k, T* v, long n_tokens, int length, float eps, float q_scale) {
  const int lane = threadIdx.x % LANES;
  const long index = (long(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  if (index >= n_tokens * (H + 2 * G)) {
    return;
  }
  const Head head = find_head<H, G, D>(index, length);
  const T* from = packed + head.packed;
  if (head.kind == 2) {
    for (int i = lane; i < D; i += LANES) {
      v[head.own + i] = from[i];
    }
    return;
  }
  float scale = 1.0f;
  if (HAS_NORM) {
    float squares = 0.0f;
    for (int i = lane; i < D; i += LANES) {
      squares += float(from[i]) * float(from[i]);
    }
    scale = rsqrtf(sum_of_lanes(squares) / D + eps);
  }
  const T* weight = head.kind == 0 ? q_weight : k_weight;
  T* to = (head.kind == 0 ? q : k) + head.own;
  const float factor = head.kind == 0 ? q_scale : 1.0f;
  for (int i = lane; i < D / 2; i += LANES) {
    float low = float(from[i]), high = float(from[i + D / 2]);
    if (HAS_NORM) {
      low *= scale * float(weight[i]);
      high *= scale * float(weight[i + D / 2]);
    }
    const float c = cosine[head.position * (D / 2) + i], s = sine[head.position * (D / 2) + i];
    to[i] = T((low * c - high * s) * factor);
    to[i + D / 2] = T((low * s + high * c) * factor);
  }
}

template <typename T, int H, int G, int D, bool HAS_NORM>
__device__ void split_heads_back(
    const T* packed, const float* cosine, const float* sine, const T* q_weight, const T* k_weight,
    const T* dq, const T* dk, const T* dv, T* gradient,
    long n_tokens, int length, float eps, float q_scale) {
  const int lane = threadIdx.x % LANES;
  const long index = (long(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  if (index >= n_tokens * (H + 2 * G)) {
    return;
  }
  const Head head = find_head<H, G, D>(index, length);
  T* to = gradient + head.packed;
  if (head.kind == 2) {
    for (int i = lane; i < D; i += LANES) {
      to[i] = dv[head.own + i];
    }
    return;
  }
  const T* from = packed + head.packed;
  const T* turned = (head.kind == 0 ? dq : dk) + head.own;
  const T* weight = head.kind == 0 ? q_weight : k_weight;
  const float factor = head.kind == 0 ? q_scale : 1.0f;
  float scale = 1.0f, slope = 0.0f;
  if (HAS_NORM) {
    float squares = 0.0f, products = 0.0f;
    for (int i = lane; i < D / 2; i += LANES) {
      const float c = cosine[head.position * (D / 2) + i], s = sine[head.position * (D / 2) + i];
      const float a = float(turned[i]), b = float(turned[i + D / 2]);
      const float low = float(from[i]), high = float(from[i + D / 2]);
      squares += low * low + high * high;
      products += low * (a * c + b * s) * float(weight[i]);
      products += high * (b * c - a * s) * float(weight[i + D / 2]);
    }
    scale = rsqrtf(sum_of_lanes(squares) / D + eps);
    slope = scale * scale * scale * sum_of_lanes(products) / D;
  }
  for (int i = lane; i < D / 2; i += LANES) {
    const float c = cosine[head.position * (D / 2) + i], s = sine[head.position * (D / 2) + i];
    const float a = float(turned[i]), b = float(turned[i + D / 2]);
    float low = a * c + b * s, high = b * c - a * s;
    if (HAS_NORM) {
      low = scale * low * float(weight[i]) - slope * float(from[i]);
      high = scale * high * float(weight[i + D / 2]) - slope * float(from[i + D / 2]);
    }
    to[i] = T(low * factor);
    to[i + D / 2] = T(high * factor);
  }
}

// --- Attention's softmax over the positions a query sees: one warp a query ---------------------

// The first position that the query at `position` sees; WINDOW 0 is no window.
template <int WINDOW>
__device__ int first_seen(int position) {
  return WINDOW > 0 && position >= WINDOW ? position - WINDOW + 1 : 0;
}

template <typename T, int GROUP, int WINDOW>
__device__ void causal_softmax(const T* scores, T* shares, long n_queries, int length) {
  const int lane = threadIdx.x % LANES;
  const long query = (long(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  if (query >= n_queries) {
    return;
  }
  scores += query * length, shares += query * length;
  const int last = (query / GROUP) % length, first = first_seen<WINDOW>(last);
  float most = LOWEST;
  for (int i = first + lane; i <= last; i += LANES) {
    most = fmaxf(most, float(scores[i]));
  }
  most = most_of_lanes(most);
  float total = 0.0f;
  for (int i = first + lane; i <= last; i += LANES) {
    total += expf(float(scores[i]) - most);
  }
  const float share = 1.0f / sum_of_lanes(total);
  for (int i = lane; i < length; i += LANES) {
    const bool is_seen = first <= i && i <= last;
    shares[i] = T(is_seen ? expf(float(scores[i]) - most) * share : 0.0f);
  }
}

template <typename T, int GROUP, int WINDOW>
__device__ void causal_softmax_back(
    const T* shares, const T* dshares, T* dscores, long n_queries, int length) {
  const int lane = threadIdx.x % LANES;
  const long query = (long(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  if (query >= n_queries) {
    return;
  }
  const long row = query * length;
  shares += row, dshares += row, dscores += row;
  const int last = (query / GROUP) % length, first = first_seen<WINDOW>(last);
  float total = 0.0f;
  for (int i = first + lane; i <= last; i += LANES) {
    total += float(shares[i]) * float(dshares[i]);
  }
  total = sum_of_lanes(total);
  for (int i = lane; i < length; i += LANES) {
    const bool is_seen = first <= i && i <= last;
    dscores[i] = T(is_seen ? float(shares[i]) * (float(dshares[i]) - total) : 0.0f);
  }
}

// --- The gated activation of a feed-forward part: one thread four numbers ----------------------

struct Activated {
  float value, slope;
};

// GELU by tanh, or SiLU.
template <bool IS_GELU>
__device__ Activated activate(float x) {
  if (IS_GELU) {
    const float c = 0.7978845608028654f, d = 0.044715f;
    const float t = tanhf(c * (x + d * x * x * x));
    const float slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * c * (1.0f + 3 * d * x * x);
    return {0.5f * x * (1.0f + t), slope};
  }
  const float s = 1.0f / (1.0f + expf(-x));
  return {x * s, s * (1.0f + x * (1.0f - s))};
}

// packed (n, 2 * F): gate, then up.
template <typename T, int F, bool IS_GELU>
__device__ void gated(const T* packed, T* output, long n_rows) {
  const long index = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= n_rows * (F / 4)) {
    return;
  }
  const T* gate = packed + index / (F / 4) * (2 * F);
  const int i = index % (F / 4);
  const Four<T> gates = load(gate, i), ups = load(gate + F, i);
  Four<T> results;
  for (int j = 0; j < 4; j++) {
    // Rounded as the activation is where it is a function of its own.
    const float value = float(T(activate<IS_GELU>(float(gates.at[j])).value));
    results.at[j] = T(value * float(ups.at[j]));
  }
  store(output + index / (F / 4) * F, i, results);
}

template <typename T, int F, bool IS_GELU>
__device__ void gated_back(
    const T* packed, const T* doutput, T* dpacked, T* output, long n_rows) {
  const long index = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= n_rows * (F / 4)) {
    return;
  }
  const long row = index / (F / 4);
  const int i = index % (F / 4);
  const T* gate = packed + row * (2 * F);
  const Four<T> gates = load(gate, i), ups = load(gate + F, i), given = load(doutput + row * F, i);
  Four<T> dgates, dups, results;
  for (int j = 0; j < 4; j++) {
    const Activated found = activate<IS_GELU>(float(gates.at[j]));
    const float value = float(T(found.value));
    dgates.at[j] = T(float(given.at[j]) * float(ups.at[j]) * found.slope);
    dups.at[j] = T(float(given.at[j]) * value);
    results.at[j] = T(value * float(ups.at[j]));
  }
  store(dpacked + row * (2 * F), i, dgates);
  store(dpacked + row * (2 * F) + F, i, dups);
  store(output + row * F, i, results);
}

// --- Cross-entropy: one block a row of V logits ------------------------------------------------

// losses in nats, times the row's weight; gradient with respect to the logits, times it too.
template <typename T, int V>
__device__ void cross_entropy(
    const T* logits, const int* targets, const float* weights, float* losses, T* gradient) {
  logits += long(blockIdx.x) * V, gradient += long(blockIdx.x) * V;
  const int target = targets[blockIdx.x];
  const float weight = weights[blockIdx.x];
  float most = LOWEST, total = 0.0f;
  for (int i = threadIdx.x; i < V / 4; i += blockDim.x) {
    const Four<T> values = load(logits, i);
    float largest = most;
    for (int j = 0; j < 4; j++) {
      largest = fmaxf(largest, float(values.at[j]));
    }
    total *= expf(most - largest);
    for (int j = 0; j < 4; j++) {
      total += expf(float(values.at[j]) - largest);
    }
    most = largest;
  }
  const float top = most_of_block(most);
  // A thread without numbers has nothing to add.
  total = total > 0.0f ? total * expf(most - top) : 0.0f;
  total = sum_of_block(total, 0.0f).x;
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = (logf(total) + top - float(logits[target])) * weight;
  }
  for (int i = threadIdx.x; i < V / 4; i += blockDim.x) {
    const Four<T> values = load(logits, i);
    Four<T> results;
    for (int j = 0; j < 4; j++) {
      const float share = expf(float(values.at[j]) - top) / total;
      results.at[j] = T((share - (4 * i + j == target ? 1.0f : 0.0f)) * weight);
    }
    store(gradient, i, results);
  }
}

// --- Adam's update, without bias correction: one thread a number -------------------------------

// The gradient comes in PARTS arrays of `part_size` numbers, one a layer; all have the same mask.
// The rests are 1 - beta, rounded once: 1 - 0.999f is 1.7e-5 off 0.001.
template <typename T, int PARTS, bool HAS_MASK>
__device__ void adam(
    const T* const (&gradients)[PARTS], const float* mask, const float* weight, const float* m,
    const float* v, float factor, float learning_rate, float* new_weight, float* new_m,
    float* new_v, int part_size, float beta_1, float rest_1, float beta_2, float rest_2,
    float eps) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= PARTS * part_size) {
    return;
  }
  const int part = i / part_size, index = i % part_size;
  float g = 0.0f;
  for (int j = 0; j < PARTS; j++) {
    if (j == part) {
      g = float(gradients[j][index]) * factor;
    }
  }
  if (HAS_MASK) {
    g *= mask[index];
  }
  const float mean = beta_1 * m[i] + rest_1 * g;
  const float square = beta_2 * v[i] + rest_2 * g * g;
  new_m[i] = mean;
  new_v[i] = square;
  new_weight[i] = weight[i] - learning_rate * mean / (sqrtf(square) + eps);
}

}  // namespace calltune

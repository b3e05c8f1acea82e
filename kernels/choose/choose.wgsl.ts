export default /* wgsl */ `// Chooses the next token of each row, by the sampling rules in the row's record:
//
//   x = (logits + bias, less penalties) / temperature
//   e = exp(x − greatest), or 0 for tokens that top-k, top-p or min-p exclude
//   id = argmax e / noise, or the first id at which the running sum of e is above u · Σ e, or argmax x at temperature 0
//
// kernel.ts explains the equations. A workgroup owns a row. An invocation takes every 256th entry, or a block of
// neighbours if the order of ids matters. Floats are compared by their keys, which are unsigned integers with the same
// order. So the workgroup finds a maximum with an integer atomic, whose result does not depend on the order, and the
// topK-th greatest entry bit by bit, counting 32 times. For the same reason top-p adds up e as integers. Their unit is
// 2⁻³¹ times the sum of all e.
//
// Branches that contain barriers depend only on the records, which are read-only, so all invocations take the same
// branch.

struct Params { R: u32, V: u32, drawn: u32, T: u32, L: u32, K: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;         // (R, V)
@group(0) @binding(2) var<storage, read> noise: array<f32>;          // (drawn, V), above 0
@group(0) @binding(3) var<storage, read> records: array<f32>;        // (R, FIELDS)
@group(0) @binding(4) var<storage, read_write> state: array<i32>;    // (R, 4), see kernel.ts
@group(0) @binding(5) var<storage, read_write> tables: array<f32>;   // (T, 2, V): bias, seen
@group(0) @binding(6) var<storage, read_write> ids: array<i32>;      // (R)
@group(0) @binding(7) var<storage, read_write> likely: array<f32>;   // (L, K, 2): id, log-probability
@group(0) @binding(8) var<storage, read_write> workspace: array<f32>; // (R, V): x, then e

override has_tables: bool = false;
override has_likely: bool = false;

const LANES = 256u;
const SIGN = 0x80000000u;
const INFINITY_KEY = 0xff800000u;
const MINUS_INFINITY_KEY = 0x007fffffu;
const NAN_KEY = 0xffffffffu;
const UNIT = 2147483648.0;
const DAMAGED = -1;
const BANNED = -2;
const BY_STREAM = -2;

// Fields of a record, in the order of record.ts.
const TABLE = 0u;
const LIKELY = 1u;
const REPETITION_PENALTY = 2u;
const PRESENCE_PENALTY = 3u;
const FREQUENCY_PENALTY = 4u;
const TEMPERATURE = 5u;
const TOP_K = 6u;
const TOP_P = 7u;
const MIN_P = 8u;
const FIELDS = 9u;

var<workgroup> greatest_logit: atomic<u32>; // workgroup variables start as 0
var<workgroup> greatest: atomic<u32>;
var<workgroup> counts: array<atomic<u32>, 32>;
var<workgroup> below: array<atomic<u32>, 32>;
var<workgroup> best: atomic<u32>;
var<workgroup> from_end: atomic<u32>;
var<workgroup> sums: array<f32, LANES>;
var<workgroup> found: u32;
var<workgroup> chosen: i32;

/// The key of a float: the greater of two floats has the greater key. 0 and −0 have equal keys, NaN has the least key.
fn key_of(x: f32) -> u32 {
  let bits = select(bitcast<u32>(x), 0u, x == 0.0);
  let key = select(bits | SIGN, ~bits, bits >= SIGN);
  return select(key, 0u, key > INFINITY_KEY);
}

/// As key_of, but NaN has the greatest key, so that a maximum finds it.
fn sound_key(x: f32) -> u32 {
  let key = key_of(x);
  return select(key, NAN_KEY, key < MINUS_INFINITY_KEY);
}

fn float_of(key: u32) -> f32 { return bitcast<f32>(select(~key, key ^ SIGN, key >= SIGN)); }

fn is_finite(key: u32) -> bool { return key < INFINITY_KEY && key > MINUS_INFINITY_KEY; }

/// Adds up 'sums' into sums[0], with a barrier before and after.
fn add_up(lane: u32) {
  workgroupBarrier();
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    if (lane < stride) { sums[lane] += sums[lane + stride]; }
    workgroupBarrier();
  }
}

/// The index of the first greatest number in a row of the workspace, ignoring NaN.
fn first_greatest(first: u32, lane: u32) -> u32 {
  workgroupBarrier(); // all lanes have read the previous call's result
  if (lane == 0u) {
    atomicStore(&best, 0u);
    atomicStore(&from_end, 0u);
  }
  workgroupBarrier();
  var key = 0u;
  var place = 0u;
  for (var i = lane; i < params.V; i += LANES) {
    let each = key_of(workspace[first + i]);
    if (each > key) {
      key = each;
      place = i;
    }
  }
  atomicMax(&best, key);
  workgroupBarrier();
  // Among the lanes that found the greatest number, the lane that found it farthest from the end found it first.
  if (key == atomicLoad(&best)) { atomicMax(&from_end, params.V - place); }
  workgroupBarrier();
  return params.V - atomicLoad(&from_end);
}

/// The upper 32 bits of a · b, computed from 16-bit halves.
fn multiply_high(a: u32, b: u32) -> u32 {
  let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
  let carry = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (carry >> 16u);
}

/// A uniform number below 1: the upper 24 bits of Philox's first word, times 2⁻²⁴.
fn uniform_at(position: u32, seed: u32) -> f32 {
  var c = vec4u(position, 0xffffffffu, 0u, 0u);
  var key = vec2u(seed, 0u);
  for (var round = 0u; round < 10u; round++) {
    let high = vec2u(multiply_high(0xd2511f53u, c.x), multiply_high(0xcd9e8d57u, c.z));
    c = vec4u(high.y ^ c.y ^ key.x, 0xcd9e8d57u * c.z, high.x ^ c.w ^ key.y, 0xd2511f53u * c.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return f32(c.x >> 8u) * 0x1p-24;
}

@compute @workgroup_size(LANES)
fn choose(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.R) { return; }
  let V = params.V;
  let first = row * V;
  let record = row * FIELDS;
  let temperature = records[record + TEMPERATURE];
  let way = state[row * 4u + 2u];
  let noise_number = u32(state[row * 4u + 3u]);
  let block = (V + LANES - 1u) / LANES;
  let begin = min(lane * block, V);
  let end = min(begin + block, V);

  // Computes x, and the maxima of x and of the logits.
  let table = i32(records[record + TABLE]);
  let own = has_tables && table >= 0 && u32(table) < params.T;
  let bias = select(0u, u32(max(table, 0)) * 2u * V, own);
  let divisor = select(1.0, temperature, temperature > 0.0);
  var key = 0u;
  var raw_key = 0u;
  for (var i = lane; i < V; i += LANES) {
    var x = logits[first + i];
    raw_key = max(raw_key, sound_key(x));
    if (own) {
      let seen = tables[bias + V + i];
      x += tables[bias + i];
      let penalty = records[record + REPETITION_PENALTY];
      if (seen > 0.0) { x = select(x / penalty, x * penalty, x < 0.0); }
      if (seen >= 1.0) { x -= records[record + PRESENCE_PENALTY]; }
      x -= floor(seen) * records[record + FREQUENCY_PENALTY];
    }
    x /= divisor;
    workspace[first + i] = x;
    key = max(key, sound_key(x));
  }
  atomicMax(&greatest_logit, raw_key);
  atomicMax(&greatest, key);
  workgroupBarrier();
  let top = float_of(atomicLoad(&greatest));

  if (temperature > 0.0) {
    let topK = u32(records[record + TOP_K]);
    var least = 0u; // the key of the topK-th greatest x; 0 excludes nothing
    if (topK > 0u && topK < V) {
      for (var bit = 0u; bit < 32u; bit++) {
        let higher = least | (SIGN >> bit);
        var count = 0u;
        for (var i = lane; i < V; i += LANES) { count += select(0u, 1u, key_of(workspace[first + i]) >= higher); }
        atomicAdd(&counts[bit], count);
        workgroupBarrier();
        least = select(least, higher, atomicLoad(&counts[bit]) >= topK);
      }
    }
    var sum = 0.0;
    for (var i = lane; i < V; i += LANES) {
      let x = workspace[first + i];
      let e = select(exp(x - top), 0.0, key_of(x) < least || key_of(x) == MINUS_INFINITY_KEY);
      workspace[first + i] = e;
      sum += e;
    }

    let out = 1.0 - records[record + TOP_P];
    if (out > 0.0) {
      // Finds the greatest t such that all e below t add up to at most 'out' times the sum of all e. It is found bit by
      // bit, starting with the highest bit of 1, which is the greatest e.
      sums[lane] = sum;
      add_up(lane);
      let total = sums[0];
      let most = u32(min(out, 1.0) * UNIT);
      var t_bits = 0u;
      var under = 0u;
      for (var bit = 0u; bit < 30u; bit++) {
        let higher = t_bits | (0x20000000u >> bit);
        var part = 0.0;
        for (var i = lane; i < V; i += LANES) {
          let e = workspace[first + i];
          part += select(0.0, e, bitcast<u32>(e) < higher);
        }
        atomicAdd(&below[bit], u32(part / total * UNIT));
        workgroupBarrier();
        let reached = atomicLoad(&below[bit]);
        if (higher <= 0x3f800000u && reached <= most) {
          t_bits = higher;
          under = reached;
        }
      }
      // Then excludes tokens with e = t, in order, until no more of them fit into 'out', or only one of them is left.
      var equal = 0u;
      for (var i = lane; i < V; i += LANES) { equal += select(0u, 1u, bitcast<u32>(workspace[first + i]) == t_bits); }
      atomicAdd(&below[30], equal);
      storageBarrier();
      workgroupBarrier();
      if (lane == 0u) {
        let room = floor((out * total - f32(under) / UNIT * total) / bitcast<f32>(t_bits));
        var left = min(room, f32(atomicLoad(&below[30])) - 1.0);
        var at = 0u; // tokens with e = t before this one are excluded
        for (; at < V && left > 0.0; at++) { left -= select(0.0, 1.0, bitcast<u32>(workspace[first + at]) == t_bits); }
        found = at;
      }
      workgroupBarrier();
      for (var i = lane; i < V; i += LANES) {
        let bits = bitcast<u32>(workspace[first + i]);
        if (bits < t_bits || (bits == t_bits && i < found)) { workspace[first + i] = 0.0; }
      }
    }
    // A draw by noise takes the token with the greatest e / noise. Excluded tokens get 0 here, so they are never drawn.
    let share = min(records[record + MIN_P], 0.999999); // exp(0) may be slightly below 1
    for (var i = lane; i < V; i += LANES) {
      let e = workspace[first + i];
      let quotient = select(e / noise[noise_number % params.drawn * V + i], e, way == BY_STREAM);
      workspace[first + i] = select(quotient, 0.0, e < share || e == 0.0);
    }
  }
  storageBarrier();
  let winner = first_greatest(first, lane);
  var sum = 0.0;
  if (way == BY_STREAM) {
    for (var i = begin; i < end; i++) { sum += workspace[first + i]; }
  }
  sums[lane] = sum;
  workgroupBarrier();

  if (lane == 0u) {
    var id = i32(winner);
    if (way == BY_STREAM && temperature > 0.0) {
      var total = 0.0;
      for (var i = 0u; i < LANES; i++) { total += sums[i]; }
      let u = uniform_at(u32(state[row * 4u + 1u]), u32(state[row * 4u]));
      // The target is below the total: the greatest u is 1 − 2⁻²⁴, so the product rounds down. So some running sum is
      // above it.
      let target_sum = u * total;
      var at = 0u;
      var before = 0.0;
      while (at < LANES - 1u && before + sums[at] <= target_sum) {
        before += sums[at];
        at++;
      }
      var i = at * block;
      id = 0;
      for (let stop = min(i + block, V); i < stop; i++) {
        let e = workspace[first + i];
        if (e > 0.0) { id = i32(i); }
        before += e;
        if (before > target_sum) { break; }
      }
    }
    if (way >= 0) {
      id = min(way, i32(V) - 1);
    } else if (!is_finite(atomicLoad(&greatest_logit))) {
      id = DAMAGED;
    } else if (!is_finite(atomicLoad(&greatest))) {
      id = BANNED;
    }
    chosen = id;
    ids[row] = id;
    state[row * 4u + 1u] += 1;
    state[row * 4u + 3u] += i32(params.R);
    if (own && id >= 0) { tables[bias + V + u32(id)] += 1.0; }
  }

  let n = min(u32(records[record + LIKELY]), params.K);
  if (has_likely && n > 0u) {
    let into = noise_number % max(params.L, 1u) * params.K * 2u;
    let top_logit = float_of(atomicLoad(&greatest_logit));
    sum = 0.0;
    for (var i = lane; i < V; i += LANES) { sum += exp(logits[first + i] - top_logit); }
    workgroupBarrier(); // the draw has read 'sums'
    sums[lane] = sum;
    add_up(lane);
    let lost = log(sums[0]);
    for (var i = lane; i < V; i += LANES) { workspace[first + i] = logits[first + i]; }
    var id = chosen;
    for (var k = 0u; k < n; k++) {
      if (k > 0u) { id = i32(first_greatest(first, lane)); }
      let at = u32(max(id, 0));
      if (at % LANES == lane) {
        likely[into + k * 2u] = f32(id);
        likely[into + k * 2u + 1u] = logits[first + at] - top_logit - lost;
        if (k > 0u) { workspace[first + at] = bitcast<f32>(NAN_KEY | lane); } // excludes the token from the next search
      }
    }
  }
}
`;

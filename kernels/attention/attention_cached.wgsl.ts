export default /* wgsl */ `// Attention of new tokens to cached keys and values, in two passes.
//
// attention_cached_append writes each token's key and value to its place in its slot. A slot number outside the cache
// marks an idle token, which writes nothing; a position is clamped to 0 to S − 1. An invocation owns a 32-bit word: an
// f32, or two bf16, the first in the lower half. bf16 are rounded to nearest, ties to even.
//
// attention_cached: token n attends to places 0 to position[n] of its slot. Later places may hold anything. An idle
// token yields zeros.
//
//     S = q · k / √width,   P = exp(S − max) / Σ exp(S − max),   y = Σ P · v
//
// A workgroup owns one query of one head. It goes through the keys in blocks of 256 and tracks the maximum so far. If a
// block raises it, the sums so far are multiplied by exp(old − new). A lane first computes the score of one key of the
// block. Then the lanes are four teams of 64: a team takes every fourth value of the block, and lane l of a team adds
// up columns l, l + 64, … of these values. The teams' sums are added at the end.

struct Params { N: u32, heads: u32, width: u32, slots: u32, S: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (N, 3, heads, width)
@group(0) @binding(2) var<storage, read> slot: array<i32>; // (N)
@group(0) @binding(3) var<storage, read> position: array<i32>; // (N)
@group(0) @binding(4) var<storage, read_write> cache: array<u32>; // (slots, heads, S, 2, width), f32 or bf16: keys and values
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (N, heads, width)
override bf16_cache: bool = false;

const LANES = 256u;
const LOWEST = -3e38; // the score of a key that the query does not see
var<workgroup> query: array<f32, 256>; // width is at most 256
var<workgroup> weights: array<f32, LANES>;
var<workgroup> partial: array<vec4f, LANES>;

fn cached(at: u32) -> f32 {
  if (!bf16_cache) { return bitcast<f32>(cache[at]); }
  let word = cache[at / 2u];
  return bitcast<f32>(select(word & 0xffff0000u, word << 16u, at % 2u == 0u));
}

// Element c of head h of token n, counting through its key and then through its value.
fn given(n: u32, h: u32, c: u32) -> f32 {
  let part = c / params.width;
  return qkv[((n * 3u + 1u + part) * params.heads + h) * params.width + c % params.width];
}

fn bf16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; } // NaN
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

@compute @workgroup_size(64)
fn attention_cached_append(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = 2u * params.width; // elements of a token's key and value in one head
  let words = select(row, params.width, bf16_cache);
  let i = (group.x + group.y * groups.x) * 64u + lane; // index in (N, heads, words)
  let h = i / words % params.heads;
  let n = i / words / params.heads;
  if (n >= params.N) { return; }
  let number = u32(slot[n]); // −1 becomes a large number
  if (number >= params.slots) { return; }
  let place = u32(clamp(position[n], 0, i32(params.S) - 1));
  let into = ((number * params.heads + h) * params.S + place) * words + i % words;
  if (bf16_cache) {
    let first = 2u * (i % words);
    cache[into] = bf16(given(n, h, first)) | (bf16(given(n, h, first + 1u)) << 16u);
  } else {
    cache[into] = bitcast<u32>(given(n, h, i % words));
  }
}

@compute @workgroup_size(LANES)
fn attention_cached(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x; // index in (N, heads)
  if (row >= params.N * params.heads) { return; }
  let width = params.width;
  let h = row % params.heads;
  let n = row / params.heads;
  let number = u32(slot[n]); // −1 becomes a large number
  if (number >= params.slots) {
    for (var c = lane; c < width; c += LANES) { y[row * width + c] = 0.0; }
    return;
  }
  let stride = 2u * width; // elements from one token in the cache to the next
  let first_key = (number * params.heads + h) * params.S * stride;
  let first_value = first_key + width;
  let keys = u32(clamp(position[n], 0, i32(params.S) - 1)) + 1u;

  let first_query = (n * 3u * params.heads + h) * width;
  for (var c = lane; c < width; c += LANES) { query[c] = qkv[first_query + c]; }
  let column = lane % 64u;
  var greatest = LOWEST;
  var sum = 0.0; // over this lane's keys
  var out = vec4f(0.0); // at the columns column, column + 64, …
  for (var block = 0u; block < keys; block += LANES) {
    workgroupBarrier(); // query has been written; the previous block's weights have been read
    let there = block + lane < keys;
    var s = LOWEST;
    if (there) {
      s = 0.0;
      let at = first_key + (block + lane) * stride;
      for (var c = 0u; c < width; c++) { s += query[c] * cached(at + c); }
      s /= sqrt(f32(width));
    }
    weights[lane] = s;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
      if (lane < half) { weights[lane] = max(weights[lane], weights[lane + half]); }
      workgroupBarrier();
    }
    let before = greatest;
    greatest = max(greatest, weights[0]);
    workgroupBarrier();
    let p = select(0.0, exp(s - greatest), there);
    weights[lane] = p;
    workgroupBarrier();
    let shrink = exp(before - greatest);
    sum = sum * shrink + p;
    out *= shrink;
    for (var i = lane / 64u; i < min(LANES, keys - block); i += 4u) {
      let at = first_value + (block + i) * stride + column;
      for (var j = 0u; column + 64u * j < width; j++) { out[j] += weights[i] * cached(at + 64u * j); }
    }
  }

  workgroupBarrier();
  weights[lane] = sum;
  partial[lane] = out;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      weights[lane] += weights[lane + half];
      if (half >= 64u) { partial[lane] += partial[lane + half]; }
    }
    workgroupBarrier();
  }
  if (lane >= 64u) { return; }
  for (var j = 0u; column + 64u * j < width; j++) { y[row * width + column + 64u * j] = partial[lane][j] / weights[0]; }
}
`;

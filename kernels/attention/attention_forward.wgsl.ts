export default /* wgsl */ `// Causal self-attention, forward, as in FlashAttention (Dao et al. 2022, arXiv:2205.14135).
// For query t and keys s ≤ t of a head:
//
//     S = q · k / √width,   sum = Σ exp(S − max),   P = exp(S − max) / sum,   y = Σ dropout(P) · v
//
// A workgroup owns 32 queries of a head and 64 columns of their y; wider heads compute the scores again for each 64
// columns. It goes through the keys in blocks of 32 and tracks the maximum so far. If a block raises it, the sums so
// far are multiplied by exp(old − new). A lane owns four queries and four keys of a block's scores, then eight columns
// of the four queries' y. All sums run in the order of the keys, except the sum of exp(S − max), which each lane adds
// up for its own keys; the lanes' sums are added at the end.
//
// If a row holds several documents, a query sees only keys of its own document, and a workgroup starts at the block of
// keys in which the document of its first query begins. This relies on 'starts' not decreasing along a row.

struct Params { B: u32, T: u32, heads: u32, width: u32, seed: i32, stream: i32, threshold: i32, gain: f32 }
@group(0) @binding(0) var<uniform> params: Params;
// The functions qkv_four and y_put_four access four elements at once, which needs a width that is a multiple of 4. For
// other widths, and for short sequences, gpu.ts binds the operands as single elements and replaces these functions.
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // (B, T, 3, heads, width)
fn qkv_four(at: u32, count: u32) -> vec4f { return qkv[at / 4u]; }
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // (B, T, heads, width)
fn y_put_four(at: u32, count: u32, values: vec4f) { y[at / 4u] = values; }
@group(0) @binding(2) var<storage, read> offset: array<i32>; // one number; optional: without it nothing is dropped
@group(0) @binding(3) var<storage, read> starts: array<i32>; // (B, T); optional: without it a row is one document
@group(0) @binding(5) var<storage, read_write> row_statistics: array<f32>; // (2, B, heads, T): max and sum of a query
override has_offset: bool = false;
override has_starts: bool = false;

const BLOCK = 32u; // queries or keys of a block; also the columns that a score's sum takes at a time
const COLUMNS = 64u; // columns of the result
// Holds either 32 rows × 64 columns, indexed by row / 4 (plus 8 in the right half), row % 4, and the group of four
// columns that a vec4f holds; or two transposed tiles of 32 rows × 32 columns, indexed by column / 4 (plus 8 in the
// second tile), column % 4, and the group of four rows that a vec4f holds.
var<workgroup> tile: array<array<array<vec4f, 8>, 4>, 16>;
var<workgroup> weights: array<array<array<vec4f, 8>, 4>, 8>;
var<workgroup> statistics: array<vec4f, 64>; // by lane: the maxima, later the sums, of its four queries
const LOWEST = -3e38; // the score of a key that is not seen

var<private> lane: u32;
var<private> sequence: u32; // b
var<private> head: u32; // h
var<private> number: u32; // b · heads + h

// Four columns of token t's q, k or v (part 0, 1 or 2), from column c on; zeros outside the tensor.
fn four_of_qkv(part: u32, t: u32, c: u32) -> vec4f {
  if (t >= params.T || c >= params.width) { return vec4f(); }
  return qkv_four((((sequence * params.T + t) * 3u + part) * params.heads + head) * params.width + c, params.width - c);
}

// The last index at which transposed tiles and weights store group 'rows' of four rows, if q is the first index. The
// exclusive or puts the values that neighbouring lanes write at the same time into different banks.
fn slot(rows: u32, q: u32) -> u32 { return rows ^ q; }

// Stores this lane's four rows × four columns of a tile, transposed.
fn keep_transposed(first: u32, rows: mat4x4f) {
  let columns = transpose(rows);
  for (var i = 0u; i < 4u; i++) { tile[first + lane % 8u][i][slot(lane / 8u, lane % 8u)] = columns[i]; }
}

// Loads a tile, transposed: 32 rows × 32 columns of q, k or v, from token t and column c on.
fn load_transposed(first: u32, part: u32, t: u32, c: u32) {
  let row = t + lane / 8u * 4u;
  let x = c + lane % 8u * 4u;
  keep_transposed(
    first,
    mat4x4f(
      four_of_qkv(part, row, x), four_of_qkv(part, row + 1u, x), four_of_qkv(part, row + 2u, x),
      four_of_qkv(part, row + 3u, x),
    ),
  );
}

// Loads 32 rows × 64 columns of q, k or v, from token t and column c on.
fn load_rows(part: u32, t: u32, c: u32) {
  for (var i = lane; i < 512u; i += 64u) {
    let row = i / 16u;
    tile[i / 8u % 2u * 8u + row / 4u][row % 4u][i % 8u] = four_of_qkv(part, t + row, c + 4u * (i % 16u));
  }
}

// Adds the outer product of two vectors: column i of the result is sums[i] + a[i] · b.
fn add_outer(sums: mat4x4f, a: vec4f, b: vec4f) -> mat4x4f {
  return mat4x4f(
    fma(vec4f(a.x), b, sums[0]),
    fma(vec4f(a.y), b, sums[1]),
    fma(vec4f(a.z), b, sums[2]),
    fma(vec4f(a.w), b, sums[3]),
  );
}

// sums + the product of the two transposed tiles, for this lane's four queries (the matrix's rows) and four keys (its
// columns).
fn multiplied(sums: mat4x4f) -> mat4x4f {
  var total = sums;
  for (var q = 0u; q < 8u; q++) {
    for (var i = 0u; i < 4u; i++) {
      total = add_outer(total, tile[8u + q][i][slot(lane % 8u, q)], tile[q][i][slot(lane / 8u, q)]);
    }
  }
  return total;
}

// The dot products q · k of 32 queries, from token 'query' on, and 32 keys, from token 'key' on.
fn scores(query: u32, key: u32) -> mat4x4f {
  var sums = mat4x4f();
  for (var c = 0u; c < params.width; c += BLOCK) {
    workgroupBarrier(); // all lanes have read the tile
    load_transposed(0u, 0u, query, c);
    load_transposed(8u, 1u, key, c);
    workgroupBarrier();
    sums = multiplied(sums);
  }
  return sums;
}

// Adds Σ weights · tile, over the tile's 32 rows, to the sums of this lane's four queries. Each has eight sums:
// left[i] for four columns of the tile from 4 · (lane % 8) on, and right[i] for the columns 32 further to the right.
fn add_weighted(left: ptr<function, mat4x4f>, right: ptr<function, mat4x4f>) {
  for (var q = 0u; q < 8u; q++) {
    for (var i = 0u; i < 4u; i++) {
      let w = weights[q][i][slot(lane / 8u, q)];
      *left = add_outer(*left, w, tile[q][i][lane % 8u]);
      *right = add_outer(*right, w, tile[8u + q][i][lane % 8u]);
    }
  }
}

// m with column i multiplied by factors[i].
fn scaled(m: mat4x4f, factors: vec4f) -> mat4x4f {
  return mat4x4f(m[0] * factors.x, m[1] * factors.y, m[2] * factors.z, m[3] * factors.w);
}

fn store(t: u32, c: u32, values: vec4f) {
  if (t >= params.T || c >= params.width) { return; }
  let first = ((sequence * params.T + t) * params.heads + head) * params.width;
  y_put_four(first + c, params.width - c, values);
}

// The first key that query t of row b sees. A t after the end of the row counts as the row's last query.
fn first_key_of(b: u32, t: u32) -> u32 {
  if (!has_starts) { return 0u; }
  let query = min(t, params.T - 1u);
  return min(u32(max(starts[b * params.T + query], 0)), query);
}

// The first keys that queries t to t + 3 see.
fn first_keys_of(b: u32, t: u32) -> vec4u {
  return vec4u(first_key_of(b, t), first_key_of(b, t + 1u), first_key_of(b, t + 2u), first_key_of(b, t + 3u));
}

// The upper 32 bits of a product, computed from 16-bit halves.
fn multiply_high(a: u32, b: u32) -> u32 {
  let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
  let carry = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (carry >> 16u);
}

// The dropout factors of P for query t and keys s to s + 3: 0 or gain, by Philox4x32-10 (src/random/philox.ts).
fn dropout_factors(t: u32, s: u32) -> vec4f {
  if (!has_offset) { return vec4f(1.0); }
  let element = (number * params.T + t) * ((params.T + 3u) / 4u * 4u) + s;
  var c = vec4u(element >> 2u, bitcast<u32>(params.stream), bitcast<u32>(offset[0]), 0u);
  var key = vec2u(bitcast<u32>(params.seed), 0u);
  for (var round = 0u; round < 10u; round++) {
    let high = vec2u(multiply_high(0xd2511f53u, c.x), multiply_high(0xcd9e8d57u, c.z));
    c = vec4u(high.y ^ c.y ^ key.x, 0xcd9e8d57u * c.z, high.x ^ c.w ^ key.y, 0xd2511f53u * c.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return select(vec4f(0.0), vec4f(params.gain), (c >> vec4u(8u)) >= vec4u(u32(params.threshold)));
}

@compute @workgroup_size(64)
fn attention_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let blocks = (params.T + BLOCK - 1u) / BLOCK;
  let together = params.B * params.heads * ((params.width + COLUMNS - 1u) / COLUMNS);
  let index = group.x + group.y * groups.x;
  if (index >= blocks * together) { return; }
  lane = local;
  number = index % (params.B * params.heads);
  sequence = number / params.heads;
  head = number % params.heads;
  let column = index % together / (params.B * params.heads) * COLUMNS;
  let first_query = (blocks - 1u - index / together) * BLOCK; // queries with the most keys start first

  let query = first_query + 4u * (lane / 8u); // the first of this lane's four queries
  let queries = vec4u(query, query + 1u, query + 2u, query + 3u);
  let row = index % (params.B * params.heads) / params.heads; // b, as a variable that WGSL knows to be uniform
  let first_keys = first_keys_of(row, query);
  let four = lane % 8u; // this lane's four keys in a block, and its four columns, start at 4 · four
  let root = sqrt(f32(params.width));
  var greatest = vec4f(LOWEST);
  var sum = vec4f(0.0);
  var left = mat4x4f(); // a matrix column per query, with four columns of y from column + 4 · four on
  var right = mat4x4f(); // with four columns of y from column + 4 · four + 32 on
  var first_key = first_key_of(row, first_query) / BLOCK * BLOCK;
  for (; first_key < min(first_query + BLOCK, params.T); first_key += BLOCK) {
    let key = first_key + 4u * four;
    var s = scores(first_query, first_key);
    for (var k = 0u; k < 4u; k++) {
      let seen = (first_keys <= vec4u(key + k)) & (vec4u(key + k) <= queries);
      s[k] = select(vec4f(LOWEST), s[k] / root, seen);
    }

    statistics[lane] = max(max(s[0], s[1]), max(s[2], s[3]));
    workgroupBarrier();
    let before = greatest;
    for (var i = 0u; i < 8u; i++) { greatest = max(greatest, statistics[lane / 8u * 8u + i]); }

    var factor = mat4x4f(vec4f(1.0), vec4f(1.0), vec4f(1.0), vec4f(1.0));
    if (has_offset) {
      for (var q = 0u; q < 4u; q++) { factor[q] = dropout_factors(query + q, key); }
      factor = transpose(factor);
    }
    let shrink = exp(before - greatest);
    sum *= shrink;
    for (var k = 0u; k < 4u; k++) {
      let seen = (first_keys <= vec4u(key + k)) & (vec4u(key + k) <= queries);
      let p = select(vec4f(0.0), exp(s[k] - greatest), seen);
      sum += p;
      weights[four][k][slot(lane / 8u, four)] = p * factor[k];
    }
    load_rows(2u, first_key, column);
    workgroupBarrier();
    left = scaled(left, shrink);
    right = scaled(right, shrink);
    add_weighted(&left, &right);
  }

  workgroupBarrier(); // all lanes have read the previous maxima
  statistics[lane] = sum;
  workgroupBarrier();
  sum = vec4f(0.0);
  for (var i = 0u; i < 8u; i++) { sum += statistics[lane / 8u * 8u + i]; }
  for (var q = 0u; q < 4u; q++) {
    store(query + q, column + 4u * four, left[q] / sum[q]);
    store(query + q, column + 4u * four + 32u, right[q] / sum[q]);
    if (query + q < params.T && column == 0u && four == 0u) {
      let at = number * params.T + query + q;
      row_statistics[at] = greatest[q];
      row_statistics[params.B * params.heads * params.T + at] = sum[q];
    }
  }
}
`;

export default /* wgsl */ `// Backward pass of causal self-attention, in two passes. P is computed again from the saved
// maximum and sum of each query:
//
//     P = exp(S − max) / sum,   dP = dropout(dy · v),   D = Σ dy · y = Σ P · dP,   dS = P · (dP − D) / √width,
//     dq += Σ dS · k,   dk += Σ dS · q,   dv += Σ dropout(P) · dy
//
// attention_backward_queries computes dq, and D for the second pass. If nearly all of P falls on one key, dP − D nearly
// cancels, and the rounding error of y would be a large part of the result. So D₀ = Σ dy · y is only a first estimate,
// and E = Σ P · (dP − D₀) is its error: D = D₀ + E, and
//
//     dq += Σ P · (dP − D₀) / √width · k − E / √width · Σ P · k
//
// A workgroup owns 32 queries of a head and 64 columns of their dq; wider heads compute P and dP again for each 64
// columns. It goes through the keys in blocks of 32, and sums run in the order of the keys. A lane owns four queries
// and four keys of a block's P and dP, then eight columns of the four queries' dq.
//
// attention_backward_keys computes dk and dv. A workgroup owns 32 keys of a head and 64 columns of their dk and dv;
// wider heads compute dS again for each 64 columns. It goes through the queries in blocks of 32, starting at its own
// keys, and all sums run in the order of the queries. A lane owns four queries and four keys of a block's P and dS,
// then eight columns of four keys' dk and dv.
//
// If a row holds several documents, a workgroup of the first pass starts at the block of keys in which the document of
// its first query begins. A workgroup of the second pass ends before the first block of queries that see none of its
// keys. Both rely on 'starts' not decreasing along a row.

struct Params { B: u32, T: u32, heads: u32, width: u32, seed: i32, stream: i32, threshold: i32, gain: f32 }
@group(0) @binding(0) var<uniform> params: Params;
// The functions NAME_four and NAME_put_four access four elements of an operand at once, which needs a width that is a
// multiple of 4. For other widths, and for short sequences, gpu.ts binds the operands as single elements and replaces
// these functions.
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (B, T, heads, width)
fn dy_four(at: u32, count: u32) -> vec4f { return dy[at / 4u]; }
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // (B, T, 3, heads, width)
fn qkv_four(at: u32, count: u32) -> vec4f { return qkv[at / 4u]; }
@group(0) @binding(5) var<storage, read> y: array<vec4<f32>>; // (B, T, heads, width)
fn y_four(at: u32, count: u32) -> vec4f { return y[at / 4u]; }
@group(0) @binding(7) var<storage, read_write> dqkv: array<vec4<f32>>; // (B, T, 3, heads, width)
override fresh_dqkv: bool = false; // dqkv holds garbage: write instead of adding
fn dqkv_put_four(at: u32, count: u32, values: vec4f) { dqkv[at / 4u] = select(dqkv[at / 4u], vec4f(), fresh_dqkv) + values; }
@group(0) @binding(3) var<storage, read> offset: array<i32>; // one number; optional: without it nothing is dropped
@group(0) @binding(4) var<storage, read> starts: array<i32>; // (B, T); optional: without it a row is one document
@group(0) @binding(6) var<storage, read> row_statistics: array<f32>; // (2, B, heads, T): max and sum of a query
@group(0) @binding(8) var<storage, read_write> D: array<f32>; // the workspace: (B, heads, T)
override has_offset: bool = false;
override has_starts: bool = false;

const BLOCK = 32u; // queries or keys of a block; also the columns that a score's sum takes at a time
const COLUMNS = 64u; // columns of the result
// Holds either 32 rows × 64 columns, indexed by row / 4 (plus 8 in the right half), row % 4, and the group of four
// columns that a vec4f holds; or two transposed tiles of 32 rows × 32 columns, indexed by column / 4 (plus 8 in the
// second tile), column % 4, and the group of four rows that a vec4f holds.
var<workgroup> tile: array<array<array<vec4f, 8>, 4>, 16>;
var<workgroup> weights: array<array<array<vec4f, 8>, 4>, 8>;

var<private> lane: u32;
var<private> sequence: u32; // b
var<private> head: u32; // h
var<private> number: u32; // b · heads + h

// Four columns of token t's q, k, v or dy (part 0, 1, 2 or 3), from column c on; zeros outside the tensor.
fn four_of(part: u32, t: u32, c: u32) -> vec4f {
  if (t >= params.T || c >= params.width) { return vec4f(); }
  let token = sequence * params.T + t;
  if (part == 3u) { return dy_four((token * params.heads + head) * params.width + c, params.width - c); }
  return qkv_four(((token * 3u + part) * params.heads + head) * params.width + c, params.width - c);
}

// The last index at which transposed tiles and weights store group 'rows' of four rows, if q is the first index. The
// exclusive or puts the values that neighbouring lanes write at the same time into different banks.
fn slot(rows: u32, q: u32) -> u32 { return rows ^ q; }

// Stores this lane's four rows × four columns of a tile, transposed.
fn keep_transposed(first: u32, rows: mat4x4f) {
  let columns = transpose(rows);
  for (var i = 0u; i < 4u; i++) { tile[first + lane % 8u][i][slot(lane / 8u, lane % 8u)] = columns[i]; }
}

// Loads a tile, transposed: 32 rows × 32 columns of q, k, v or dy, from token t and column c on.
fn load_transposed(first: u32, part: u32, t: u32, c: u32) {
  let row = t + lane / 8u * 4u;
  let x = c + lane % 8u * 4u;
  keep_transposed(
    first,
    mat4x4f(four_of(part, row, x), four_of(part, row + 1u, x), four_of(part, row + 2u, x), four_of(part, row + 3u, x)),
  );
}

// Loads 32 rows × 64 columns of q, k, v or dy, from token t and column c on.
fn load_rows(part: u32, t: u32, c: u32) {
  for (var i = lane; i < 512u; i += 64u) {
    let row = i / 16u;
    tile[i / 8u % 2u * 8u + row / 4u][row % 4u][i % 8u] = four_of(part, t + row, c + 4u * (i % 16u));
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

// sums + the product of the two transposed tiles, for this lane's four queries (the matrix's columns) and four keys
// (its rows).
fn multiplied(sums: mat4x4f) -> mat4x4f {
  var total = sums;
  for (var q = 0u; q < 8u; q++) {
    for (var i = 0u; i < 4u; i++) {
      total = add_outer(total, tile[q][i][slot(lane / 8u, q)], tile[8u + q][i][slot(lane % 8u, q)]);
    }
  }
  return total;
}

// The dot products q · k or dy · v of 32 rows of part 'rows', from token 'query' on, with 32 rows of part 'columns',
// from token 'key' on.
fn products(rows: u32, query: u32, columns: u32, key: u32) -> mat4x4f {
  var sums = mat4x4f();
  for (var c = 0u; c < params.width; c += BLOCK) {
    workgroupBarrier(); // all lanes have read the tile
    load_transposed(0u, rows, query, c);
    load_transposed(8u, columns, key, c);
    workgroupBarrier();
    sums = multiplied(sums);
  }
  return sums;
}

// Adds Σ weights · tile, over the tile's 32 rows, to the sums of this lane's four queries or keys. Each has eight sums:
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

// The sum over the eight lanes that own the same queries.
fn sum_of_lanes(value: vec4f) -> vec4f {
  workgroupBarrier();
  weights[lane / 32u][lane / 8u % 4u][lane % 8u] = value;
  workgroupBarrier();
  var sum = vec4f(0.0);
  for (var i = 0u; i < 8u; i++) { sum += weights[lane / 32u][lane / 8u % 4u][i]; }
  return sum;
}

// dqkv += values, at four columns of token t's q, k or v (part 0, 1 or 2), from column c on.
fn add_to_gradient(part: u32, t: u32, c: u32, values: vec4f) {
  if (t >= params.T || c >= params.width) { return; }
  let first = (((sequence * params.T + t) * 3u + part) * params.heads + head) * params.width;
  dqkv_put_four(first + c, params.width - c, values);
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
fn attention_backward_queries(
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
  var greatest = vec4f(0.0);
  var sum = vec4f(1.0);
  var guess = vec4f(0.0); // D₀
  for (var q = 0u; q < 4u && query + q < params.T; q++) {
    let at = number * params.T + query + q;
    greatest[q] = row_statistics[at];
    sum[q] = row_statistics[params.B * params.heads * params.T + at];
    let first = ((sequence * params.T + query + q) * params.heads + head) * params.width;
    for (var c = 4u * four; c < params.width; c += 32u) {
      guess[q] += dot(dy_four(first + c, params.width - c), y_four(first + c, params.width - c));
    }
  }
  guess = sum_of_lanes(guess);
  var lack = vec4f(0.0); // E
  // Σ P · (dP − D₀) / √width · k: a matrix column per query, with four columns of k from column + 4 · four on
  var left = mat4x4f();
  var right = mat4x4f(); // with four columns of k from column + 4 · four + 32 on
  var mean_left = mat4x4f(); // Σ P · k
  var mean_right = mat4x4f();
  var first_key = first_key_of(row, first_query) / BLOCK * BLOCK;
  for (; first_key < min(first_query + BLOCK, params.T); first_key += BLOCK) {
    let key = first_key + 4u * four;
    var p = transpose(products(0u, first_query, 1u, first_key));
    let dp = transpose(products(3u, first_query, 2u, first_key));
    var factor = mat4x4f(vec4f(1.0), vec4f(1.0), vec4f(1.0), vec4f(1.0));
    if (has_offset) {
      for (var q = 0u; q < 4u; q++) { factor[q] = dropout_factors(query + q, key); }
      factor = transpose(factor);
    }
    workgroupBarrier(); // all lanes have read the previous weights and the tile
    for (var k = 0u; k < 4u; k++) {
      let seen = (first_keys <= vec4u(key + k)) & (vec4u(key + k) <= queries);
      p[k] = select(vec4f(0.0), exp(p[k] / root - greatest) / sum, seen);
      let difference = p[k] * (factor[k] * dp[k] - guess);
      lack += difference;
      weights[four][k][slot(lane / 8u, four)] = difference / root;
    }
    load_rows(1u, first_key, column);
    workgroupBarrier();
    add_weighted(&left, &right);

    workgroupBarrier();
    for (var k = 0u; k < 4u; k++) { weights[four][k][slot(lane / 8u, four)] = p[k]; }
    workgroupBarrier();
    add_weighted(&mean_left, &mean_right);
  }
  lack = sum_of_lanes(lack);
  for (var q = 0u; q < 4u; q++) {
    add_to_gradient(0u, query + q, column + 4u * four, left[q] - lack[q] / root * mean_left[q]);
    add_to_gradient(0u, query + q, column + 4u * four + 32u, right[q] - lack[q] / root * mean_right[q]);
    if (query + q < params.T && column == 0u && four == 0u) {
      D[number * params.T + query + q] = guess[q] + lack[q];
    }
  }
}

@compute @workgroup_size(64)
fn attention_backward_keys(
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
  let first_key = index / together * BLOCK; // keys with the most queries start first

  let four = lane % 8u; // this lane's four keys in a block, and its four columns, start at 4 · four
  let key = first_key + 4u * four;
  let keys = vec4u(key, key + 1u, key + 2u, key + 3u);
  let root = sqrt(f32(params.width));
  let row = index % (params.B * params.heads) / params.heads; // b, as a variable that WGSL knows to be uniform
  var dk_left = mat4x4f(); // a matrix column per key, with four columns of dk from column + 4 · four on
  var dk_right = mat4x4f(); // with four columns of dk from column + 4 · four + 32 on
  var dv_left = mat4x4f();
  var dv_right = mat4x4f();
  for (var first_query = first_key; first_query < params.T; first_query += BLOCK) {
    if (first_key_of(row, first_query) >= first_key + BLOCK) { break; }
    let query = first_query + 4u * (lane / 8u);
    var s = products(0u, first_query, 1u, first_key);
    let dp = products(3u, first_query, 2u, first_key);
    workgroupBarrier(); // all lanes have read the previous weights and the tile
    for (var q = 0u; q < 4u; q++) {
      var p = vec4f(0.0);
      var d = 0.0;
      if (query + q < params.T) {
        let at = number * params.T + query + q;
        let t = vec4u(query + q);
        let seen = (vec4u(first_key_of(row, query + q)) <= keys) & (keys <= t);
        let total = row_statistics[params.B * params.heads * params.T + at];
        p = select(vec4f(0.0), exp(s[q] / root - row_statistics[at]) / total, seen);
        d = D[at];
      }
      let factor = dropout_factors(query + q, key);
      weights[lane / 8u][q][slot(four, lane / 8u)] = p * factor;
      s[q] = p * (factor * dp[q] - d) / root; // dS
    }
    load_rows(3u, first_query, column);
    workgroupBarrier();
    add_weighted(&dv_left, &dv_right);

    workgroupBarrier(); // all lanes have read P and dy
    for (var q = 0u; q < 4u; q++) { weights[lane / 8u][q][slot(four, lane / 8u)] = s[q]; }
    load_rows(0u, first_query, column);
    workgroupBarrier();
    add_weighted(&dk_left, &dk_right);
  }
  let left = column + 4u * four;
  for (var k = 0u; k < 4u; k++) {
    let t = first_key + 4u * (lane / 8u) + k;
    add_to_gradient(1u, t, left, dk_left[k]);
    add_to_gradient(1u, t, left + 32u, dk_right[k]);
    add_to_gradient(2u, t, left, dv_left[k]);
    add_to_gradient(2u, t, left + 32u, dv_right[k]);
  }
}
`;

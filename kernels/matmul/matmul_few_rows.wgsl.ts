export default /* wgsl */ `// c = a · bᵀ, batched, for an a with few rows, as in decoding, when most of the time goes
// into reading b. K is a multiple of 4. gpu.ts replaces lines for a bias.
//
// A workgroup owns 8 columns of c, which are rows of b, and 4 rows of c. Each row of b is read by 32 invocations:
// invocation l multiplies elements of its row of b, in the groups of four number l, l + 32, …, with the elements at the
// same places in each row of a. The 32 sums are added by halves, so additions always have the same order.

struct Params { batch: u32, M: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (batch, M, K)
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>; // (batch, N, K): f32, two bf16 in a word, or q8_0
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (batch, M, N)
override fresh_c: bool = false; // c holds garbage: write instead of adding
override bf16_b: bool = false;
override q8_b: bool = false;

// Stores an element of c, given its index, its column and its sum.
fn finish(at: u32, column: u32, value: f32) { c[at] = select(c[at], 0.0, fresh_c) + value; }

// Four elements of b, from element 4 · at on. A word holds two bf16, the first in its lower half.
fn weight(at: u32) -> vec4f {
  if (q8_b) { // four integers per word; after all integers, one scale per 32
    let integers = bitcast<vec4i>(vec4u(b[at / 4u][at % 4u]) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
    let scale = (params.batch * params.N * params.K + 127u) / 128u * 32u + at / 8u;
    return vec4f(integers) * bitcast<f32>(b[scale / 4u][scale % 4u]);
  }
  if (!bf16_b) { return bitcast<vec4f>(b[at]); }
  let eight = b[at / 2u];
  let words = select(eight.xy, eight.zw, at % 2u == 1u);
  return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

const LANES = 32u;
const COLUMNS = 8u;
const ROWS = 4u;

var<workgroup> partial: array<vec4f, COLUMNS * LANES>; // one component per row

@compute @workgroup_size(COLUMNS * LANES)
fn matmul_few_rows(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let down = (params.M + ROWS - 1u) / ROWS;
  let across = (params.N + COLUMNS - 1u) / COLUMNS;
  let index = group.x + group.y * groups.x;
  if (index >= params.batch * down * across) { return; }
  let batch = index / (down * across);
  let row = index / across % down * ROWS;
  let column = index % across * COLUMNS + invocation / LANES;
  let lane = invocation % LANES;

  let fours = params.K / 4u;
  let rows = params.M - row;
  var sums = vec4f();
  if (column < params.N) {
    let in_a = (batch * params.M + row) * fours;
    let in_b = (batch * params.N + column) * fours;
    for (var k = lane; k < fours; k += LANES) {
      let weights = weight(in_b + k);
      sums.x += dot(weights, a[in_a + k]);
      if (rows > 1u) { sums.y += dot(weights, a[in_a + fours + k]); }
      if (rows > 2u) { sums.z += dot(weights, a[in_a + 2u * fours + k]); }
      if (rows > 3u) { sums.w += dot(weights, a[in_a + 3u * fours + k]); }
    }
  }
  partial[invocation] = sums;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[invocation] += partial[invocation + half]; }
    workgroupBarrier();
  }
  if (lane < min(rows, ROWS) && column < params.N) {
    finish((batch * params.M + row + lane) * params.N + column, column, partial[invocation - lane][lane]);
  }
}
`;

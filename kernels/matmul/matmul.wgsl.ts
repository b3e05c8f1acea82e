export default /* wgsl */ `// c += a · b, batched. As it stands, this text is for the form NN (see kernel.ts), tiles of
// 64, and rows of a, b and c whose lengths are multiples of 4. gpu.ts replaces lines for the forms NT and TN, tiles of
// 128, rows of other lengths, a bias, and K in parts.
//
// A workgroup owns a tile of TILE × TILE elements of c. Each of its (TILE / 8)² invocations owns 8 × 8 of them, as four
// matrices of 4 × 4 in its registers. The workgroup goes through K by steps of 16. One step's TILE rows of a and TILE
// columns of b are in the workgroup's memory (16 KiB in a large tile, which is all that is portable) while the next step
// is fetched into registers. If there are p times as many workgroups as tiles, K is cut into p parts, and each workgroup
// owns one part. An element adds its products in the order of k.

const TILE = 64u; // or 128
const A_ALONG_K = true; // whether a row of a runs along K, as in NN and NT; else, in TN, along M
const B_ALONG_K = false; // whether a row of b runs along K, as in NT; else along N
const WIDTH = 4u; // elements in an A, B or C: 4 or 1
alias A = vec4<f32>; // or f32
alias B = vec4<u32>; // or u32: f32, two bf16 in a word, or q8_0
alias C = vec4<f32>; // or f32
struct Params { batch: u32, M: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<A>; // (batch, M, K), in TN (batch, K, M)
@group(0) @binding(2) var<storage, read> b: array<B>; // (batch, K, N), in NT (batch, N, K)
@group(0) @binding(3) var<storage, read_write> c: array<C>; // (batch, M, N)
override fresh_c: bool = false; // c holds garbage: write instead of adding
override bf16_b: bool = false;
override q8_b: bool = false;

// in_c: element i of four as an element of c, or all four if an element of c is a vector. finish: stores a value, given
// its part of K, its index in c and its column.
fn in_c(four: vec4f, i: u32) -> C { return four; }
fn finish(part: u32, at: u32, column: u32, value: C) { c[at] = select(c[at], C(), fresh_c) + value; }

// Four neighbouring elements in a row of a; zeros outside of a.
fn a_four(batch: u32, row: u32, at: u32) -> vec4f {
  let rows = select(params.K, params.M, A_ALONG_K);
  let length = select(params.M, params.K, A_ALONG_K);
  let first = (batch * rows + row) * length + at;
  var four = vec4f();
  if (row >= rows || at >= length) { return four; }
  if (WIDTH == 4u) { return vec4f(a[first / 4u]); }
  for (var i = 0u; i < 4u && at + i < length; i++) { four[i] = vec4f(a[first + i]).x; }
  return four;
}
fn word_of_b(at: u32) -> u32 { return vec4u(b[at / WIDTH])[at % WIDTH]; }
// Four neighbouring elements in a row of b; zeros outside of b. A word holds two bf16, the first in its lower half, or
// four integers of q8_0. In q8_0 the lengths of rows are multiples of 32; after all integers, one scale per 32 follows.
fn b_four(batch: u32, row: u32, at: u32) -> vec4f {
  let rows = select(params.K, params.N, B_ALONG_K);
  let length = select(params.N, params.K, B_ALONG_K);
  let first = (batch * rows + row) * length + at;
  var four = vec4f();
  if (row >= rows || at >= length) { return four; }
  if (q8_b) {
    let integers = bitcast<vec4i>(vec4u(word_of_b(first / 4u)) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
    let scales = (params.batch * params.N * params.K + 127u) / 128u * 32u;
    return vec4f(integers) * bitcast<f32>(word_of_b(scales + first / 32u));
  }
  if (WIDTH == 4u) {
    if (!bf16_b) { return bitcast<vec4f>(vec4u(b[first / 4u])); }
    let eight = vec4u(b[first / 8u]);
    let words = select(eight.xy, eight.zw, first / 4u % 2u == 1u);
    return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
  }
  for (var i = 0u; i < 4u && at + i < length; i++) {
    let element = first + i;
    let word = vec4u(b[select(element, element / 2u, bf16_b)]).x;
    let widened = select(word << 16u, word & 0xffff0000u, element % 2u == 1u);
    four[i] = bitcast<f32>(select(word, widened, bf16_b));
  }
  return four;
}
// Stores four neighbouring elements of c, all at once or one by one.
fn put(part: u32, batch: u32, row: u32, column: u32, four: vec4f) {
  for (var i = 0u; i < 4u / WIDTH; i++) {
    if (row >= params.M || column + i >= params.N) { return; }
    let at = ((batch * params.M + row) * params.N + column + i) / WIDTH;
    finish(part, at, (column + i) / WIDTH, in_c(four, i));
  }
}

const STEP = 16u;
const FOURS = TILE / 4u; // groups of four rows, or of four columns, in a tile
const HALF = FOURS / 2u; // an invocation owns two groups of rows and two groups of columns, HALF apart
const LANES = TILE * TILE / 64u;

// One step's rows of a and columns of b, in groups of four, indexed by k / 4, k % 4, and slot.
var<workgroup> left: array<array<array<vec4f, FOURS>, 4>, 4>;
var<workgroup> right: array<array<array<vec4f, FOURS>, 4>, 4>;

// The sums. c0_ belongs to the invocation's first group of four rows, c1_ to its second group; c_0 and c_1 likewise for
// columns.
var<private> c00: mat4x4f;
var<private> c01: mat4x4f;
var<private> c10: mat4x4f;
var<private> c11: mat4x4f;

// Where group 'four' of rows or columns is stored for quarter q of a step. The exclusive or puts the values that
// neighbouring invocations write at the same time into different banks.
fn slot(four: u32, q: u32) -> u32 { return four ^ (2u * q); }

// A block is four rows of a, or four columns of b, in a quarter of a step. Returns the numbers of the group of four and
// of the quarter, chosen so that neighbouring invocations fetch neighbouring elements.
fn place(block: u32, along_k: bool) -> vec2u {
  if (along_k) { return vec2u(block / 4u, block % 4u); }
  return vec2u(block % FOURS, block / FOURS);
}

// Four rows of a in a block. Column i of the matrix holds their elements at k + i.
fn a_block(batch: u32, row: u32, k: u32) -> mat4x4f {
  if (A_ALONG_K) {
    return transpose(
      mat4x4f(
        a_four(batch, row, k), a_four(batch, row + 1u, k), a_four(batch, row + 2u, k), a_four(batch, row + 3u, k),
      ),
    );
  }
  return mat4x4f(
    a_four(batch, k, row), a_four(batch, k + 1u, row), a_four(batch, k + 2u, row), a_four(batch, k + 3u, row),
  );
}
fn b_block(batch: u32, k: u32, column: u32) -> mat4x4f {
  if (B_ALONG_K) {
    return transpose(
      mat4x4f(
        b_four(batch, column, k), b_four(batch, column + 1u, k), b_four(batch, column + 2u, k),
        b_four(batch, column + 3u, k),
      ),
    );
  }
  return mat4x4f(
    b_four(batch, k, column), b_four(batch, k + 1u, column), b_four(batch, k + 2u, column),
    b_four(batch, k + 3u, column),
  );
}

// The blocks that an invocation has fetched. In a large tile, half of the invocations fetch a block of a and the other
// half one of b; in a small tile, each invocation fetches both.
var<private> next: mat4x4f;
var<private> next_b: mat4x4f;

fn fetch(lane: u32, batch: u32, first_row: u32, first_column: u32, k: u32) {
  let in_a = place(lane % TILE, A_ALONG_K) * 4u;
  let in_b = place(lane % TILE, B_ALONG_K) * 4u;
  if (TILE == 64u || lane < TILE) {
    next = a_block(batch, first_row + in_a.x, k + in_a.y);
  } else {
    next = b_block(batch, k + in_b.y, first_column + in_b.x);
  }
  if (TILE == 64u) { next_b = b_block(batch, k + in_b.y, first_column + in_b.x); }
}

fn keep_left(block: u32, fours: mat4x4f) {
  let at = place(block, A_ALONG_K);
  let four = slot(at.x, at.y);
  left[at.y][0][four] = fours[0];
  left[at.y][1][four] = fours[1];
  left[at.y][2][four] = fours[2];
  left[at.y][3][four] = fours[3];
}
fn keep_right(block: u32, fours: mat4x4f) {
  let at = place(block, B_ALONG_K);
  let four = slot(at.x, at.y);
  right[at.y][0][four] = fours[0];
  right[at.y][1][four] = fours[1];
  right[at.y][2][four] = fours[2];
  right[at.y][3][four] = fours[3];
}
fn keep(lane: u32) {
  if (TILE == 64u || lane < TILE) { keep_left(lane, next); } else { keep_right(lane % TILE, next); }
  if (TILE == 64u) { keep_right(lane, next_b); }
}

// sums + rows · columnsᵀ. Column i of the matrix holds the sums of row i.
fn add_outer(sums: mat4x4f, rows: vec4f, columns: vec4f) -> mat4x4f {
  return mat4x4f(
    fma(vec4f(rows.x), columns, sums[0]),
    fma(vec4f(rows.y), columns, sums[1]),
    fma(vec4f(rows.z), columns, sums[2]),
    fma(vec4f(rows.w), columns, sums[3]),
  );
}
fn multiply(i: u32, j: u32, q: u32, k: u32) {
  let rows0 = left[q][k][i];
  let rows1 = left[q][k][i + HALF];
  let columns0 = right[q][k][j];
  let columns1 = right[q][k][j + HALF];
  c00 = add_outer(c00, rows0, columns0);
  c01 = add_outer(c01, rows0, columns1);
  c10 = add_outer(c10, rows1, columns0);
  c11 = add_outer(c11, rows1, columns1);
}

fn put_block(part: u32, batch: u32, row: u32, column: u32, values: mat4x4f) {
  put(part, batch, row, column, values[0]);
  put(part, batch, row + 1u, column, values[1]);
  put(part, batch, row + 2u, column, values[2]);
  put(part, batch, row + 3u, column, values[3]);
}

@compute @workgroup_size(LANES)
fn matmul(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let down = (params.M + TILE - 1u) / TILE;
  let across = (params.N + TILE - 1u) / TILE;
  let tiles = params.batch * down * across;
  let parts = groups.x * groups.y / tiles;
  let index = group.x + group.y * groups.x;
  if (index >= tiles * parts) { return; }
  let part = index / tiles;
  let batch = index / (down * across) % params.batch;
  let first_row = index / across % down * TILE;
  let first_column = index % across * TILE;
  let part_of_k = ((params.K + parts - 1u) / parts + STEP - 1u) / STEP * STEP;
  let end = min(params.K, (part + 1u) * part_of_k);

  // The numbers of this invocation's first group of rows and of columns. 32 neighbouring invocations own 4 × 8 groups.
  let i = lane / 8u % 4u + lane / (4u * HALF) * 4u;
  let j = lane % 8u + lane / 32u % (HALF / 8u) * 8u;

  // The memory holds one step while the next is fetched: the first round only fetches, the last only multiplies.
  let begin = part * part_of_k;
  for (var k = begin; k < end + STEP; k += STEP) {
    if (k < end) { fetch(lane, batch, first_row, first_column, k); }
    if (k > begin) {
      for (var q = 0u; q < 4u; q++) {
        multiply(slot(i, q), slot(j, q), q, 0u);
        multiply(slot(i, q), slot(j, q), q, 1u);
        multiply(slot(i, q), slot(j, q), q, 2u);
        multiply(slot(i, q), slot(j, q), q, 3u);
      }
    }
    workgroupBarrier();
    if (k < end) { keep(lane); }
    workgroupBarrier();
  }
  put_block(part, batch, first_row + 4u * i, first_column + 4u * j, c00);
  put_block(part, batch, first_row + 4u * i, first_column + 4u * (j + HALF), c01);
  put_block(part, batch, first_row + 4u * (i + HALF), first_column + 4u * j, c10);
  put_block(part, batch, first_row + 4u * (i + HALF), first_column + 4u * (j + HALF), c11);
}
`;

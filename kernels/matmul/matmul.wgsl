// c += a · b, batched. kernel.ts appends what differs between the forms: Params; TILE, 128 or 64; where an element of a and of b
// lies, and along which axis neighbours do; and `finish`, for accumulation or a bias.
//
// A workgroup owns a tile of TILE × TILE elements of c, and each of its 16 × 16 invocations 8 × 8 of them (4 × 4 in a small tile),
// in matrices of 4 × 4 in its registers. It goes through K by steps of 16: of those, TILE rows of a and TILE columns of b lie in the
// workgroup's memory while the next are fetched into registers. Each element adds its products in the order of k.

const STEP = 16u;
const FOURS = TILE / 4u; // a tile's rows or columns, by fours

var<workgroup> left: array<vec4f, STEP * FOURS>; // four rows of a at one k
var<workgroup> right: array<vec4f, STEP * FOURS>; // four columns of b at one k

// Where four lie. The exclusive or puts what neighbours write or read at one time into different banks.
fn slot(four: u32, k: u32) -> u32 {
  return k * FOURS + (four ^ (k % 8u));
}

fn a_element(batch: u32, row: u32, k: u32) -> f32 {
  return select(0.0, a[batch * params.M * params.K + a_place(row, k)], row < params.M && k < params.K);
}
fn b_element(batch: u32, k: u32, column: u32) -> f32 {
  return select(0.0, b[batch * params.K * params.N + b_place(k, column)], k < params.K && column < params.N);
}
fn a_four(batch: u32, row: u32, k: u32) -> vec4f {
  return vec4f(
    a_element(batch, row, k), a_element(batch, row + 1u, k), a_element(batch, row + 2u, k), a_element(batch, row + 3u, k),
  );
}
fn b_four(batch: u32, k: u32, column: u32) -> vec4f {
  return vec4f(
    b_element(batch, k, column), b_element(batch, k, column + 1u), b_element(batch, k, column + 2u),
    b_element(batch, k, column + 3u),
  );
}

// Which four, and which k of a step, an invocation fetches: neighbours fetch what lies side by side. A large tile has two for
// each; the second has OTHER_FOUR or OTHER_K added.
fn fetched(lane: u32, along_k: bool) -> vec2u {
  return select(vec2u(lane % FOURS, lane / FOURS), vec2u(lane / STEP, lane % STEP), along_k);
}
fn second(along_k: bool) -> vec2u {
  return select(vec2u(0u, 256u / FOURS), vec2u(256u / STEP, 0u), along_k);
}

// Four rows times four columns; element [i][j] is row i's and column j's.
fn outer(rows: vec4f, columns: vec4f) -> mat4x4f {
  return mat4x4f(columns * rows.x, columns * rows.y, columns * rows.z, columns * rows.w);
}

fn put(batch: u32, row: u32, column: u32, value: f32) {
  if (row >= params.M || column >= params.N) { return; }
  let at = (batch * params.M + row) * params.N + column;
  c[at] = finish(c[at], column, value);
}
fn put_row(batch: u32, row: u32, column: u32, values: vec4f) {
  put(batch, row, column, values.x);
  put(batch, row, column + 1u, values.y);
  put(batch, row, column + 2u, values.z);
  put(batch, row, column + 3u, values.w);
}
fn put_all(batch: u32, row: u32, column: u32, values: mat4x4f) {
  put_row(batch, row, column, values[0]);
  put_row(batch, row + 1u, column, values[1]);
  put_row(batch, row + 2u, column, values[2]);
  put_row(batch, row + 3u, column, values[3]);
}

@compute @workgroup_size(256)
fn matmul(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let down = (params.M + TILE - 1u) / TILE;
  let across = (params.N + TILE - 1u) / TILE;
  let index = group.x + group.y * groups.x;
  if (index >= params.batch * down * across) { return; }
  let batch = index / (down * across);
  let first_row = index / across % down * TILE;
  let first_column = index % across * TILE;

  let a0 = fetched(lane, A_ALONG_K);
  let b0 = fetched(lane, B_ALONG_K);
  let a1 = a0 + second(A_ALONG_K);
  let b1 = b0 + second(B_ALONG_K);
  let i = lane / 16u;
  let j = lane % 16u;
  var c00 = mat4x4f();
  var c01 = mat4x4f();
  var c10 = mat4x4f();
  var c11 = mat4x4f();

  var next_a0 = a_four(batch, first_row + 4u * a0.x, a0.y);
  var next_b0 = b_four(batch, b0.y, first_column + 4u * b0.x);
  var next_a1 = vec4f();
  var next_b1 = vec4f();
  if (TILE == 128u) {
    next_a1 = a_four(batch, first_row + 4u * a1.x, a1.y);
    next_b1 = b_four(batch, b1.y, first_column + 4u * b1.x);
  }
  for (var k0 = 0u; k0 < params.K; k0 += STEP) {
    left[slot(a0.x, a0.y)] = next_a0;
    right[slot(b0.x, b0.y)] = next_b0;
    if (TILE == 128u) {
      left[slot(a1.x, a1.y)] = next_a1;
      right[slot(b1.x, b1.y)] = next_b1;
    }
    workgroupBarrier();
    let k1 = k0 + STEP;
    if (k1 < params.K) {
      next_a0 = a_four(batch, first_row + 4u * a0.x, k1 + a0.y);
      next_b0 = b_four(batch, k1 + b0.y, first_column + 4u * b0.x);
      if (TILE == 128u) {
        next_a1 = a_four(batch, first_row + 4u * a1.x, k1 + a1.y);
        next_b1 = b_four(batch, k1 + b1.y, first_column + 4u * b1.x);
      }
    }
    for (var k = 0u; k < STEP; k++) {
      let rows0 = left[slot(i, k)];
      let columns0 = right[slot(j, k)];
      c00 += outer(rows0, columns0);
      if (TILE == 128u) {
        let rows1 = left[slot(i + 16u, k)];
        let columns1 = right[slot(j + 16u, k)];
        c01 += outer(rows0, columns1);
        c10 += outer(rows1, columns0);
        c11 += outer(rows1, columns1);
      }
    }
    workgroupBarrier();
  }
  let row = first_row + 4u * i;
  let column = first_column + 4u * j;
  put_all(batch, row, column, c00);
  if (TILE == 128u) {
    put_all(batch, row, column + 64u, c01);
    put_all(batch, row + 64u, column, c10);
    put_all(batch, row + 64u, column + 64u, c11);
  }
}

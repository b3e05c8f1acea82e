// c = a · bᵀ, batched, where a has few rows: decoding's products, in which reading b takes the time. gpu.ts appends
// Params, the bindings, `weight`, which reads b, and `finish`, for accumulation or a bias. K is a multiple of 4.
//
// A workgroup owns 8 columns of c, rows of b, in 4 rows. 32 invocations go along each of them: invocation l takes the fours
// l, l + 32, … of its row of b, with those of each row of a. The 32 sums are added by halves, so additions have the same
// order each time.

const LANES = 32u;
const COLUMNS = 8u;
const ROWS = 4u;

var<workgroup> partial: array<vec4f, COLUMNS * LANES>; // a component for each row

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

export default /* wgsl */ `// The gradients of layer normalisation's weight and bias, with x̂ = (x − mean) · rstd, in
// two passes. The first sums dy · x̂ and dy over each block of 32 rows, for each column. The second sums over the
// blocks:
//
//   dweight += Σ over blocks of dy · x̂,  dbias += Σ over blocks of dy
//
// layer_norm_backward_blocks: a workgroup owns 64 columns of a block, an invocation a column.
// layer_norm_backward_params: a workgroup owns 16 columns. For each column, 16 invocations add up every 16th block, and
// their sums are combined pairwise.

struct Params { rows: u32, C: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;                // (rows, C)
@group(0) @binding(2) var<storage, read> x: array<f32>;                 // (rows, C)
@group(0) @binding(3) var<storage, read> mean: array<f32>;              // (rows)
@group(0) @binding(4) var<storage, read> rstd: array<f32>;              // (rows)
@group(0) @binding(5) var<storage, read_write> dweight: array<f32>;     // (C)
@group(0) @binding(6) var<storage, read_write> dbias: array<f32>;       // (C)
@group(0) @binding(7) var<storage, read_write> workspace: array<vec2f>; // (blocks, C): sums of dy · x̂ and of dy
override fresh_dweight: bool = false; // dweight holds garbage: write instead of adding
override fresh_dbias: bool = false;

const LANES = 64u;
const BLOCK = 32u;
const COLUMNS = 16u;
const WALKERS = 16u;
var<workgroup> shared_sums: array<vec2f, COLUMNS * WALKERS>;

@compute @workgroup_size(LANES)
fn layer_norm_backward_blocks(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group.x + group.y * groups.x;
  let stripes = (params.C + LANES - 1u) / LANES; // of 64 columns
  let block = number / stripes;
  let column = number % stripes * LANES + lane;
  let first = block * BLOCK;
  if (first >= params.rows || column >= params.C) { return; }

  var sums = vec2f(0.0);
  for (var row = first; row < min(first + BLOCK, params.rows); row++) {
    let i = row * params.C + column;
    sums += dy[i] * vec2f((x[i] - mean[row]) * rstd[row], 1.0);
  }
  workspace[block * params.C + column] = sums;
}

@compute @workgroup_size(COLUMNS, WALKERS)
fn layer_norm_backward_params(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let column = (group.x + group.y * groups.x) * COLUMNS + local.x;
  let blocks = (params.rows + BLOCK - 1u) / BLOCK;

  var sums = vec2f(0.0);
  if (column < params.C) {
    for (var block = local.y; block < blocks; block += WALKERS) { sums += workspace[block * params.C + column]; }
  }
  shared_sums[lane] = sums;
  workgroupBarrier();
  for (var width = WALKERS / 2u; width > 0u; width /= 2u) {
    if (local.y < width) { shared_sums[lane] += shared_sums[lane + width * COLUMNS]; }
    workgroupBarrier();
  }

  if (local.y == 0u && column < params.C) {
    dweight[column] = select(dweight[column], 0.0, fresh_dweight) + shared_sums[lane].x;
    dbias[column] = select(dbias[column], 0.0, fresh_dbias) + shared_sums[lane].y;
  }
}
`;

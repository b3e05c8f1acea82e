export default /* wgsl */ `// The gradients of layer normalisation's weight and bias, second pass: what layer_norm_backward_blocks.wgsl.ts has summed
// over blocks of 32 rows is added up,
//
//   dweight += Σ over blocks of dy · x̂,  dbias += Σ over blocks of dy
//
// A workgroup owns 16 columns. For each, 16 invocations add up every 16th block, then, two by two, each other's sums.

struct Params { rows: u32, C: u32 }
@group(0) @binding(0) var<uniform> params: Params;
// Bindings 1 to 4, dy, x, mean and rstd, are the first pass's.
@group(0) @binding(5) var<storage, read_write> dweight: array<f32>;     // (C)
@group(0) @binding(6) var<storage, read_write> dbias: array<f32>;       // (C)
@group(0) @binding(7) var<storage, read_write> workspace: array<vec2f>; // (blocks, C): sums of dy · x̂ and of dy
override fresh_dweight: bool = false; // it holds nothing yet
override fresh_dbias: bool = false;

const COLUMNS = 16u;
const WALKERS = 16u;
const BLOCK = 32u;
var<workgroup> shared_sums: array<vec2f, COLUMNS * WALKERS>;

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

export default /* wgsl */ `// The gradients of layer normalisation's weight and bias, first pass: with x̂ = (x − mean) · rstd, for each block of
// 32 rows and each column
//
//   workspace = Σ over the block's rows of (dy · x̂, dy)
//
// A workgroup owns 64 columns of a block, an invocation a column. layer_norm_backward_params.wgsl.ts adds up the blocks.

struct Params { rows: u32, C: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;    // (rows, C)
@group(0) @binding(2) var<storage, read> x: array<f32>;     // (rows, C)
@group(0) @binding(3) var<storage, read> mean: array<f32>;  // (rows)
@group(0) @binding(4) var<storage, read> rstd: array<f32>;  // (rows)
// Bindings 5 and 6, dweight and dbias, are the second pass's.
@group(0) @binding(7) var<storage, read_write> workspace: array<vec2f>; // (blocks, C)

const LANES = 64u;
const BLOCK = 32u;

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
`;

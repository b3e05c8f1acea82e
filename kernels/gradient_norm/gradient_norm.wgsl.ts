export default /* wgsl */ `// The norm of all gradients, in two passes: first the sum of the squares in each block of
// 4096 elements, then
//
//   norm = √(Σ of the blocks' sums)
//
// gradient_norm_blocks: a workgroup owns a block. Each of its 256 invocations adds up every 256th square, and their
// sums are combined pairwise. At most 24 additions separate a square from the result, which keeps it precise to seven
// digits. gradient_norm: one workgroup adds up the blocks in the same way.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;      // (1)
@group(0) @binding(3) var<storage, read_write> workspace: array<f32>; // (blocks)

const LANES = 256u;
const BLOCK = 4096u;
var<workgroup> sums: array<f32, LANES>;

// The sum of all invocations' values, returned to the first invocation.
fn total(value: f32, lane: u32) -> f32 {
  sums[lane] = value;
  workgroupBarrier();
  for (var width = LANES / 2u; width > 0u; width /= 2u) {
    if (lane < width) { sums[lane] += sums[lane + width]; }
    workgroupBarrier();
  }
  return sums[0];
}

@compute @workgroup_size(LANES)
fn gradient_norm_blocks(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = group.x + group.y * groups.x;
  let first = block * BLOCK;
  if (first >= params.n) { return; }
  var sum = 0.0;
  for (var i = first + lane; i < min(first + BLOCK, params.n); i += LANES) { sum += gradient[i] * gradient[i]; }
  sum = total(sum, lane);
  if (lane == 0u) { workspace[block] = sum; }
}

@compute @workgroup_size(LANES)
fn gradient_norm(@builtin(local_invocation_index) lane: u32) {
  let blocks = (params.n + BLOCK - 1u) / BLOCK;
  var sum = 0.0;
  for (var block = lane; block < blocks; block += LANES) { sum += workspace[block]; }
  sum = total(sum, lane);
  if (lane == 0u) { norm[0] = sqrt(sum); }
}
`;

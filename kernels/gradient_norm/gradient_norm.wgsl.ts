export default /* wgsl */ `// The norm of all gradients, second pass: from the sums of squares that gradient_norm_blocks.wgsl.ts has made,
//
//   norm = √Σ over blocks of workspace[block]
//
// There is one workgroup. Its 256 invocations add up every 256th sum each, then, two by two, each other's.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
// Binding 1, gradient, is the first pass's.
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;      // (1)
@group(0) @binding(3) var<storage, read_write> workspace: array<f32>; // (blocks)

const LANES = 256u;
const BLOCK = 4096u;
var<workgroup> sums: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn gradient_norm(@builtin(local_invocation_index) lane: u32) {
  let blocks = (params.n + BLOCK - 1u) / BLOCK;
  var sum = 0.0;
  for (var block = lane; block < blocks; block += LANES) { sum += workspace[block]; }
  sums[lane] = sum;
  workgroupBarrier();
  for (var width = LANES / 2u; width > 0u; width /= 2u) {
    if (lane < width) { sums[lane] += sums[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u) { norm[0] = sqrt(sums[0]); }
}
`;

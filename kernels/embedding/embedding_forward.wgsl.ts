export default /* wgsl */ `// Looks up rows of a table by id:
//
//   y[i] = weight[ids[i]]
//
// An id outside the table counts as the last row. A workgroup owns 1024 elements of y, of which an invocation takes
// every 256th.

struct Params { n: u32, V: u32, C: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>;      // (n)
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (V, C): f32, two bf16 in a word, or q8_0
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // (n, C)

override bf16_weight: bool = false;
override q8_weight: bool = false;

const LANES = 256u;
const PER_LANE = 4u;

@compute @workgroup_size(LANES)
fn embedding_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * LANES * PER_LANE + lane;
  for (var k = 0u; k < PER_LANE; k++) {
    let i = first + k * LANES;
    if (i >= params.n * params.C) { return; }
    let id = min(u32(ids[i / params.C]), params.V - 1u); // negative ids are large when unsigned
    let at = id * params.C + i % params.C;
    if (q8_weight) { // four integers per word; after all integers, one scale per 32
      let integer = bitcast<i32>(weight[at / 4u] << (24u - at % 4u * 8u)) >> 24u;
      y[i] = f32(integer) * bitcast<f32>(weight[(params.V * params.C + 127u) / 128u * 32u + at / 32u]);
    } else if (bf16_weight) { // two per word, the first in the lower half
      y[i] = bitcast<f32>(select(weight[at / 2u] << 16u, weight[at / 2u] & 0xffff0000u, at % 2u == 1u));
    } else {
      y[i] = bitcast<f32>(weight[at]);
    }
  }
}
`;

export default /* wgsl */ `// The gradient of the table, first pass: zeros, where it holds nothing yet.
//
// A workgroup owns 1024 elements of dweight, of which an invocation takes every 256th.

struct Params { n: u32, C: u32, V: u32 }
@group(0) @binding(0) var<uniform> params: Params;
// Bindings 1 to 3, ids, dy and weight, are other passes'.
@group(0) @binding(4) var<storage, read_write> dweight: array<f32>; // (V, C)
override fresh_dweight: bool = false;

const LANES = 256u;
const PER_LANE = 4u;

@compute @workgroup_size(LANES)
fn embedding_backward_clear(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  if (!fresh_dweight) { return; }
  let first = (group.x + group.y * groups.x) * LANES * PER_LANE + lane;
  for (var k = 0u; k < PER_LANE; k++) {
    let i = first + k * LANES;
    if (i >= params.V * params.C) { return; }
    dweight[i] = 0.0;
  }
}
`;

export default /* wgsl */ `// The gradient of the table, third pass:
//
//   dweight[v] += Σ over i with ids[i] = v of dy[i], in the order of i
//
// A workgroup owns a place, and where that is the first with its id, the id's row of dweight, of which an invocation
// takes every 64th column. It follows the list of places that embedding_backward_links.wgsl.ts has made; rows without a
// place are left alone, so the work grows with n · C, not with V.

struct Params { n: u32, C: u32, V: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (n)
@group(0) @binding(2) var<storage, read> dy: array<f32>;  // (n, C)
// Binding 3 is weight, of which only the shape counts.
@group(0) @binding(4) var<storage, read_write> dweight: array<f32>;   // (V, C), cleared where it held nothing
@group(0) @binding(5) var<storage, read_write> workspace: array<u32>; // (2, n): next, repeated

const LANES = 64u;

@compute @workgroup_size(LANES)
fn embedding_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = group.x + group.y * groups.x;
  if (first >= params.n) { return; }
  if (workspace[params.n + first] != 0u) { return; }
  let row = min(u32(ids[first]), params.V - 1u) * params.C;
  for (var c = lane; c < params.C; c += LANES) {
    var sum = 0.0;
    for (var i = first; i < params.n; i = workspace[i]) { sum += dy[i * params.C + c]; }
    dweight[row + c] += sum;
  }
}
`;

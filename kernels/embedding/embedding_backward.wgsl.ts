export default /* wgsl */ `// The gradient of the table, in three passes:
//
//   dweight[v] += Σ over i with ids[i] = v of dy[i], in the order of i
//
// embedding_backward_clear writes zeros if dweight is fresh, which means that its memory is not initialized. A
// workgroup owns 1024 elements of dweight, of which an invocation takes every 256th.
//
// embedding_backward_links makes a linked list of the places of each id, in order:
//
//   next[i] = the least j > i with ids[j] = ids[i], or n;  repeated[i] = whether there is such a j < i
//
// An invocation owns a place and searches for its id in both directions: over about V places if ids are frequent, n if
// they are rare. Altogether at most n² integers are compared.
//
// embedding_backward adds up. A workgroup owns a place. If it is the first place with its id, the workgroup computes
// that id's row of dweight, of which an invocation takes every 64th column, by following the list. Rows whose id does
// not occur are not touched, so the work grows with n · C, not with V.

struct Params { n: u32, C: u32, V: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (n)
@group(0) @binding(2) var<storage, read> dy: array<f32>;  // (n, C)
// Binding 3 is weight, of which only the shape is used.
@group(0) @binding(4) var<storage, read_write> dweight: array<f32>;   // (V, C)
@group(0) @binding(5) var<storage, read_write> workspace: array<u32>; // (2, n): next, repeated
override fresh_dweight: bool = false;

const LANES = 64u;

// The id at place i. An id outside the table counts as the last row; negative ids are large when unsigned.
fn id_at(i: u32) -> u32 { return min(u32(ids[i]), params.V - 1u); }

@compute @workgroup_size(256u)
fn embedding_backward_clear(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  if (!fresh_dweight) { return; }
  let first = (group.x + group.y * groups.x) * 1024u + lane;
  for (var k = 0u; k < 4u; k++) {
    let i = first + k * 256u;
    if (i >= params.V * params.C) { return; }
    dweight[i] = 0.0;
  }
}

@compute @workgroup_size(LANES)
fn embedding_backward_links(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * LANES + lane;
  if (i >= params.n) { return; }
  let id = id_at(i);
  var next = i + 1u;
  while (next < params.n && id_at(next) != id) { next++; }
  var before = i; // one more than the place that is compared
  while (before > 0u && id_at(before - 1u) != id) { before--; }
  workspace[i] = next;
  workspace[params.n + i] = select(0u, 1u, before > 0u);
}

@compute @workgroup_size(LANES)
fn embedding_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = group.x + group.y * groups.x;
  if (first >= params.n) { return; }
  if (workspace[params.n + first] != 0u) { return; }
  let row = id_at(first) * params.C;
  for (var c = lane; c < params.C; c += LANES) {
    var sum = 0.0;
    for (var i = first; i < params.n; i = workspace[i]) { sum += dy[i * params.C + c]; }
    dweight[row + c] += sum;
  }
}
`;

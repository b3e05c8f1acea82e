export default /* wgsl */ `// The gradient of the table, second pass: the places of each id become a list, in order,
//
//   next[i] = the least j > i with ids[j] = ids[i], or n;  repeated[i] = whether there is such a j < i
//
// An invocation owns a place and looks to both sides until it finds one: about V places far where ids are frequent, n
// where they are rare, and n² / 2 comparisons of integers altogether at most.

struct Params { n: u32, C: u32, V: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (n)
// Bindings 2 to 4, dy, weight and dweight, are other passes'.
@group(0) @binding(5) var<storage, read_write> workspace: array<u32>; // (2, n): next, repeated

const LANES = 64u;

/// Ids outside the table are taken for the last row: negative ones are large unsigned.
fn id_at(i: u32) -> u32 { return min(u32(ids[i]), params.V - 1u); }

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
  var before = i; // one more than the place looked at
  while (before > 0u && id_at(before - 1u) != id) { before--; }
  workspace[i] = next;
  workspace[params.n + i] = select(0u, 1u, before > 0u);
}
`;

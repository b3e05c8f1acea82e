export default /* wgsl */ `// ids[b, t] = ring[slot[b], (count − T + t) mod S]: the last T tokens of each of B texts. An invocation owns one of them.

struct Params { slots: u32, S: u32, B: u32, T: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ring: array<i32>; // (slots, S)
@group(0) @binding(2) var<storage, read> count: array<i32>; // (slots)
@group(0) @binding(3) var<storage, read> slot: array<u32>; // (B)
@group(0) @binding(4) var<storage, read_write> ids: array<i32>; // (B, T)

@compute @workgroup_size(64)
fn latest(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (i >= params.B * params.T) { return; }
  let number = min(slot[i / params.T], params.slots - 1u);
  let token = max(count[number] - i32(params.T) + i32(i % params.T), 0);
  ids[i] = ring[number * params.S + u32(token) % params.S];
}
`;

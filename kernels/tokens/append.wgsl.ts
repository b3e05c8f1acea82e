export default /* wgsl */ `// ring[slot[b], count[slot[b]] mod S] = ids[b], then count[slot[b]] += 1: the next token of each of B texts in slots of
// their own; nothing where there is no such slot. An invocation owns a text.

struct Params { B: u32, slots: u32, S: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (B)
@group(0) @binding(2) var<storage, read> slot: array<u32>; // (B), −1 a large one
@group(0) @binding(3) var<storage, read_write> ring: array<i32>; // (slots, S)
@group(0) @binding(4) var<storage, read_write> count: array<u32>; // (slots)

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let b = group.x * 64u + lane;
  if (b >= params.B || slot[b] >= params.slots) { return; }
  ring[slot[b] * params.S + count[slot[b]] % params.S] = ids[b];
  count[slot[b]] += 1u;
}
`;

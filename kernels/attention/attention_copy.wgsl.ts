export default /* wgsl */ `// Copies the first count[i] places of slot from[i] of a cache to slot to[i]; no slot is both
// read and written. Slots outside the cache copy nothing. An invocation owns a 32-bit word: an f32, or two bf16.

struct Params { n: u32, slots: u32, heads: u32, S: u32, width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>; // (n); a negative slot is a large number
@group(0) @binding(2) var<storage, read> target_slot: array<u32>; // (n)
@group(0) @binding(3) var<storage, read> count: array<i32>; // (n)
@group(0) @binding(4) var<storage, read_write> cache: array<u32>; // (slots, heads, S, 2, width), f32 or bf16
override bf16_cache: bool = false;

@compute @workgroup_size(256)
fn attention_copy(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = select(2u, 1u, bf16_cache) * params.width; // words of a token's key and value in one head
  let size = params.heads * params.S * row; // words of a slot
  let at = (group.x + group.y * groups.x) * 256u + lane;
  let i = at / size;
  if (i >= params.n || source[i] >= params.slots || target_slot[i] >= params.slots) { return; }
  if (i32(at / row % params.S) < count[i]) { cache[target_slot[i] * size + at % size] = cache[source[i] * size + at % size]; }
}
`;

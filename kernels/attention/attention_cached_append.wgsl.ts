export default /* wgsl */ `// First of two passes of attention to a cache: writes each token's key and value to its place in its slot. A slot that the
// cache does not have is an idle token, which writes nothing; a position is moved into 0 to S − 1. An invocation owns one
// element.

struct Params { N: u32, heads: u32, width: u32, slots: u32, S: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (N, 3, heads, width)
@group(0) @binding(2) var<storage, read> slot: array<i32>; // (N)
@group(0) @binding(3) var<storage, read> position: array<i32>; // (N)
@group(0) @binding(4) var<storage, read_write> cache: array<f32>; // (slots, S, 2, heads, width): keys and values

@compute @workgroup_size(64)
fn attention_cached_append(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let pair = 2u * params.heads * params.width; // a token's key and value
  let i = (group.x + group.y * groups.x) * 64u + lane; // in (N, 2, heads, width)
  if (i >= params.N * pair) { return; }
  let n = i / pair;
  let number = u32(slot[n]); // −1 becomes a large one
  if (number >= params.slots) { return; }
  let place = number * params.S + u32(clamp(position[n], 0, i32(params.S) - 1));
  cache[place * pair + i % pair] = qkv[n * (pair / 2u) * 3u + pair / 2u + i % pair];
}
`;

export default /* wgsl */ `// First of two passes of attention for decoding: writes the new tokens' keys and values into the cache's rows from
// 'position' on, which is moved into 0 to S − T. An invocation owns one element.

struct Params { B: u32, T: u32, heads: u32, width: u32, S: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (B, T, 3, heads, width)
@group(0) @binding(2) var<storage, read> position: array<i32>; // one number: tokens that the cache holds already
@group(0) @binding(3) var<storage, read_write> cache: array<f32>; // (B, S, 2, heads, width): keys and values

@compute @workgroup_size(64)
fn attention_cached_append(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let pair = 2u * params.heads * params.width; // a token's key and value
  let i = (group.x + group.y * groups.x) * 64u + lane; // in (B, T, 2, heads, width)
  if (i >= params.B * params.T * pair) { return; }
  let first = u32(clamp(position[0], 0, i32(params.S - params.T)));
  let token = i / pair; // b · T + t
  let row = token / params.T * params.S + first + token % params.T;
  cache[row * pair + i % pair] = qkv[token * (pair / 2u) * 3u + pair / 2u + i % pair];
}
`;

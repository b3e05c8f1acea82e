export default /* wgsl */ `// Adds 'by' to each of n counters, wrapping at 32 bits. An invocation owns one counter.

struct Params { n: u32, by: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counter: array<i32>; // (n)

@compute @workgroup_size(64)
fn advance(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = group.x * 64u + lane;
  if (i < params.n) { counter[i] += params.by; }
}
`;

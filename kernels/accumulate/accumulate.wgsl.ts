export default /* wgsl */ `// sum += x, or sum = x if the caller passes no sum. An invocation owns one element.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> sum: array<f32>; // (n)
override fresh_sum: bool = false; // sum holds garbage: write instead of adding

@compute @workgroup_size(256)
fn accumulate(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  sum[i] = select(sum[i], 0.0, fresh_sum) + x[i];
}
`;

export default /* wgsl */ `// c += the sum, in order, of the parts that matmul.wgsl.ts stored in the workspace. A
// workgroup owns 256 elements of c, an invocation one. The workspace holds nothing but the parts, so its length gives
// their number.

struct Params { batch: u32, K: u32, M: u32, N: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (batch, M, N)
@group(0) @binding(4) var<storage, read_write> parts: array<f32>; // the workspace: (parts, batch, M, N)
override fresh_c: bool = false; // c holds garbage: write instead of adding

@compute @workgroup_size(256)
fn matmul_parts(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 256u + lane;
  let elements = params.batch * params.M * params.N;
  if (at >= elements) { return; }
  var sum = 0.0;
  for (var i = at; i < arrayLength(&parts); i += elements) { sum += parts[i]; }
  c[at] = select(c[at], 0.0, fresh_c) + sum;
}
`;

// c += the sum of the parts that matmul.wgsl has left in the workspace, in their order. gpu.ts appends Params, the bindings
// and `finish`. A workgroup owns 256 elements of c, an invocation one. The workspace ends with the last part.

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
  finish(at, 0u, sum);
}

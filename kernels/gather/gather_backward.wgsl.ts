export default /* wgsl */ `// dx[o, index[o, j, i], i] += dy[o, j, i]. An invocation owns the elements of one (o, i) and
// goes through j in order, so no two invocations write the same element.

struct Params { outer: u32, count: u32, inner: u32, axis: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (outer, count, inner)
@group(0) @binding(2) var<storage, read> index: array<i32>; // (outer, count, inner)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (outer, axis, inner)

@compute @workgroup_size(64)
fn gather_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = (group.x + group.y * groups.x) * 64u + lane;
  if (line >= params.outer * params.inner) { return; }
  let o = line / params.inner;
  let i = line % params.inner;
  for (var j = 0u; j < params.count; j++) {
    let at = (o * params.count + j) * params.inner + i;
    let place = u32(clamp(index[at], 0, i32(params.axis) - 1));
    dx[(o * params.axis + place) * params.inner + i] += dy[at];
  }
}
`;

export default /* wgsl */ `// y[o, j, i] = x[o, index[o, j, i], i]; an index outside the axis is clamped to it. An
// invocation owns one element of y.

struct Params { outer: u32, axis: u32, inner: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read> index: array<i32>; // (outer, count, inner)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (outer, count, inner)

@compute @workgroup_size(256)
fn gather(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 256u + lane;
  if (at >= params.outer * params.count * params.inner) { return; }
  let o = at / (params.count * params.inner);
  let place = u32(clamp(index[at], 0, i32(params.axis) - 1));
  y[at] = x[(o * params.axis + place) * params.inner + at % params.inner];
}
`;

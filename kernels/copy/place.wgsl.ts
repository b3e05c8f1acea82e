export default /* wgsl */ `// y[:, start + i, :] = x[:, i, :]; the rest of y stays. An invocation owns one element of x.
// For integers, kernel.ts replaces the line 'Element'.

alias Element = f32;
struct Params { outer: u32, length: u32, inner: u32, axis: u32, start: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>; // (outer, length, inner)
@group(0) @binding(2) var<storage, read_write> y: array<Element>; // (outer, axis, inner)

@compute @workgroup_size(256)
fn place(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 256u + lane;
  let block = params.length * params.inner;
  if (at >= params.outer * block) { return; }
  y[(at / block * params.axis + u32(params.start)) * params.inner + at % block] = x[at];
}
`;

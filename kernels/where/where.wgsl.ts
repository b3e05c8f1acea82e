export default /* wgsl */ `// y = condition ? a : b, element by element; an omitted branch counts as zeros. An
// invocation owns one element.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> condition: array<i32>; // (n)
@group(0) @binding(2) var<storage, read> a: array<f32>; // (n), optional
@group(0) @binding(3) var<storage, read> b: array<f32>; // (n), optional
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (n)
override has_a: bool = false;
override has_b: bool = false;

@compute @workgroup_size(256)
fn choose(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  var chosen = 0.0;
  if (condition[i] != 0) {
    if (has_a) { chosen = a[i]; }
  } else if (has_b) { chosen = b[i]; }
  y[i] = chosen;
}
`;

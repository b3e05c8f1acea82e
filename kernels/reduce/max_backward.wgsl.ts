export default /* wgsl */ `// dx += dy at the first place along the axis whose element is y; NaN counts as equal to NaN.
// An invocation owns one line along the axis.

struct Params { outer: u32, axis: u32, inner: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read> y: array<f32>; // (outer, inner)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (outer, inner)
@group(0) @binding(4) var<storage, read_write> dx: array<f32>; // (outer, axis, inner)
override fresh_dx: bool = false; // dx holds garbage: write instead of adding

// Tests the bits, because compilers may assume that all numbers are finite.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(64)
fn max_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = (group.x + group.y * groups.x) * 64u + lane;
  if (line >= params.outer * params.inner) { return; }
  let first = line / params.inner * params.axis * params.inner + line % params.inner;
  var found = false;
  for (var k = 0u; k < params.axis; k++) {
    let at = first + k * params.inner;
    let here = !found && (x[at] == y[line] || (is_nan(x[at]) && is_nan(y[line])));
    dx[at] = select(dx[at], 0.0, fresh_dx) + select(0.0, dy[line], here);
    found = found || here;
  }
}
`;

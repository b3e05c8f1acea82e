export default /* wgsl */ `// y[i0, …, i5] = x[offset + Σ i · s]. An invocation owns one element of y. For integers,
// kernel.ts replaces the line 'Element'.

alias Element = f32;
struct Params {
  n: u32, d0: u32, d1: u32, d2: u32, d3: u32, d4: u32, d5: u32,
  offset: i32, s0: i32, s1: i32, s2: i32, s3: i32, s4: i32, s5: i32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<Element>; // (d0, d1, d2, d3, d4, d5)

@compute @workgroup_size(256)
fn copy(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 256u + lane;
  if (at >= params.d0 * params.d1 * params.d2 * params.d3 * params.d4 * params.d5) { return; }
  let i5 = at % params.d5;
  var rest = at / params.d5;
  let i4 = rest % params.d4;
  rest /= params.d4;
  let i3 = rest % params.d3;
  rest /= params.d3;
  let i2 = rest % params.d2;
  rest /= params.d2;
  let i1 = rest % params.d1;
  let i0 = rest / params.d1;
  y[at] = x[
    params.offset + i32(i0) * params.s0 + i32(i1) * params.s1 + i32(i2) * params.s2 + i32(i3) * params.s3 +
    i32(i4) * params.s4 + i32(i5) * params.s5
  ];
}
`;

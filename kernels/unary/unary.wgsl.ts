export default /* wgsl */ `// y = op(x), element by element. kernel.ts replaces the line 'op' for each kernel.
// An invocation owns one element.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>; // x (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (n)

fn op(x: f32) -> f32 { return exp(x); }

// tanh x = x · P(x²) / Q(x²), to a few units in the last place up to |x| = 9.02, above which 1 is the nearest float.
// The built-in function is imprecise for small x, and NaN for large x on some devices.
fn hyperbolic_tangent(x: f32) -> f32 {
  let t = clamp(x, -9.02, 9.02);
  let z = t * t;
  let p = (((1.338421397e-8 * z + 2.063576501e-5) * z + 3.497454161e-3) * z + 1.338268433e-1) * z + 1.0;
  let q = (((7.790217058e-7 * z + 3.288511604e-4) * z + 2.588434760e-2) * z + 4.671600558e-1) * z + 1.0;
  return clamp(t * p / q, -1.0, 1.0);
}

@compute @workgroup_size(256)
fn unary(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i < params.n) { y[i] = op(input[i]); }
}
`;

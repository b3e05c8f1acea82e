export default /* wgsl */ `// y = factor · x^exponent. An invocation owns one element.
//
// WGSL's pow is undefined for negative x, and the error of exp2(exponent · log2 x), in units in the last place, grows
// with the product. So powers with multiples of ½ are computed by repeated squaring, which also gives them the right
// sign.

struct Params { n: u32, exponent: f32, factor: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (n)

// x^exponent for an exponent that is a multiple of ½, from 0 to 64.
fn multiplied_out(x: f32, exponent: f32) -> f32 {
  var result = 1.0;
  var square = x;
  for (var rest = u32(exponent); rest > 0u; rest /= 2u) {
    if (rest % 2u == 1u) { result *= square; }
    square *= square;
  }
  return select(result * sqrt(x), result, exponent == floor(exponent));
}

fn power_of(x: f32, exponent: f32) -> f32 {
  let size = abs(exponent);
  if (size > 64.0 || 2.0 * size != floor(2.0 * size)) { return exp2(exponent * log2(x)); }
  let result = multiplied_out(x, size);
  return select(result, 1.0 / result, exponent < 0.0);
}

@compute @workgroup_size(256)
fn power(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i < params.n) { y[i] = params.factor * power_of(x[i], params.exponent); }
}
`;

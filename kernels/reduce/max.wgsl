// y = max x, or NaN where there is one: what reduce.wgsl needs to find the greatest.

struct Params { outer: u32, axis: u32, inner: u32 }

// Any element of the line will do, for max(x, x) = x.
fn empty(x: f32) -> f32 {
  return x;
}
// NaN by its bits, for compilers may take it that numbers are finite.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
fn combine(a: f32, b: f32) -> f32 {
  return select(max(a, b), a + b, is_nan(a) || is_nan(b));
}
fn finish(y: f32, greatest: f32) -> f32 {
  return greatest;
}

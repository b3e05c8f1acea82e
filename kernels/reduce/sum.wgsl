// y += Σ x / divisor: what reduce.wgsl needs to sum.

struct Params { outer: u32, axis: u32, inner: u32, divisor: f32 }
override fresh_y: bool = false; // y holds garbage: write instead of adding

fn empty(x: f32) -> f32 {
  return 0.0;
}
fn combine(a: f32, b: f32) -> f32 {
  return a + b;
}
fn finish(y: f32, total: f32) -> f32 {
  return select(y, 0.0, fresh_y) + total / params.divisor;
}

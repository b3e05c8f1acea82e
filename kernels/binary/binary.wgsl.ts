export default /* wgsl */ `// y = op(a, b), element by element. kernel.ts replaces the line 'op' for each kernel.
//
// a and b have as many rows as y, or a single row that is repeated; likewise for columns. An invocation owns one element
// of y.

struct Params { aRows: u32, aColumns: u32, bRows: u32, bColumns: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> left: array<f32>; // a (aRows, aColumns)
@group(0) @binding(2) var<storage, read> right: array<f32>; // b (bRows, bColumns)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, columns)

fn op(a: f32, b: f32) -> f32 { return a + b; }

// Tests the bits, because compilers may assume that all numbers are finite.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// An operand's index for row i, column j of y. If the operand has a single row or column, it is repeated.
fn place(i: u32, j: u32, rows: u32, columns: u32) -> u32 {
  return select(i * columns, 0u, rows == 1u) + select(j, 0u, columns == 1u);
}

@compute @workgroup_size(256)
fn binary(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 256u + lane;
  if (at >= params.rows * params.columns) { return; }
  let i = at / params.columns;
  let j = at % params.columns;
  y[at] = op(left[place(i, j, params.aRows, params.aColumns)], right[place(i, j, params.bRows, params.bColumns)]);
}
`;

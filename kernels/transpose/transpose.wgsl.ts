export default /* wgsl */ `// y[b, j, i] = x[b, i, j].
//
// A workgroup owns a tile of 32 rows and 32 columns. It reads along rows of x, and writes along rows of y. The tile in
// the workgroup's memory has 33 columns, so that the elements of a column are in different banks.

struct Params { batch: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (batch, rows, columns)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (batch, columns, rows)

var<workgroup> tile: array<array<f32, 33>, 32>;

@compute @workgroup_size(32, 8)
fn transpose(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let down = (params.rows + 31u) / 32u;
  let across = (params.columns + 31u) / 32u;
  let index = group.x + group.y * groups.x;
  if (index >= params.batch * down * across) { return; }
  let matrix = index / (down * across) * params.rows * params.columns;
  let row = index / across % down * 32u;
  let column = index % across * 32u;
  for (var i = local.y; i < 32u; i += 8u) {
    if (row + i < params.rows && column + local.x < params.columns) {
      tile[i][local.x] = x[matrix + (row + i) * params.columns + column + local.x];
    }
  }
  workgroupBarrier();
  for (var j = local.y; j < 32u; j += 8u) {
    if (column + j < params.columns && row + local.x < params.rows) {
      y[matrix + (column + j) * params.rows + row + local.x] = tile[local.x][j];
    }
  }
}
`;

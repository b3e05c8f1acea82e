/** Bins are TRL's, row by row. */
import { assertEquals } from "@std/assert";
import { packBestFit } from "../../src/finetune/packing.ts";
import cases from "./packing.json" with { type: "json" };

for (const { maxLength, lengths, bins } of cases) {
  Deno.test(`packing ${lengths.length} rows into bins of ${maxLength} as TRL does`, () => {
    assertEquals(packBestFit(lengths, maxLength), bins);
  });
}

/** Packing puts every row into the same bin as TRL does. */
import { assertEquals } from "@std/assert";
import { packBestFit } from "../../src/finetune/packing.ts";
import cases from "./packing.json" with { type: "json" };

for (const { maxLength, lengths, bins } of cases) {
  Deno.test(`packing ${lengths.length} rows into bins of ${maxLength} as in TRL`, () => {
    assertEquals(packBestFit(lengths, maxLength), bins);
  });
}

/** Tests how the page decodes a file. They need no browser. */
import { assertEquals, assertThrows } from "@std/assert";
import { decodeFile } from "../../examples/browser/settings.ts";

Deno.test("the page: the error for a file that is not UTF-8 names it, and a byte-order mark is not in the text", () => {
  assertEquals(decodeFile(Uint8Array.of(0xef, 0xbb, 0xbf, 0xc3, 0xa9, 0x0a), "a.txt"), "é\n");
  for (const bytes of [[0xe9, 0x74, 0xe9], [0xff, 0xfe, 0x61, 0x00], [0x61, 0xc3]]) { // Latin-1, UTF-16, cut off
    assertThrows(() => decodeFile(Uint8Array.from(bytes), "b.txt"), Error, "b.txt is not UTF-8 text; save it as UTF-8");
  }
});

/**
 * The page in `examples/browser/`, driven in headless Chromium: the engine's losses on each path beside PyTorch's, and the page
 * itself, with a click on each of its buttons.
 */
import { type Fixture, readFixture } from "../golden/fixtures.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertClose } from "../testing.ts";
import type { FromEngine, StartRequest } from "../../examples/browser/messages.ts";
import { openBrowser, serve } from "./browser.ts";

interface CurveCase {
  readonly name: string;
  readonly config: Omit<StartRequest["model"], never>;
  readonly flags: Readonly<Record<string, number>>;
}

const fixture = readFixture<CurveCase>("curves");

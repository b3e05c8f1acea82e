/** The page's files as texts. They are imported, so that a server that was installed from a registry has them, too. */
import apiTs from "./api.ts" with { type: "text" };
import barsTs from "./bars.ts" with { type: "text" };
import baseCss from "./base.css" with { type: "text" };
import chatTs from "./chat.ts" with { type: "text" };
import chatRequestTs from "./chat_request.ts" with { type: "text" };
import curvesTs from "./curves.ts" with { type: "text" };
import distributionTs from "./distribution.ts" with { type: "text" };
import domTs from "./dom.ts" with { type: "text" };
import fittingTs from "./fitting.ts" with { type: "text" };
import indexHtml from "./index.html" with { type: "text" };
import loadTs from "./load.ts" with { type: "text" };
import mainTs from "./main.ts" with { type: "text" };
import manuscriptTs from "./manuscript.ts" with { type: "text" };
import newJobTs from "./new_job.ts" with { type: "text" };
import pageCss from "./page.css" with { type: "text" };
import plotTs from "./plot.ts" with { type: "text" };
import preferencesTs from "./preferences.ts" with { type: "text" };
import prometheusTs from "./prometheus.ts" with { type: "text" };
import runDataTs from "./run_data.ts" with { type: "text" };
import runPlotTs from "./run_plot.ts" with { type: "text" };
import runsTs from "./runs.ts" with { type: "text" };
import samplingTs from "./sampling.ts" with { type: "text" };
import snippetsTs from "./snippets.ts" with { type: "text" };
import stateTs from "./state.ts" with { type: "text" };
import writeTs from "./write.ts" with { type: "text" };

/** The texts by file name. */
export const PAGE: Readonly<Record<string, string>> = {
  "api.ts": apiTs,
  "bars.ts": barsTs,
  "base.css": baseCss,
  "chat.ts": chatTs,
  "chat_request.ts": chatRequestTs,
  "curves.ts": curvesTs,
  "distribution.ts": distributionTs,
  "dom.ts": domTs,
  "fitting.ts": fittingTs,
  "index.html": indexHtml,
  "load.ts": loadTs,
  "main.ts": mainTs,
  "manuscript.ts": manuscriptTs,
  "new_job.ts": newJobTs,
  "page.css": pageCss,
  "plot.ts": plotTs,
  "preferences.ts": preferencesTs,
  "prometheus.ts": prometheusTs,
  "run_data.ts": runDataTs,
  "run_plot.ts": runPlotTs,
  "runs.ts": runsTs,
  "sampling.ts": samplingTs,
  "snippets.ts": snippetsTs,
  "state.ts": stateTs,
  "write.ts": writeTs,
};

/** The page. It has four parts, of which one is visible. */
import { bindChat, refreshChat } from "./chat.ts";
import { find } from "./dom.ts";
import { bindLoad, refreshLoad, watchLoad } from "./load.ts";
import { bindPreferences } from "./preferences.ts";
import { offerFile, refreshNewJob } from "./new_job.ts";
import { bindRuns, watchRuns } from "./runs.ts";
import { bindSampling } from "./sampling.ts";
import { bindState, fail, onModel, readModels } from "./state.ts";
import { bindWrite, refreshWrite } from "./write.ts";

const PARTS = ["write", "chat", "runs", "server"];
const tabs = PARTS.map((part) => find<HTMLButtonElement>(`tab-${part}`));

/** Shows a part. */
function go(part: string, focus = false): void {
  PARTS.forEach((name, i) => {
    const now = name === part;
    find(name).hidden = !now;
    tabs[i].ariaSelected = String(now);
    tabs[i].tabIndex = now ? 0 : -1;
    if (now && focus) tabs[i].focus();
  });
  find("sampling").hidden = part === "runs" || part === "server";
  document.body.dataset.part = part;
  if (location.hash !== `#${part}`) history.replaceState(null, "", `#${part}`);
  if (part === "server") void watchLoad();
  if (part === "runs") void watchRuns();
  if (part === "chat") refreshChat();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => go(PARTS[i]));
  tab.addEventListener("keydown", ({ key }) => {
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: PARTS.length - 1 }[key];
    if (to !== undefined) go(PARTS[(to + PARTS.length) % PARTS.length], true);
  });
});
addEventListener("hashchange", () => show());
const show = () => go(PARTS.find((part) => location.hash === `#${part}`) ?? "write");

bindState(() => show());
bindSampling(refreshWrite);
bindWrite();
bindChat();
bindPreferences((file) => {
  go("runs");
  offerFile(file, "dpo").catch(fail);
}, fail);
bindRuns(go);
bindLoad();
onModel(() => {
  refreshWrite();
  refreshChat();
  refreshNewJob();
  refreshLoad();
});
show();
await readModels();

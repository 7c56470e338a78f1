/** What a screen reader is told, judged by axe-core. */
import type { Page } from "playwright-core";

const EVERYTHING = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const AXE = new URL("../node_modules/axe-core/axe.min.js", import.meta.url);

/** What axe-core finds wrong with a page, once its colours have come to rest. */
export async function axeFindings(
  page: Page,
  rules: readonly string[] = EVERYTHING,
): Promise<string[]> {
  await colorsAtRest(page);
  // Evaluated through the debugger, so that the page's policy on scripts stays as it is.
  await page.evaluate(await Deno.readTextFile(AXE));
  return await page.evaluate(async (runOnly) => {
    // deno-lint-ignore no-explicit-any -- the library has just put itself there
    const { violations } = await (globalThis as any).axe.run(document, { runOnly });
    return violations.flatMap((rule: { id: string; nodes: { html: string }[] }) =>
      rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 160)}`)
    );
  }, rules);
}

/** No transition that has an end is under way: colours half-way have no contrast of their own. */
async function colorsAtRest(page: Page): Promise<void> {
  await page.waitForFunction(() =>
    document.getAnimations().every((animation) =>
      animation.playState !== "running" ||
      animation.effect?.getComputedTiming().endTime === Infinity
    )
  );
}

/** Answers with the style guide: the sheet of components, and the page with the parts that move. */
import type { Context } from "hono";
import type { Assets } from "../assets.ts";
import { respondPage } from "./document.tsx";
import { StyleguidePage } from "./styleguide.tsx";

export function respondStyleguide(c: Context, assets: Assets): Response {
  if (!c.req.path.startsWith("/styleguide/app")) {
    return respondPage(c, { assets, title: "Components", body: <StyleguidePage /> });
  }
  const user = { username: "ada", address: "ada@penncloud.test", admin: true };
  const boot = { user, mailDomain: "penncloud.test", balancer: null };
  return respondPage(c, {
    assets,
    title: "Frame",
    body: <div></div>,
    app: { entry: "styleguide", boot },
  });
}

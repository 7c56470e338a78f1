/** Answers with the style guide. */
import type { Context } from "hono";
import type { Assets } from "../assets.ts";
import { respondPage } from "./document.tsx";
import { StyleguidePage } from "./styleguide.tsx";

export function respondStyleguide(c: Context, assets: Assets): Response {
  return respondPage(c, { assets, title: "Components", body: <StyleguidePage /> });
}

/** Light, dark, or as the system says. Kept in a cookie, so that the server draws it right at once. */
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
export const THEMES: readonly Theme[] = ["system", "light", "dark"];
export const THEME_COOKIE = "penncloud_theme";

export const isTheme = (text: string | undefined): text is Theme => THEMES.includes(text as Theme);

/** What this page shows. */
export const theme = signal<Theme>(readTheme());

function readTheme(): Theme {
  if (typeof document === "undefined") return "system";
  const chosen = document.documentElement.dataset.theme;
  return isTheme(chosen) ? chosen : "system";
}

export function setTheme(chosen: Theme): void {
  theme.value = chosen;
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  document.cookie = `${THEME_COOKIE}=${chosen}; Path=/; Max-Age=31536000; SameSite=Lax`;
}

/** From light to dark and back; from `system` to the opposite of what the system shows. */
export function toggleTheme(): void {
  const systemDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const dark = theme.value === "dark" || (theme.value === "system" && systemDark);
  setTheme(dark ? "light" : "dark");
}

/** A browser's `User-Agent` as people would say it. A guess, good enough to recognise one's own. */

export interface Device {
  /** "Firefox on Linux" */
  readonly name: string;
  readonly kind: "phone" | "computer" | "program";
}

// The order matters: Edge and Opera also say Chrome, and Chrome also says Safari.
const BROWSERS: readonly [RegExp, string][] = [
  [/\bEdg(e|A|iOS)?\//, "Edge"],
  [/\bOPR\//, "Opera"],
  [/\b(Firefox|FxiOS)\//, "Firefox"],
  [/\b(Chrome|HeadlessChrome|CriOS)\//, "Chrome"],
  [/\bSafari\//, "Safari"],
];

const SYSTEMS: readonly [RegExp, string][] = [
  [/\bAndroid\b/, "Android"],
  [/\biPhone\b/, "iPhone"],
  [/\biPad\b/, "iPad"],
  [/\bWindows\b/, "Windows"],
  [/\bMac OS X\b/, "macOS"],
  [/\bCrOS\b/, "ChromeOS"],
  [/\bLinux\b/, "Linux"],
];

export function describeDevice(userAgent: string): Device {
  const browser = BROWSERS.find(([pattern]) => pattern.test(userAgent))?.[1];
  const system = SYSTEMS.find(([pattern]) => pattern.test(userAgent))?.[1];
  if (browser === undefined) {
    const program = /^[\w.-]{1,40}/.exec(userAgent)?.[0];
    return { name: program ?? "Unknown program", kind: "program" };
  }
  const phone = /\b(Mobile|Android|iPhone)\b/.test(userAgent);
  return {
    name: system === undefined ? browser : `${browser} on ${system}`,
    kind: phone ? "phone" : "computer",
  };
}

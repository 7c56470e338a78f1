/** Dates, sizes and counts as people say them. */
import assert from "node:assert/strict";
import {
  formatAgo,
  formatCount,
  formatDate,
  formatDuration,
  formatFullDate,
  formatSize,
  plural,
} from "../../web/ui/format.ts";
import { initials } from "../../web/ui/components/avatar.tsx";
import { describeDevice } from "../../web/pages/device.ts";

const NOW = new Date(2026, 2, 12, 14, 30).getTime();
const at = (...parts: [number, number, number, number, number]) => new Date(...parts).getTime();

Deno.test("formatDate() says the time today, Yesterday, then day and month, then the year", () => {
  assert.equal(formatDate(at(2026, 2, 12, 9, 5), NOW), "09:05");
  assert.equal(formatDate(at(2026, 2, 11, 23, 59), NOW), "Yesterday");
  assert.equal(formatDate(at(2026, 2, 10, 23, 59), NOW), "10 Mar");
  assert.equal(formatDate(at(2025, 11, 31, 12, 0), NOW), "31 Dec 2025");
  assert.equal(formatFullDate(at(2026, 2, 12, 14, 5)), "Thursday, 12 March 2026, 14:05");
});

Deno.test("formatAgo() says how long ago, then the date", () => {
  assert.equal(formatAgo(NOW - 20_000, NOW), "just now");
  assert.equal(formatAgo(NOW - 60_000, NOW), "1 minute ago");
  assert.equal(formatAgo(NOW - 3 * 3_600_000, NOW), "3 hours ago");
  assert.equal(formatAgo(NOW - 26 * 3_600_000, NOW), "Yesterday");
});

Deno.test("formatSize() has three digits at most and the unit that fits", () => {
  const sizes: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [1_400_000, "1.4 MB"],
    [9_949_999, "9.9 MB"],
    [9_950_001, "10 MB"],
    [999_500_000, "1.0 GB"],
    [23_000_000_000, "23 GB"],
  ];
  for (const [bytes, text] of sizes) assert.equal(formatSize(bytes), text);
});

Deno.test("formatCount(), plural() and formatDuration() read as one would say them", () => {
  assert.equal(formatCount(1204567), "1,204,567");
  assert.equal(plural(1, "file", "files"), "1 file");
  assert.equal(plural(0, "file", "files"), "0 files");
  assert.equal(formatDuration(7), "0:07");
  assert.equal(formatDuration(221), "3:41");
  assert.equal(formatDuration(3729), "1:02:09");
});

Deno.test("initials() takes the first and last word, whatever the script", () => {
  const names: [string, string][] = [
    ["Ada Lovelace", "AL"],
    ["Ada King Lovelace", "AL"],
    ["ada@example.org", "A"],
    ["grace.hopper@example.org", "GH"],
    ["(Ünal) Öz", "ÜÖ"],
    ["Юрий Гагарин", "ЮГ"],
    ["  ", "?"],
  ];
  for (const [name, letters] of names) assert.equal(initials(name), letters);
});

Deno.test("describeDevice() names browser and system, or the program", () => {
  const agents: [string, string, string][] = [
    [
      "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
      "Firefox on Linux",
      "computer",
    ],
    [
      "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
      "Edge on Windows",
      "computer",
    ],
    [
      "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
      "Safari on iPhone",
      "phone",
    ],
    ["curl/8.5.0", "curl", "program"],
    ["", "Unknown program", "program"],
  ];
  for (const [agent, name, kind] of agents) {
    assert.deepEqual(describeDevice(agent), { name, kind });
  }
});

/** Lengths of time and rates as an operator reads them. Pure. */

/** "12 s", "4 min", "1 h 30 min", "3 days": the two largest units at most. */
export function formatSpan(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 10) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  if (hours < 48) return `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** "0", "0.4", "12", "1,204": per second. */
export function formatRate(perSecond: number): string {
  if (perSecond < 0.05) return "0";
  if (perSecond < 9.95) return perSecond.toFixed(1);
  return Math.round(perSecond).toLocaleString("en-US");
}

/** "14:05:09", for lists in which seconds matter. */
export function formatClock(atMs: number): string {
  const date = new Date(atMs);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, "0")).join(":");
}

/** `a and b`, `a, b and c`; long lists end in "and 4 more". */
export function listed(items: readonly string[], max = 6): string {
  const shown = items.length > max
    ? [...items.slice(0, max - 1), `${items.length - max + 1} more`]
    : items;
  if (shown.length < 2) return shown.join("");
  return `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

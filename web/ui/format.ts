/** Dates, sizes and counts as people say them. Pure: the current time is handed in. */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

type Moment = number | string | Date;

/** "14:05" today, then "Yesterday", "12 Mar", "12 Mar 2023". */
export function formatDate(moment: Moment, nowMs: number = Date.now()): string {
  const date = new Date(moment), now = new Date(nowMs);
  const days = daysBetween(date, now);
  if (days === 0) return formatTime(date);
  if (days === 1) return "Yesterday";
  const day = `${date.getDate()} ${MONTHS[date.getMonth()]}`;
  return date.getFullYear() === now.getFullYear() ? day : `${day} ${date.getFullYear()}`;
}

/** "Thursday, 12 March 2026, 14:05", for a tooltip. */
export function formatFullDate(moment: Moment): string {
  const date = new Date(moment);
  const month = date.toLocaleString("en-GB", { month: "long" });
  const day = `${date.getDate()} ${month} ${date.getFullYear()}`;
  return `${WEEKDAYS[date.getDay()]}, ${day}, ${formatTime(date)}`;
}

/** "14:05" */
export function formatTime(moment: Moment): string {
  const date = new Date(moment);
  return `${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

/** "just now", "5 minutes ago", "3 hours ago", then as `formatDate`. */
export function formatAgo(moment: Moment, nowMs: number = Date.now()): string {
  const minutes = Math.floor((nowMs - new Date(moment).getTime()) / MINUTE_MS);
  if (minutes < 1) return "just now";
  if (minutes < 60) return plural(minutes, "minute", "minutes") + " ago";
  if (minutes < 12 * 60) return plural(Math.floor(minutes / 60), "hour", "hours") + " ago";
  return formatDate(moment, nowMs);
}

/** "0:07", "3:41", "1:02:09": for media and for time left. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const tail = `${pad(whole % 60)}`;
  return hours > 0 ? `${hours}:${pad(minutes)}:${tail}` : `${minutes}:${tail}`;
}

/** "512 B", "1.4 MB", "23 GB": powers of 1000, as files are sold. */
export function formatSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes, unit = 0;
  // 999.5 and above would be written as 1000.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const text = unit === 0 || value >= 9.95 ? String(Math.round(value)) : value.toFixed(1);
  return `${text} ${units[unit]}`;
}

/** "1,204" */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** "1 file", "1,204 files" */
export function plural(count: number, one: string, many: string): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

function daysBetween(earlier: Date, later: Date): number {
  const midnight = (date: Date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((midnight(later) - midnight(earlier)) / DAY_MS);
}

const pad = (value: number) => String(value).padStart(2, "0");

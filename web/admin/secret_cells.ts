/**
 * What even an administrator does not get to see among the raw rows: password hashes, and the ids of
 * sessions and app passwords, by which whoever reads over a shoulder could tell them apart later.
 *
 *     alice/account          account    the value's `passwordHash`
 *     <id>~session           session    the row's name
 *     alice/sessions         <id>       the column's name
 *     alice/app-passwords    <digest>   the column's name
 *     any                    a lock     names of rows as above, in the value
 *
 * apps/accounts owns these rows; a test makes real ones and looks for what must not show.
 */
import { DECISION, LOCK, shownColumn } from "../../kv/internal_columns.ts";
import type { RawCell } from "../context.ts";

export interface ShownCell {
  readonly row: string;
  readonly column: string;
  /** The beginning of the value, or all of it. */
  readonly head: Uint8Array;
  /** Something was taken away, so the value cannot be had in full either. */
  readonly secret: boolean;
}

const LETTERS_SHOWN = 4;
export const HIDDEN = "••••••••";
const SESSION_ROW = /"([^"]*)~session"/g;
const SECRET_FIELD = /("passwordHash"\s*:\s*)"[^"]*("|$)/g;

export function hideSecrets(cell: Pick<RawCell, "row" | "column" | "head">): ShownCell {
  const { row, head } = cell, column = shownColumn(cell.column);
  if (cell.column === LOCK || cell.column.startsWith(DECISION)) {
    const shown = hideRows(new TextDecoder().decode(head));
    return { row, column, head: new TextEncoder().encode(shown), secret: true };
  }
  if (row.endsWith("~session")) {
    return {
      row: `${shorten(row.slice(0, -"~session".length))}~session`,
      column,
      head,
      secret: true,
    };
  }
  if (row.endsWith("/sessions") || row.endsWith("/app-passwords")) {
    return { row, column: shorten(column), head, secret: true };
  }
  if (row.endsWith("/account")) {
    const text = new TextDecoder().decode(head);
    const shown = text.replace(SECRET_FIELD, `$1"${HIDDEN}"`);
    return { row, column, head: new TextEncoder().encode(shown), secret: true };
  }
  return { row, column, head, secret: false };
}

function hideRows(json: string): string {
  const shown = json.replaceAll(SESSION_ROW, (_, id: string) => `"${shorten(id)}~session"`);
  try {
    JSON.parse(json);
    return shown;
  } catch {
    // Only the beginning: it may end in the middle of a name.
    return shown.slice(0, shown.lastIndexOf('"') + 1) + HIDDEN;
  }
}

function shorten(id: string): string {
  return id.slice(0, LETTERS_SHOWN) + HIDDEN;
}

/** Plain text tables for terminals and pipes: aligned columns, two spaces between, no lines drawn. */

/** `right` names the columns, by index, that hold numbers. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    head.map((_, column) => {
      const cell = row[column] ?? "", width = widths[column]!;
      return right.includes(column) ? cell.padStart(width) : cell.padEnd(width);
    }).join("  ").trimEnd()
  ).join("\n");
}

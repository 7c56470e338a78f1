/** `/admin/data/10003?start=`: the rows that one backend itself holds, page by page. */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ClusterStatus } from "../../../proto/cluster_status.ts";
import { inRange } from "../../../kv/key_order.ts";
import { ApiFailure } from "../../ui/api.ts";
import { Badge } from "../../ui/components/badge.tsx";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { Notice } from "../../ui/components/notice.tsx";
import { Select } from "../../ui/components/select.tsx";
import { SkeletonRows } from "../../ui/components/skeleton.tsx";
import { EmptyState, ErrorState } from "../../ui/components/states.tsx";
import { formatSize } from "../../ui/format.ts";
import { navigate, route } from "../../ui/router.ts";
import { type DataCell, type DataPage as Page, type DataRow, fetchRows } from "./admin_api.ts";
import { status } from "./admin_state.ts";
import { PageHead, Waiting } from "./console_parts.tsx";
import { NODE_STATES, runs } from "./node_facts.ts";
import { preview, ValueView } from "./value_view.tsx";

const CELLS_PER_PAGE = 100;

interface Loaded {
  readonly key: string;
  readonly page: Page | null;
  readonly problem: string | null;
}

const loaded = signal<Loaded | null>(null);
/** The cell whose value is open. */
const open = signal<string | null>(null);

/** Where a row is: the data page of its tablet's primary, from that row on. */
export function addressOfRow(cluster: ClusterStatus, row: string): string {
  const tablet = cluster.tablets.find((it) => inRange(row, it.startKey, it.endKey));
  const backends = cluster.nodes.filter((node) => node.role === "backend");
  const node = backends.find((it) => it.id === tablet?.primary) ?? backends.find(runs) ??
    backends[0];
  return `/admin/data/${node?.port ?? ""}?start=${encodeURIComponent(row)}`;
}

export function DataPage({ port }: { port: number | null }): JSX.Element {
  const cluster = status.value;
  if (cluster === null) return <Waiting />;
  const backends = cluster.nodes.filter((node) => node.role === "backend");
  const node = backends.find((it) => it.port === port) ?? backends.find(runs) ?? backends[0];
  if (node === undefined) return <EmptyState icon="database" title="There are no backends" />;
  const { query } = route.value;
  const start = query.get("start") ?? "", cursor = query.get("cursor") ?? "";
  const address = (about: { port?: number; start?: string; cursor?: string }) => {
    const next = new URLSearchParams();
    if (about.start) next.set("start", about.start);
    if (about.cursor) next.set("cursor", about.cursor);
    return `/admin/data/${about.port ?? node.port}${next.size === 0 ? "" : `?${next}`}`;
  };
  return (
    <div class="console">
      <PageHead title="Data" detail="What a node has on its own disk, primary or not" />
      <div class="filters">
        <label class="filters__label">
          Node
          <Select
            label="Node"
            value={String(node.port)}
            options={backends.map((it) => ({
              value: String(it.port),
              label: `${it.name} · ${it.port}${
                it.state === "live" ? "" : ` · ${NODE_STATES[it.state].word.toLowerCase()}`
              }`,
            }))}
            onChange={(event: Event) =>
              navigate(address({ port: Number((event.target as HTMLSelectElement).value), start }))}
          />
        </label>
        <StartForm start={start} onStart={(key) => navigate(address({ start: key }))} />
      </div>
      <Rows
        key={node.port}
        port={node.port}
        start={start}
        cursor={cursor}
        nextHref={(next) => address({ start, cursor: next })}
        firstHref={cursor === "" && start === "" ? null : address({})}
      />
    </div>
  );
}

function StartForm(
  { start, onStart }: { start: string; onStart: (key: string) => void },
): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    input.current!.value = start;
  }, [start]);
  return (
    <form
      class="filters__start"
      onSubmit={(event) => {
        event.preventDefault();
        onStart(input.current!.value);
      }}
    >
      <label class="filters__label">
        From row
        <input
          ref={input}
          class="input mono"
          name="start"
          defaultValue={start}
          maxLength={1024}
          placeholder="the first"
          autocomplete="off"
          spellcheck={false}
        />
      </label>
      <Button type="submit" icon="arrow-right">Go</Button>
    </form>
  );
}

interface RowsProps {
  readonly port: number;
  readonly start: string;
  readonly cursor: string;
  readonly nextHref: (cursor: string) => string;
  readonly firstHref: string | null;
}

function Rows({ port, start, cursor, nextHref, firstHref }: RowsProps): JSX.Element {
  const key = JSON.stringify([port, start, cursor]);
  const top = useRef<HTMLDivElement>(null);
  const load = (signal: AbortSignal) => {
    fetchRows(port, { start, cursor, limit: CELLS_PER_PAGE, signal }).then(
      (page) => loaded.value = { key, page, problem: null },
      (error) => {
        if (signal.aborted) return;
        const problem = error instanceof ApiFailure ? error.message : String(error);
        // What is on the screen stays there, with a word about its age.
        const shown = loaded.peek();
        loaded.value = { key, page: shown?.key === key ? shown.page : null, problem };
      },
    );
  };
  useEffect(() => {
    open.value = null;
    top.current?.closest(".main")?.scrollTo({ top: 0 });
    const leaving = new AbortController();
    load(leaving.signal);
    return () => leaving.abort(new Error("left"));
  }, [key]);

  const current = loaded.value;
  if (current === null || current.key !== key) return <SkeletonRows count={8} />;
  const { page, problem } = current;
  const retry = () => load(new AbortController().signal);
  if (page === null) {
    return (
      <ErrorState
        title="This node's rows cannot be read now"
        text={`${problem ?? ""} Other nodes have the same rows.`}
        onRetry={retry}
      />
    );
  }
  if (page.rows.length === 0) {
    return (
      <EmptyState
        icon="table-2"
        title={start === "" ? "This node holds no rows" : "No rows from here on"}
        text={start === "" ? "Nothing has been stored in its tablets." : "Begin at an earlier row."}
      >
        {firstHref && <Button href={firstHref}>From the first row</Button>}
      </EmptyState>
    );
  }
  return (
    <div ref={top}>
      {problem !== null && <Notice tone="warning">{problem} What you see is a moment old.</Notice>}
      <div class="rows">
        {page.rows.map((row, index) => <RowBlock key={`${index} ${row.row}`} row={row} />)}
      </div>
      <nav class="pager" aria-label="Pages">
        {firstHref && <Button icon="skip-back" href={firstHref}>First page</Button>}
        <Button icon="refresh-cw" onClick={retry}>Read again</Button>
        {page.next === null
          ? <span class="muted">This was the last page.</span>
          : (
            <Button variant="primary" icon="arrow-right" href={nextHref(page.next)}>
              Next page
            </Button>
          )}
      </nav>
    </div>
  );
}

function RowBlock({ row }: { row: DataRow }): JSX.Element {
  return (
    <section class="row-block">
      <h2 class="row-block__key">
        <span class="mono">{row.row}</span>
        <Badge>group {row.group}</Badge>
      </h2>
      {row.cells.map((cell) => <Cell key={cell.column} row={row.row} cell={cell} />)}
    </section>
  );
}

function Cell({ row, cell }: { row: string; cell: DataCell }): JSX.Element {
  const id = `${row}\n${cell.column}`, isOpen = open.value === id;
  return (
    <div class={isOpen ? "cell cell--open" : "cell"}>
      <button
        type="button"
        class="cell__line"
        aria-expanded={isOpen ? "true" : "false"}
        onClick={() => open.value = isOpen ? null : id}
      >
        <Icon name={isOpen ? "chevron-down" : "chevron-right"} size="small" />
        <span class="cell__column mono">{cell.column}</span>
        <span class="cell__value mono">
          {cell.secret && <Icon name="lock" size="small" />}
          {preview(cell)}
        </span>
        <span class="cell__size">{formatSize(cell.size)}</span>
        <span class="cell__version" title="The position in its group's log that wrote it">
          v{cell.version}
        </span>
      </button>
      {isOpen && <ValueView cell={cell} />}
    </div>
  );
}

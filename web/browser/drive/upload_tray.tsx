/** The tray at the bottom right: a bar per upload and one for all. */
import type { JSX } from "preact";
import { Icon } from "../../ui/components/icon.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { ProgressBar } from "../../ui/components/progress_bar.tsx";
import { VirtualList } from "../../ui/components/virtual_list.tsx";
import { formatDuration, formatSize, plural } from "../../ui/format.ts";
import { navigate } from "../../ui/router.ts";
import { folderAddress } from "./drive_state.ts";
import {
  cancel,
  clearFinished,
  isActive,
  pause,
  resume,
  speed,
  totals,
  type Transfer,
  transfers,
  trayOpen,
} from "./uploads.ts";

const ROW_HEIGHT = 60;
const ROWS_SEEN = 5;

export function UploadTray(): JSX.Element | null {
  const all = transfers.value;
  if (all.length === 0) return null;
  const { active, bytes, sent } = totals.value;
  const open = trayOpen.value;
  return (
    <section class="tray" aria-label="Uploads">
      <div class="tray__head">
        <h2 class="tray__title" aria-live="polite">{headline()}</h2>
        <IconButton
          icon={open ? "chevron-down" : "chevron-up"}
          label={open ? "Show less" : "Show all"}
          small
          onClick={() => trayOpen.value = !open}
        />
        <IconButton
          icon="x"
          label={active > 0 ? "Cancel all" : "Close"}
          small
          onClick={() => {
            for (const transfer of all.filter(isActive)) cancel(transfer);
            clearFinished();
          }}
        />
      </div>
      {active > 0 && (
        <div class="tray__total">
          <ProgressBar value={bytes === 0 ? null : Math.min(0.99, sent / bytes)} label="All" />
          <p class="tray__numbers">
            <span>{formatSize(sent)} of {formatSize(bytes)}</span>
            <span>{pace(bytes - sent)}</span>
          </p>
        </div>
      )}
      {open && (
        <div
          class="tray__list"
          style={{ height: `${Math.min(ROWS_SEEN, all.length) * ROW_HEIGHT}px` }}
        >
          <VirtualList
            items={all}
            rowHeight={ROW_HEIGHT}
            keyOf={({ id }) => String(id)}
            row={(transfer) => <TransferRow transfer={transfer} />}
            label="Uploads"
          />
        </div>
      )}
    </section>
  );
}

function headline(): string {
  const { active, done, failed, paused } = totals.value;
  if (active > 0) return `Uploading ${plural(active, "file", "files")}`;
  if (failed > 0) return `${plural(failed, "upload", "uploads")} failed`;
  if (paused > 0) return `${plural(paused, "upload", "uploads")} paused`;
  return done === 0 ? "Nothing uploaded" : `${plural(done, "file", "files")} stored`;
}

function pace(left: number): string {
  const rate = speed.value;
  if (rate < 1000) return "";
  return `${formatSize(rate)}/s, ${formatDuration(left / rate)} left`;
}

function TransferRow({ transfer }: { transfer: Transfer }): JSX.Element {
  const { file, sent, error, item, parent } = transfer, state = transfer.state.value;
  const share = file.size === 0 ? null : sent.value / file.size;
  const words: Record<typeof state, string> = {
    waiting: "Waiting",
    sending: `${formatSize(sent.value)} of ${formatSize(file.size)}`,
    storing: "Storing on all disks",
    asking: "This name is taken",
    retrying: "No answer yet; trying again",
    paused: `Paused at ${formatSize(sent.value)} of ${formatSize(file.size)}`,
    done: `Stored, ${formatSize(file.size)}`,
    failed: error.value,
    skipped: "Skipped",
  };
  const shown = state === "sending" || state === "storing" || state === "retrying";
  return (
    <div class={`transfer transfer--${state}`}>
      <span class="transfer__state">
        <Icon name={ICONS[state]} size="small" />
      </span>
      <div class="transfer__main">
        <div class="transfer__name truncate" title={file.name}>{file.name}</div>
        {shown && (
          <ProgressBar
            value={share === null ? null : Math.min(0.99, share)}
            label={file.name}
            {...(state === "retrying" ? { tone: "warning" as const } : {})}
          />
        )}
        <div class="transfer__words truncate" title={words[state]}>{words[state]}</div>
      </div>
      {(state === "sending" || state === "retrying") && (
        <IconButton
          icon="pause"
          label="Pause"
          small
          onClick={() => pause(transfer)}
        />
      )}
      {state === "paused" && (
        <IconButton
          icon="play"
          label="Resume"
          small
          onClick={() => resume(transfer)}
        />
      )}
      {state === "failed" && (
        <IconButton
          icon="rotate-cw"
          label="Try again"
          small
          onClick={() => resume(transfer)}
        />
      )}
      {state === "done"
        ? (
          <IconButton
            icon="folder-open"
            label="Show in its folder"
            small
            onClick={() => navigate(`${folderAddress(parent)}?preview=${item.value ?? ""}`)}
          />
        )
        : <IconButton icon="x" label="Cancel" small onClick={() => cancel(transfer)} />}
    </div>
  );
}

const ICONS = {
  waiting: "clock",
  sending: "upload",
  storing: "hard-drive",
  asking: "circle-help",
  retrying: "hourglass",
  paused: "pause",
  done: "circle-check",
  failed: "triangle-alert",
  skipped: "minus",
} as const;

/**
 * A file above the page: pictures to zoom, music and film that seek, PDF, text and code; for anything
 * else what it is, and a way to have it. Arrow keys go through the files of the place.
 */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiFailure } from "../../ui/api.ts";
import { Button } from "../../ui/components/button.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { Skeleton } from "../../ui/components/skeleton.tsx";
import { formatFullDate, formatSize } from "../../ui/format.ts";
import { navigate } from "../../ui/router.ts";
import { download } from "./drive_actions.ts";
import { contentUrl, getFolder, type Item } from "./drive_api.ts";
import { place, previewAddress, previewId, selectOnly, shown } from "./drive_state.ts";
import { kindOf } from "./file_kind.ts";
import { highlight } from "./highlight.ts";
import { FileIcon } from "./item_parts.tsx";

const TEXT_BYTES_MAX = 256 * 1024;

export function PreviewHost(): JSX.Element | null {
  const id = previewId.value;
  if (id === null || id === "" || place.value.kind === "trash") return null;
  return <Preview id={id} />;
}

function Preview({ id }: { id: string }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const files = shown.value.filter(({ type }) => type === "file");
  const index = files.findIndex((file) => file.id === id);
  const fetched = useSignal<{ id: string; item: Item | null; error: string } | null>(null);
  const found = fetched.value?.id === id ? fetched.value : null;
  const item = files[index] ?? found?.item ?? null;
  const close = () => navigate(previewAddress(null));
  const go = (by: number) => {
    const next = files[index + by];
    if (index >= 0 && next !== undefined) navigate(previewAddress(next.id), { replace: true });
  };

  useEffect(() => {
    const element = dialog.current!, before = document.activeElement as HTMLElement | null;
    element.showModal();
    element.focus();
    return () => {
      element.close();
      before?.focus();
    };
  }, []);
  useEffect(() => {
    if (index >= 0) selectOnly(id);
  }, [id, index]);
  // A link to a file that this place does not hold, or does not hold yet.
  useEffect(() => {
    if (index >= 0) return;
    const aborter = new AbortController();
    getFolder(id, { limit: 1, signal: aborter.signal }).then(
      (page) => fetched.value = { id, item: page.item, error: "" },
      (error) => {
        if (aborter.signal.aborted) return;
        const why = error instanceof ApiFailure ? error.message : "It could not be loaded.";
        fetched.value = { id, item: null, error: why };
      },
    );
    return () => aborter.abort();
  }, [id, index < 0]);

  return (
    <dialog
      ref={dialog}
      class="preview"
      aria-label={item === null ? "Preview" : `Preview of ${item.name}`}
      tabIndex={-1}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onKeyDown={(event) => {
        event.stopPropagation();
        // Arrow keys seek in what plays.
        if ((event.target as Element).closest("video, audio, pre")) return;
        if (event.key === "ArrowLeft") go(-1);
        if (event.key === "ArrowRight") go(1);
        if (event.key === "d" && item !== null) download([item]);
      }}
    >
      <header class="preview__head">
        <IconButton icon="arrow-left" label="Back" shortcut="Esc" onClick={close} />
        {item && <FileIcon item={item} />}
        <div class="preview__names">
          <h2 class="preview__name truncate">{item?.name ?? ""}</h2>
          {item && (
            <p class="preview__detail truncate" title={formatFullDate(item.modified)}>
              {formatSize(item.size)}
              {index >= 0 && files.length > 1 ? ` · ${index + 1} of ${files.length}` : ""}
            </p>
          )}
        </div>
        {item && (
          <IconButton
            icon="download"
            label="Download"
            shortcut="d"
            onClick={() => download([item])}
          />
        )}
      </header>
      <div
        class="preview__body"
        onClick={(event) => {
          if (event.target === event.currentTarget) close();
        }}
      >
        {item !== null && <Content key={item.id + item.etag} item={item} />}
        {item === null && found === null && <Skeleton width="medium" />}
        {found?.error && <Nothing title="This file cannot be shown" text={found.error} />}
      </div>
      {index > 0 && (
        <span class="preview__step preview__step--back">
          <IconButton icon="chevron-left" label="Previous file" onClick={() => go(-1)} />
        </span>
      )}
      {index >= 0 && index < files.length - 1 && (
        <span class="preview__step preview__step--on">
          <IconButton icon="chevron-right" label="Next file" onClick={() => go(1)} />
        </span>
      )}
    </dialog>
  );
}

function Content({ item }: { item: Item }): JSX.Element {
  const failed = useSignal(false);
  if (failed.value) return <Fallback item={item} text="Your browser cannot show this file." />;
  const onError = () => failed.value = true;
  const url = contentUrl(item);
  switch (kindOf(item).preview) {
    case "image":
      return <Picture item={item} onError={onError} />;
    case "video":
      return <video class="preview__film" src={url} controls autoplay onError={onError} />;
    case "audio":
      return (
        <div class="preview__sound">
          <FileIcon item={item} large />
          <p class="preview__sound-name">{item.name}</p>
          <audio src={url} controls autoplay onError={onError} />
        </div>
      );
    case "pdf":
      if (navigator.pdfViewerEnabled) {
        return <iframe class="preview__paper" src={url} title={item.name} />;
      }
      return <Fallback item={item} text="This browser shows no PDF in a page." />;
    case "text":
      return <Text item={item} onError={onError} />;
    case "none":
      return <Fallback item={item} text="There is no preview for this kind of file." />;
  }
}

/** Fits the window; a press shows every pixel, and the wheel with Ctrl anything between. */
function Picture({ item, onError }: { item: Item; onError: () => void }): JSX.Element {
  const zoom = useSignal<number | null>(null);
  const image = useRef<HTMLImageElement>(null);
  const setZoom = (next: number | null) => {
    zoom.value = next === null ? null : Math.max(0.1, Math.min(8, next));
  };
  const now = () => zoom.value ?? (image.current!.clientWidth / (image.current!.naturalWidth || 1));
  const width = zoom.value === null || image.current === null
    ? null
    : Math.round((image.current.naturalWidth || 800) * zoom.value);
  return (
    <>
      <div
        class={zoom.value === null ? "picture" : "picture picture--zoomed"}
        onWheel={(event) => {
          if (!event.ctrlKey) return;
          event.preventDefault();
          setZoom(now() * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
        }}
      >
        <img
          ref={image}
          src={contentUrl(item)}
          alt={item.name}
          onError={onError}
          onDblClick={() => setZoom(zoom.value === null ? 1 : null)}
          {...(width === null ? {} : { style: { width: `${width}px` } })}
        />
      </div>
      <div class="picture__zoom" role="group" aria-label="Zoom">
        <IconButton icon="zoom-out" label="Smaller" onClick={() => setZoom(now() / 1.4)} />
        <button type="button" class="picture__fit" onClick={() => setZoom(null)}>
          {zoom.value === null ? "Fit" : `${Math.round(zoom.value * 100)} %`}
        </button>
        <IconButton icon="zoom-in" label="Larger" onClick={() => setZoom(now() * 1.4)} />
      </div>
    </>
  );
}

function Text({ item, onError }: { item: Item; onError: () => void }): JSX.Element {
  const text = useSignal<string | null>(null);
  useEffect(() => {
    const aborter = new AbortController();
    const headers = item.size > TEXT_BYTES_MAX ? { Range: `bytes=0-${TEXT_BYTES_MAX - 1}` } : {};
    fetch(contentUrl(item), { headers: headers as HeadersInit, signal: aborter.signal })
      .then(async (response) => {
        if (!response.ok) throw new Error(`status ${response.status}`);
        text.value = await response.text();
      })
      .catch(() => {
        if (!aborter.signal.aborted) onError();
      });
    return () => aborter.abort();
  }, []);
  if (text.value === null) return <Skeleton width="medium" />;
  const tokens = highlight(item.name, text.value);
  return (
    <div class="preview__text">
      <pre tabIndex={0}>
        {tokens === null ? text.value : tokens.map((token, index) =>
          token.kind === "plain"
            ? token.text
            : <span class={`code-${token.kind}`} key={index}>{token.text}</span>
        )}
      </pre>
      {item.size > TEXT_BYTES_MAX && (
        <p class="preview__more">
          This is the beginning. Download the file to see all {formatSize(item.size)} of it.
        </p>
      )}
    </div>
  );
}

function Fallback({ item, text }: { item: Item; text: string }): JSX.Element {
  return (
    <div class="preview__nothing">
      <FileIcon item={item} large />
      <h3>{item.name}</h3>
      <p>{text}</p>
      <div class="preview__actions">
        <Button variant="primary" icon="download" onClick={() => download([item])}>
          Download {formatSize(item.size)}
        </Button>
      </div>
    </div>
  );
}

function Nothing({ title, text }: { title: string; text: string }): JSX.Element {
  return (
    <div class="preview__nothing">
      <h3>{title}</h3>
      <p>{text}</p>
    </div>
  );
}

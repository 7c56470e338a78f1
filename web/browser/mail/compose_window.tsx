/** The windows in which messages are written: docked at the foot, or the whole screen on a phone. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { Notice } from "../../ui/components/notice.tsx";
import { ProgressBar } from "../../ui/components/progress_bar.tsx";
import { formatSize } from "../../ui/format.ts";
import { AddressField } from "./address_field.tsx";
import { type Compose, type ComposeAttachment, type SaveState, windows } from "./compose_state.ts";
import { loadContacts } from "./contacts.ts";

export function ComposeWindows(): JSX.Element | null {
  if (windows.value.length === 0) return null;
  return (
    <div class="compose-dock">
      {windows.value.map((compose) => <ComposeWindow key={compose.id} compose={compose} />)}
    </div>
  );
}

const SAVE_WORDS: Record<SaveState, string> = {
  empty: "",
  dirty: "Not saved yet",
  saving: "Saving …",
  saved: "Saved",
  failed: "Kept in this browser; we keep trying to save it",
};

function ComposeWindow({ compose }: { compose: Compose }): JSX.Element {
  const text = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const [dropping, setDropping] = useState(false);
  const { minimized, large, error } = compose;

  useEffect(() => {
    void loadContacts();
    if (!compose.focusText) return;
    text.current?.focus();
    text.current?.setSelectionRange(0, 0);
  }, []);

  const changed = () => compose.changed();
  const send = () => void compose.send();
  const onKeyDown = (event: KeyboardEvent) => {
    // What is typed here is text, not a shortcut of the list below.
    event.stopPropagation();
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
      event.preventDefault();
      // Finishes the address that is being typed.
      (document.activeElement as HTMLElement | null)?.blur();
      send();
    } else if (event.key === "Escape") void compose.close();
  };
  const take = (list: FileList | undefined | null): boolean => {
    if (!list || list.length === 0) return false;
    compose.addFiles(list);
    return true;
  };

  if (minimized.value) {
    return (
      <section class="compose compose--minimized" aria-label={compose.title.value}>
        <div class="compose__head">
          <button
            type="button"
            class="compose__title truncate"
            onClick={() => minimized.value = false}
          >
            {compose.title.value}
          </button>
          <IconButton
            icon="chevron-up"
            label="Open the window"
            small
            onClick={() => minimized.value = false}
          />
          <IconButton icon="x" label="Save and close" small onClick={() => void compose.close()} />
        </div>
      </section>
    );
  }
  const classes = ["compose", large.value && "compose--large", dropping && "compose--drop"];
  return (
    <section
      class={classes.filter(Boolean).join(" ")}
      role="dialog"
      aria-label={compose.title.value}
      onKeyDown={onKeyDown}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setDropping(true);
      }}
      onDragLeave={() => setDropping(false)}
      onDrop={(event) => {
        setDropping(false);
        if (take(event.dataTransfer?.files)) event.preventDefault();
      }}
      onPaste={(event) => {
        if (take(event.clipboardData?.files)) event.preventDefault();
      }}
    >
      <div class="compose__head">
        <h2 class="compose__title truncate">{compose.title.value}</h2>
        <span class="compose__only-wide">
          <IconButton
            icon="minus"
            label="Minimize"
            small
            onClick={() => {
              minimized.value = true;
              void compose.save();
            }}
          />
        </span>
        <span class="compose__only-wide">
          <IconButton
            icon={large.value ? "minimize-2" : "maximize-2"}
            label={large.value ? "Smaller" : "Larger"}
            small
            onClick={() => large.value = !large.value}
          />
        </span>
        <IconButton icon="x" label="Save and close" small onClick={() => void compose.close()} />
      </div>
      <div class="compose__fields">
        <AddressField
          label="To"
          value={compose.to}
          onChange={changed}
          bad={compose.badAddress.value}
          autofocus={!compose.focusText}
        />
        <div class="compose__more">
          {!compose.showCc.value && (
            <button
              type="button"
              onClick={() => compose.showCc.value = true}
            >
              Cc
            </button>
          )}
          {!compose.showBcc.value && (
            <button
              type="button"
              onClick={() => compose.showBcc.value = true}
            >
              Bcc
            </button>
          )}
        </div>
        {compose.showCc.value && (
          <AddressField
            label="Cc"
            value={compose.cc}
            onChange={changed}
            bad={compose.badAddress.value}
          />
        )}
        {compose.showBcc.value && (
          <AddressField
            label="Bcc"
            value={compose.bcc}
            onChange={changed}
            bad={compose.badAddress.value}
          />
        )}
        <input
          class="compose__subject"
          type="text"
          aria-label="Subject"
          placeholder="Subject"
          maxLength={2000}
          value={compose.subject.value}
          onInput={(event) => {
            compose.subject.value = event.currentTarget.value;
            changed();
          }}
        />
      </div>
      {error.value && (
        <div class="compose__error">
          <Notice tone="danger">{error.value}</Notice>
        </div>
      )}
      <textarea
        ref={text}
        class="compose__text"
        aria-label="Message"
        placeholder="Write your message"
        value={compose.text.value}
        onInput={(event) => {
          compose.text.value = event.currentTarget.value;
          changed();
        }}
        onBlur={() => void compose.save()}
      />
      {compose.attachments.value.length > 0 && (
        <ul class="compose__attachments" aria-label="Attachments">
          {compose.attachments.value.map((attachment) => (
            <AttachmentRow key={attachment.key} compose={compose} attachment={attachment} />
          ))}
        </ul>
      )}
      <div class="compose__foot">
        <Button
          variant="primary"
          icon="send"
          disabled={compose.uploading.value}
          title="Ctrl+Enter"
          onClick={send}
        >
          {compose.uploading.value ? "Uploading …" : "Send"}
        </Button>
        <IconButton icon="paperclip" label="Attach files" onClick={() => files.current?.click()} />
        <input
          ref={files}
          class="unseen"
          type="file"
          multiple
          tabIndex={-1}
          aria-label="Files to attach"
          onChange={(event) => {
            take(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
        <span
          class={compose.saveState.value === "failed"
            ? "compose__saved compose__saved--failed"
            : "compose__saved"}
          role="status"
        >
          {SAVE_WORDS[compose.saveState.value]}
        </span>
        <IconButton icon="trash-2" label="Discard draft" onClick={() => void compose.discard()} />
      </div>
      {dropping && (
        <div class="compose__drop-hint" aria-hidden="true">Drop files to attach them</div>
      )}
    </section>
  );
}

function AttachmentRow(
  { compose, attachment }: { compose: Compose; attachment: ComposeAttachment },
): JSX.Element {
  const { key, filename, size, progress, error } = attachment;
  return (
    <li class={error === undefined ? "attachment-row" : "attachment-row attachment-row--failed"}>
      <Icon name="paperclip" size="small" />
      <span class="attachment-row__name truncate" title={filename}>{filename}</span>
      <span class="muted">{error ?? formatSize(size)}</span>
      {progress !== null && error === undefined && (
        <ProgressBar value={progress} label={`Upload of ${filename}`} />
      )}
      {error !== undefined && (
        <Button
          small
          variant="quiet"
          onClick={() => compose.retryUpload(key)}
        >
          Try again
        </Button>
      )}
      <IconButton
        icon="x"
        small
        label={`Remove ${filename}`}
        onClick={() =>
          compose.removeAttachment(key)}
      />
    </li>
  );
}

/** Making and taking away boundaries between tablets by hand. Nothing is interrupted, so nothing is asked. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { ApiFailure } from "../../ui/api.ts";
import { Button } from "../../ui/components/button.tsx";
import { showToast } from "../../ui/components/toast.tsx";
import { reshapeTablets } from "./admin_api.ts";
import { refresh } from "./admin_state.ts";

const DONE = {
  split: (key: string) =>
    `A tablet begins at ${key} now. The boundary stays until you merge there.`,
  merge: (key: string) => `There is no boundary at ${key} any more.`,
};

export function TabletForm(): JSX.Element {
  const key = useSignal("");
  const busy = useSignal<"split" | "merge" | null>(null);
  const give = async (kind: "split" | "merge") => {
    if (key.value === "" || busy.value !== null) return;
    busy.value = kind;
    try {
      await reshapeTablets(kind, key.value);
      showToast({ message: DONE[kind](key.value), icon: "check" });
      key.value = "";
    } catch (error) {
      const message = error instanceof ApiFailure ? error.message : String(error);
      showToast({ message, icon: "triangle-alert", durationMs: 15_000 });
    }
    busy.value = null;
    await refresh();
  };
  return (
    <form
      class="filters__start"
      onSubmit={(event) => {
        event.preventDefault();
        void give("split");
      }}
    >
      <label class="filters__label">
        Row key
        <input
          class="input mono"
          name="key"
          value={key.value}
          maxLength={1024}
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => key.value = event.currentTarget.value}
        />
      </label>
      <Button type="submit" busy={busy.value === "split"} disabled={key.value === ""}>
        Split here
      </Button>
      <Button
        busy={busy.value === "merge"}
        disabled={key.value === ""}
        onClick={() => void give("merge")}
      >
        Merge here
      </Button>
    </form>
  );
}

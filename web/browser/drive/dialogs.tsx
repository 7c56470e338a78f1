/** Small dialogs of the drive: a new folder, a name that is taken, the keys. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { ApiFailure } from "../../ui/api.ts";
import { Button } from "../../ui/components/button.tsx";
import { Checkbox } from "../../ui/components/checkbox.tsx";
import { Dialog } from "../../ui/components/dialog.tsx";
import { TextField } from "../../ui/components/text_field.tsx";
import { type Choice, question } from "./conflicts.ts";
import { makeFolder, newFolderOpen } from "./drive_actions.ts";
import { helpOpen, SHORTCUTS } from "./keyboard.ts";

export function DriveDialogs(): JSX.Element {
  return (
    <>
      {newFolderOpen.value && <NewFolderDialog />}
      {question.value !== null && <ConflictDialog key={question.value.name} />}
      {helpOpen.value && <ShortcutsDialog />}
    </>
  );
}

function NewFolderDialog(): JSX.Element {
  const name = useSignal("New folder"), error = useSignal<string | null>(null);
  const busy = useSignal(false);
  const close = () => newFolderOpen.value = false;
  const create = async () => {
    busy.value = true;
    try {
      await makeFolder(name.value.trim());
      close();
    } catch (failure) {
      error.value = failure instanceof ApiFailure ? failure.message : "It could not be made.";
    }
    busy.value = false;
  };
  return (
    <Dialog
      title="New folder"
      onClose={close}
      onSubmit={() => void create()}
      footer={
        <>
          <Button onClick={close}>Cancel</Button>
          <Button
            variant="primary"
            type="submit"
            busy={busy.value}
            disabled={name.value.trim() === ""}
          >
            Create
          </Button>
        </>
      }
    >
      <TextField
        label="Name"
        name="folder-name"
        value={name.value}
        error={error.value}
        autocomplete="off"
        onFocus={(event) => event.currentTarget.select()}
        onInput={(event) => {
          name.value = event.currentTarget.value;
          error.value = null;
        }}
      />
    </Dialog>
  );
}

function ConflictDialog(): JSX.Element {
  const { name, mayReplace, several, answer } = question.value!;
  const forAll = useSignal(false);
  const choose = (choice: Choice) => answer(choice, forAll.value);
  return (
    <Dialog
      title="This name is taken"
      onClose={() => choose("skip")}
      footer={
        <>
          <Button onClick={() => choose("skip")}>Skip</Button>
          {mayReplace && <Button onClick={() => choose("replace")}>Replace</Button>}
          <Button variant="primary" onClick={() => choose("keep_both")}>Keep both</Button>
        </>
      }
    >
      <p class="conflict__text">
        There is already something named <strong>{name}</strong>{" "}
        in this folder. Keeping both gives the new one a number.
      </p>
      {several && (
        <Checkbox
          label="Do the same for all that follow"
          checked={forAll.value}
          onChange={(event) => forAll.value = event.currentTarget.checked}
        />
      )}
    </Dialog>
  );
}

function ShortcutsDialog(): JSX.Element {
  return (
    <Dialog title="Keys" onClose={() => helpOpen.value = false}>
      <dl class="drive-keys">
        {SHORTCUTS.map(([keys, what]) => (
          <div class="drive-keys__row" key={keys}>
            <dt>{keys.split(" / ").map((one) => <kbd key={one}>{one}</kbd>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}

/** The frame and the parts that move, to look at and to test while developing. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { api, ApiFailure } from "../ui/api.ts";
import { readBoot } from "../ui/boot.ts";
import { Button } from "../ui/components/button.tsx";
import { confirm } from "../ui/components/confirm.tsx";
import { Dialog } from "../ui/components/dialog.tsx";
import { IconButton } from "../ui/components/icon_button.tsx";
import { ListRow } from "../ui/components/list_row.tsx";
import { MenuButton } from "../ui/components/menu.tsx";
import { TextField } from "../ui/components/text_field.tsx";
import { showToast } from "../ui/components/toast.tsx";
import { VirtualList } from "../ui/components/virtual_list.tsx";
import { mount } from "../ui/mount.ts";
import { route, startRouter } from "../ui/router.ts";
import { AppShell, RailAction, RailHeading, RailLink } from "../ui/shell.tsx";

const boot = readBoot();
const ROWS = Array.from({ length: 10_000 }, (_, index) => ({ id: `row-${index}`, number: index }));

function Demo(): JSX.Element {
  const dialogOpen = useSignal(false), query = useSignal(""), answer = useSignal("");
  const place = route.value.path;
  const link = (name: string) => `/styleguide/app/${name}`;
  return (
    <AppShell
      app="home"
      user={boot.user}
      balancer={boot.balancer}
      search={{
        placeholder: "Search everything",
        value: query.value,
        onSearch: (text) => query.value = text,
      }}
      rail={
        <>
          <RailAction
            icon="pencil"
            label="Compose"
            onClick={() => showToast({ message: "Nothing to compose here" })}
          />
          <RailLink
            icon="inbox"
            label="Inbox"
            href={link("inbox")}
            current={place === link("inbox")}
            count={12}
          />
          <RailLink icon="send" label="Sent" href={link("sent")} current={place === link("sent")} />
          <RailLink
            icon="trash-2"
            label="Trash"
            href={link("trash")}
            current={place === link("trash")}
          />
          <RailHeading>Folders</RailHeading>
          <RailLink
            icon="folder"
            label="A folder with a name that is rather long"
            href={link("long")}
          />
        </>
      }
    >
      <div class="styleguide__demo">
        <div class="styleguide__row">
          <Button onClick={() => dialogOpen.value = true}>Open a dialog</Button>
          <Button
            onClick={async () => {
              const yes = await confirm({
                title: "Delete for good?",
                text: "This cannot be taken back.",
                action: "Delete",
                danger: true,
              });
              answer.value = yes ? "deleted" : "kept";
            }}
          >
            Ask
          </Button>
          <Button
            onClick={() =>
              showToast({
                message: "Moved to Trash",
                action: { label: "Undo", run: () => answer.value = "undone" },
              })}
          >
            Show a toast
          </Button>
          <Button
            onClick={async () => {
              try {
                await api("/session");
                answer.value = "answered";
              } catch (error) {
                answer.value = error instanceof ApiFailure ? error.code : String(error);
              }
            }}
          >
            Ask the server
          </Button>
          <MenuButton
            label="More"
            items={[
              {
                label: "Reply",
                icon: "reply",
                shortcut: "r",
                onSelect: () => answer.value = "reply",
              },
              { label: "Not now", icon: "ban", disabled: true },
              "separator",
              {
                label: "Delete",
                icon: "trash-2",
                danger: true,
                onSelect: () => answer.value = "delete",
              },
            ]}
          />
          <output id="answer">{answer.value}</output>
        </div>
        <div class="styleguide__list">
          <VirtualList
            items={ROWS}
            rowHeight={52}
            label="Many rows"
            keyOf={(row) => row.id}
            row={(row) => (
              <ListRow
                title={`Row ${row.number}`}
                detail={`One of ${ROWS.length}`}
                end={<IconButton icon="star" label={`Star row ${row.number}`} small />}
              />
            )}
          />
        </div>
      </div>
      {dialogOpen.value && (
        <Dialog
          title="New folder"
          onClose={() => dialogOpen.value = false}
          onSubmit={() => {
            dialogOpen.value = false;
            answer.value = "made";
          }}
          footer={
            <>
              <Button onClick={() => dialogOpen.value = false}>Cancel</Button>
              <Button variant="primary" type="submit">Make it</Button>
            </>
          }
        >
          <TextField label="Name" name="folder" autocomplete="off" />
        </Dialog>
      )}
    </AppShell>
  );
}

startRouter("/styleguide/app");
mount(<Demo />);

/** Every component once, in both themes side by side. Served while developing only. */
import type { ComponentChildren, JSX } from "preact";
import { Avatar } from "../ui/components/avatar.tsx";
import { Badge } from "../ui/components/badge.tsx";
import { Breadcrumb } from "../ui/components/breadcrumb.tsx";
import { Button } from "../ui/components/button.tsx";
import { Checkbox } from "../ui/components/checkbox.tsx";
import { Icon } from "../ui/components/icon.tsx";
import { IconButton } from "../ui/components/icon_button.tsx";
import { ListRow } from "../ui/components/list_row.tsx";
import { Notice } from "../ui/components/notice.tsx";
import { ProgressBar } from "../ui/components/progress_bar.tsx";
import { Segments } from "../ui/components/segments.tsx";
import { Select } from "../ui/components/select.tsx";
import { SkeletonRows } from "../ui/components/skeleton.tsx";
import { EmptyState, ErrorState } from "../ui/components/states.tsx";
import { Tabs } from "../ui/components/tabs.tsx";
import { TextField } from "../ui/components/text_field.tsx";
import { ICON_NAMES } from "../ui/icons/icon_names.ts";

export function StyleguidePage(): JSX.Element {
  return (
    <main class="styleguide">
      <Sheet theme="light" />
      <Sheet theme="dark" />
    </main>
  );
}

function Part({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <section class="styleguide__part">
      <h2 class="rail-heading">{title}</h2>
      <div class="styleguide__row">{children}</div>
    </section>
  );
}

function Sheet({ theme }: { theme: "light" | "dark" }): JSX.Element {
  return (
    <div class="styleguide__sheet" data-theme={theme}>
      <h1>Components</h1>
      <Part title="Buttons">
        <Button variant="primary" icon="pencil">Compose</Button>
        <Button icon="upload">Upload</Button>
        <Button variant="quiet">Cancel</Button>
        <Button variant="danger">Delete for good</Button>
        <Button variant="primary" busy>Sending</Button>
        <Button disabled>Not now</Button>
        <Button small>Small</Button>
        <IconButton icon="archive" label="Archive" />
        <IconButton icon="star" label="Star" aria-pressed="true" />
        <IconButton icon="trash-2" label="Delete" small />
      </Part>
      <Part title="Fields">
        <div class="form">
          <TextField
            label="Name"
            name={`name-${theme}`}
            value="Ada Lovelace"
            hint="As on letters."
          />
          <TextField
            label="User name"
            name={`user-${theme}`}
            value="ada"
            suffix="@penncloud.test"
            error="This name is taken. Choose another."
          />
        </div>
        <div class="form">
          <Select
            label="Order"
            value="name"
            options={[{ value: "name", label: "By name" }, { value: "date", label: "By date" }]}
          />
          <Checkbox label="Remember me" checked />
          <Checkbox label="Some of these" mixed />
          <Segments
            label="View"
            value="list"
            options={[
              { value: "list", label: "List", icon: "list" },
              { value: "grid", label: "Grid", icon: "layout-grid" },
            ]}
            onChange={() => {}}
          />
        </div>
      </Part>
      <Part title="People and marks">
        {["Ada Lovelace", "bob", "Grace Hopper", "linus", "zoe", "Margaret H.", "ünal", "42"].map((
          name,
        ) => <Avatar key={name} name={name} />)}
        <Avatar name="Ada Lovelace" size="large" />
        <Badge>12</Badge>
        <Badge tone="success" icon="circle-check">Live</Badge>
        <Badge tone="warning" icon="triangle-alert">Suspect</Badge>
        <Badge tone="danger" icon="circle-x">Down</Badge>
        <Badge tone="info" icon="loader-circle">Joining</Badge>
        <Badge tone="accent">New</Badge>
      </Part>
      <Part title="Messages">
        <Notice>Your copy is up to date.</Notice>
        <Notice tone="success">The password is changed.</Notice>
        <Notice tone="warning">The disk is nearly full.</Notice>
        <Notice tone="danger">Not sent yet. Your text is safe in Drafts.</Notice>
        <div class="toast">
          <span class="toast__message">Moved to Trash</span>
          <button type="button" class="toast__action">Undo</button>
        </div>
      </Part>
      <Part title="Navigation">
        <Tabs
          label={`Views, ${theme}`}
          tabs={[
            { href: "#overview", label: "Overview", current: true },
            { href: "#nodes", label: "Nodes", current: false },
            { href: "#tablets", label: "Tablets", current: false },
          ]}
        />
        <Breadcrumb
          label={`Path, ${theme}`}
          steps={[
            { label: "My drive", href: "#root" },
            { label: "Photos", href: "#photos" },
            { label: "At the lake", href: "#lake" },
          ]}
        />
      </Part>
      <Part title="Menu">
        <div class="menu styleguide__menu" role="group" aria-label="An open menu">
          <span class="menu__item">
            <Icon name="reply" />Reply<span class="menu__shortcut">r</span>
          </span>
          <span class="menu__item">
            <Icon name="forward" />Forward<span class="menu__shortcut">f</span>
          </span>
          <div class="menu__separator"></div>
          <span class="menu__item menu__item--danger">
            <Icon name="trash-2" />Delete<span class="menu__shortcut">#</span>
          </span>
        </div>
      </Part>
      <Part title="Lists and progress">
        <div class="rows styleguide__wide">
          <ListRow
            start={<Avatar name="Grace Hopper" />}
            title="Compiler talk on Thursday"
            detail="The talk is at 18:30 in the small hall."
            end={<span class="muted">14:05</span>}
            href="#row"
          />
          <ListRow
            start={<Avatar name="bob" />}
            title="Dinner on Saturday?"
            detail="We thought of seven o'clock at ours."
            end={<span class="muted">Yesterday</span>}
            href="#row"
            current
          />
        </div>
        <div class="styleguide__wide">
          <ProgressBar value={0.62} label="Upload" />
        </div>
        <div class="styleguide__wide">
          <SkeletonRows count={2} />
        </div>
      </Part>
      <Part title="States">
        <EmptyState icon="inbox" title="Nothing here" text="New messages will show up here.">
          <Button icon="pencil">Write one</Button>
        </EmptyState>
        <ErrorState
          title="The folder could not be loaded"
          text="The store does not answer. Nothing is lost."
          onRetry={() => {}}
        />
      </Part>
      <Part title="Icons">
        {ICON_NAMES.map((name) => <Icon key={name} name={name} />)}
      </Part>
    </div>
  );
}

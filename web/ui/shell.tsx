/**
 * The frame of every application: top bar with search, rail of apps, a side panel for the app's own
 * places, and the main area. On a phone the apps move to a bottom bar and the panel into a drawer.
 *
 *     <AppShell app="mail" user={boot.user} balancer={boot.balancer}
 *       rail={<><RailAction …/><RailLink …/></>} search={{ placeholder: "Search mail", onSearch }}>
 *
 * It also holds what any page may need: toasts, confirmations, and the banner that appears while the
 * store or the connection is away.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { connection, elsewhere } from "./api.ts";
import type { AppName, BootData } from "./boot.ts";
import { Brand } from "./brand.tsx";
import { Avatar } from "./components/avatar.tsx";
import { Button } from "./components/button.tsx";
import { ConfirmHost } from "./components/confirm.tsx";
import { Drawer } from "./components/drawer.tsx";
import { Icon } from "./components/icon.tsx";
import { IconButton } from "./components/icon_button.tsx";
import { MenuButton } from "./components/menu.tsx";
import { ToastHost } from "./components/toast.tsx";
import type { IconName } from "./icons/icon_names.ts";
import { route } from "./router.ts";
import { toggleTheme } from "./theme.ts";

export interface SearchOptions {
  readonly placeholder: string;
  /** The query that the page shows now. */
  readonly value?: string;
  /** Enter was pressed, or the field emptied (""). */
  readonly onSearch: (query: string) => void;
}

export interface AppShellProps {
  readonly app: AppName;
  readonly user: BootData["user"];
  readonly balancer?: string | null;
  /** What the side panel holds: a `RailAction`, `RailLink`s, headings. Absent: no panel. */
  readonly rail?: ComponentChildren;
  readonly search?: SearchOptions;
  readonly children: ComponentChildren;
}

const APPS: readonly { name: AppName; label: string; icon: IconName; href: string }[] = [
  { name: "mail", label: "Mail", icon: "mail", href: "/mail" },
  { name: "drive", label: "Drive", icon: "folder", href: "/drive" },
  { name: "admin", label: "Admin", icon: "server", href: "/admin" },
  { name: "account", label: "Account", icon: "user", href: "/account" },
];

export function AppShell(props: AppShellProps): JSX.Element {
  const { app, user, rail, search, children } = props;
  const drawerOpen = useSignal(false);
  useEffect(() => {
    elsewhere.balancer = props.balancer ?? null;
  }, [props.balancer]);
  // Choosing a place in the drawer has done what the drawer was for.
  const path = route.value;
  useEffect(() => {
    drawerOpen.value = false;
  }, [path]);

  const classes = ["shell", rail && "shell--with-panel", search && "shell--with-search"];
  return (
    <div class={classes.filter(Boolean).join(" ")}>
      <a class="skip-link" href="#main">Skip to content</a>
      <header class="top-bar">
        {rail && (
          <span class="shell__menu">
            <IconButton icon="menu" label="Menu" onClick={() => drawerOpen.value = true} />
          </span>
        )}
        <Brand />
        {search && <SearchField {...search} />}
        <div class="top-bar__end">
          <IconButton icon="sun-moon" label="Light or dark" onClick={toggleTheme} />
          <AccountMenu user={user} />
        </div>
      </header>
      <ConnectionBanner />
      <nav class="app-rail" aria-label="Applications">
        <AppLinks app={app} admin={user.admin} />
      </nav>
      {rail && <nav class="side-panel" aria-label="Places">{rail}</nav>}
      <main class="main" id="main" tabIndex={-1}>{children}</main>
      <nav class="bottom-bar" aria-label="Applications">
        <AppLinks app={app} admin={user.admin} />
      </nav>
      {drawerOpen.value && (
        <Drawer label="Places" onClose={() => drawerOpen.value = false}>
          <div class="drawer__head">
            <Brand />
            <IconButton icon="x" label="Close" onClick={() => drawerOpen.value = false} />
          </div>
          <nav class="side-panel" aria-label="Places">{rail}</nav>
        </Drawer>
      )}
      <ToastHost />
      <ConfirmHost />
    </div>
  );
}

/** One link per application; the server draws them too. */
export function AppLinks({ app, admin }: { app: AppName; admin: boolean }): JSX.Element {
  return (
    <>
      {APPS.filter((one) => admin || one.name !== "admin").map((one) => (
        <a
          key={one.name}
          class="app-link"
          href={one.href}
          {...(one.name === app ? { "aria-current": "page" as const } : {})}
        >
          <span class="app-link__icon">
            <Icon name={one.icon} />
          </span>
          {one.label}
        </a>
      ))}
    </>
  );
}

function SearchField({ placeholder, value = "", onSearch }: SearchOptions): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (input.current !== null) input.current.value = value;
  }, [value]);
  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        onSearch(input.current!.value.trim());
      }}
    >
      <Icon name="search" />
      <input
        ref={input}
        id="search"
        class="input"
        type="search"
        name="q"
        defaultValue={value}
        placeholder={placeholder}
        aria-label={placeholder}
        autocomplete="off"
        onInput={(event) => {
          if (event.currentTarget.value === "" && value !== "") onSearch("");
        }}
      />
      {value !== "" && (
        <IconButton
          icon="x"
          label="Clear the search"
          small
          onClick={() => onSearch("")}
        />
      )}
    </form>
  );
}

function AccountMenu({ user }: { user: BootData["user"] }): JSX.Element {
  return (
    <MenuButton
      label="Account"
      items={[
        { heading: user.address },
        { label: "Account settings", icon: "settings", href: "/account" },
        "separator",
        { label: "Log out", icon: "log-out", onSelect: logOut },
      ]}
      trigger={({ open, toggle }) => (
        <button
          type="button"
          class="account-button"
          aria-label={`Account of ${user.username}`}
          aria-haspopup="menu"
          aria-expanded={open ? "true" : "false"}
          onClick={toggle}
        >
          <Avatar name={user.username} address={user.address} />
        </button>
      )}
    />
  );
}

/** Sends the same form as the page that works without this code. */
function logOut(): void {
  const form = document.createElement("form");
  form.method = "post";
  form.action = "/logout";
  document.body.append(form);
  form.submit();
}

function ConnectionBanner(): JSX.Element | null {
  const state = connection.value;
  if (state === "ok") return null;
  return (
    <div class="banner" role="status">
      <Icon name={state === "offline" ? "wifi-off" : "hourglass"} size="small" />
      {state === "offline"
        ? "The server does not answer. We keep trying."
        : "The store is changing over to another machine. Nothing is lost."}
    </div>
  );
}

export interface RailActionProps {
  readonly icon: IconName;
  readonly label: string;
  readonly onClick: (event: Event) => void;
}

/** The main thing to do in an app: compose, new folder or upload. */
export function RailAction({ icon, label, onClick }: RailActionProps): JSX.Element {
  return (
    <div class="rail-action">
      <Button variant="primary" wide icon={icon} onClick={onClick}>{label}</Button>
    </div>
  );
}

export interface RailLinkProps {
  readonly icon: IconName;
  readonly label: string;
  readonly href: string;
  readonly current?: boolean;
  readonly count?: number;
  /** Lets things be dropped here; `dropping` marks the link while they hover. */
  readonly dropping?: boolean;
  readonly onDragOver?: (event: DragEvent) => void;
  readonly onDragLeave?: (event: DragEvent) => void;
  readonly onDrop?: (event: DragEvent) => void;
}

export function RailLink(props: RailLinkProps): JSX.Element {
  const { icon, label, href, current, count, dropping, ...drag } = props;
  return (
    <a
      class={dropping ? "rail-link rail-link--drop" : "rail-link"}
      href={href}
      {...(current ? { "aria-current": "page" as const } : {})}
      {...drag}
    >
      <Icon name={icon} />
      <span class="truncate">{label}</span>
      {count !== undefined && count > 0 && <span class="rail-link__count">{count}</span>}
    </a>
  );
}

export function RailHeading({ children }: { children: ComponentChildren }): JSX.Element {
  return <h2 class="rail-heading">{children}</h2>;
}
